//! Upstreams over TLS: nginx says goodbye to them with a record of its own, which is no request.

use anyhow::{Result, ensure};
use rig::{Certificate, Endpoint, Location, Namespace, Nginx, Tracer};

#[test]
fn successes_over_tls_are_silent_and_a_refusal_beside_them_is_reported() -> Result<()> {
    let namespace = Namespace::new()?;
    let upstream = Endpoint::v4(18443);
    let nobody = Endpoint::v4(18444);
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .block(&Certificate::self_signed(&namespace, "rig")?.server(18443, "return 200 hello;"))
        .group("kept", &[&upstream], &["keepalive 4"])
        .location(Location::https("/tls/", &upstream))
        .location(Location::https("/keeps/", &upstream).through_group("kept"))
        .location(Location::https("/refused/", &nobody))
        .start()?;
    namespace.wait_for_listener(&upstream)?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    for path in ["/tls/", "/keeps/"] {
        ensure!(client.storm(path, 200, 8)? == [(200, 200)].into(), "{path}");
    }
    ensure!(client.get("/refused/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    account.only(&nobody)?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    ensure!(nginx.failures().len() == 1);
    Ok(())
}
