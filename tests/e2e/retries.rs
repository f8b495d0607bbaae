//! Which exchanges are reported as tries for one request, and which are not (issue 19).

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};

use anyhow::{Result, ensure};
use http::Request;
use rig::reconcile::pair_off_words;
use rig::{Endpoint, Location, Namespace, Nginx, Tracer};

/// Where nginx speaks HTTP/2.
const HTTP2: u16 = 8082;

/// Asks for all of these at once, in one segment of one HTTP/2 connection, and gives the statuses.
async fn ask_at_once(stream: TcpStream, paths: &[&str]) -> Result<Vec<u16>> {
    stream.set_nonblocking(true)?;
    let (mut requests, connection) = h2::client::handshake(tokio::net::TcpStream::from_std(stream)?).await?;
    let mut asked = Vec::new();
    // What drives the connection begins only after the last of them: until then nothing is sent.
    for path in paths {
        let request = Request::get(format!("http://rig{path}")).body(())?;
        asked.push(requests.send_request(request, true)?.0);
    }
    let driven = tokio::spawn(connection);
    let mut statuses = Vec::new();
    for response in asked {
        statuses.push(response.await?.status().as_u16());
    }
    drop(requests);
    driven.abort();
    Ok(statuses)
}

#[test]
fn requests_on_one_http2_connection_are_not_tries_for_one() -> Result<()> {
    let namespace = Namespace::new()?;
    let missing = |name: &str| Endpoint::Unix(namespace.scratch().join(name));
    let (one, two) = (missing("one.sock"), missing("two.sock"));
    let pair = [missing("first.sock"), missing("second.sock")];
    let refused = [Endpoint::v4(9108), Endpoint::v4(9109)];
    let pass = |endpoint: &Endpoint| format!("proxy_pass http://{};", endpoint.for_nginx());
    let locations = [
        ("/one/", pass(&one)),
        ("/two/", pass(&two)),
        ("/refused/", pass(&refused[0])),
        ("/pair/", "proxy_pass http://pair;".to_owned()),
        ("/both/", "proxy_pass http://both;".to_owned()),
    ];
    let locations: String =
        locations.iter().map(|(path, body)| format!("location {path} {{ {body} }} ")).collect();
    let nginx = Nginx::on(&namespace)
        .group("pair", &[&pair[0], &pair[1]], &[])
        .group("both", &[&refused[0], &refused[1]], &[])
        .block(&format!("server {{ listen 127.0.0.1:{HTTP2} http2; {locations} }}"))
        .location(Location::http("/one/", &one))
        .start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let paths = ["/one/", "/two/", "/pair/", "/one/", "/refused/", "/both/", "/two/"];
    let stream = namespace.run(|| Ok(TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, HTTP2)))?))?;
    let statuses = runtime.block_on(ask_at_once(stream, &paths))?;
    ensure!(statuses == [502; 7], "{statuses:?}");
    tracer.wait_for(9)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let connections: Vec<_> =
        account.verdicts.iter().map(|verdict| verdict.word.as_ref().map(|word| word.connection)).collect();
    ensure!(connections.iter().all(|one| *one == connections[0]), "{connections:?}");
    let mut tries = BTreeMap::<_, Vec<&str>>::new();
    for verdict in &account.verdicts {
        if let (Some(request), Some(address)) = (&verdict.request, verdict.address()) {
            tries.entry(format!("{request:?}")).or_default().push(address);
        }
    }
    let tied = |endpoints: &[Endpoint; 2]| endpoints.clone().map(|endpoint| endpoint.to_string());
    let (pair, both) = (tied(&pair), tied(&refused));
    for tied in tries.values_mut() {
        tied.sort_unstable();
        ensure!(tied.len() == 2 && (*tied == pair || *tied == both), "{tries:#?}");
    }
    ensure!(tries.len() == 2, "{tries:#?}");
    Ok(())
}
