//! What nginx says of upstreams that speak HTTP/2 wrongly, or not at all, each with its verdict (issue 19).

use anyhow::{Result, ensure};
use rig::error_log::Failure;
use rig::reconcile::pair_off_words;
use rig::{By, Endpoint, Fault, FaultyServer, FaultySite, Location, Namespace, Nginx, Tracer};

const FAULTS: [Fault; 10] = [
    Fault::Http2Reset,
    Fault::Http2ResetMidway,
    Fault::Http2Goaway,
    Fault::Http2CutStream,
    Fault::Http2CutConnection,
    Fault::Http2BadLength,
    Fault::Http2BadIndex,
    Fault::Http2Push,
    Fault::Http2BigFrame,
    Fault::Http2Answer,
];

fn name(fault: Fault, _: &Failure) -> &'static str {
    match fault {
        Fault::Http2Reset | Fault::Http2ResetMidway => "reset/http2_stream",
        Fault::Http2Goaway => "reset/http2_goaway",
        Fault::Http2CutStream | Fault::Http2CutConnection => "premature_close/response_cut_short",
        _ => "rejected_response/http2_error",
    }
}

fn speaks_wrongly(by: By) -> Result<()> {
    let namespace = Namespace::new()?;
    let site = FaultySite::start(&namespace, by, FAULTS, |location| location)?;
    let account = site.is_explained(name)?;
    for (fault, error) in [(Fault::Http2Reset, "INTERNAL_ERROR"), (Fault::Http2Goaway, "ENHANCE_YOUR_CALM")] {
        let verdict = site.verdict(&account, fault)?;
        ensure!(verdict.explanation.contains(error), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn each_wrong_response_has_its_cause_over_tcp() -> Result<()> {
    speaks_wrongly(By::Tcp)
}

#[test]
fn http2_to_a_port_of_http_1_is_an_error_of_http2() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    let nginx = Nginx::on(&namespace).location(Location::grpc("/grpc/", server.endpoint())).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/grpc/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    account.only(server.endpoint())?.says("rejected_response/http2_error", "proven", 502, None)
}
