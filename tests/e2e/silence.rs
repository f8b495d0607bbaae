//! What nginx ends without a word did not fail by the upstream (issues 19 and 20).

use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::Reason;
use h2::client::SendRequest;
use http::Request;
use rig::reconcile::pair_off_words;
use rig::tracer::Account;
use rig::{Client, Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Tracer, wait};

/// Where the origin answers: by faults of its own choosing, and plainly.
const ODD: u16 = 9201;
const PLAIN: u16 = 9202;
/// Where nginx passes on to it.
const FRONT: u16 = 8081;
const HTTP2: u16 = 8082;

/// The body of each odd answer is larger than nginx's buffer for it.
const LARGE: usize = 100_000;

/// What nginx ends early on purpose, each with what its client gets.
const ENDED_EARLY: [(&str, &str); 6] = [
    ("/intercepted/", "fine\n"),
    ("/named/", "plain\n"),
    ("/next/", "plain\n"),
    ("/authorized/", "plain\n"),
    ("/elsewhere/", "fine\n"),
    ("/mirrored/", "plain\n"),
];

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// An nginx that answers as the rows of the table need it, and is not traced.
fn origin(namespace: &Namespace) -> Result<Nginx> {
    let folder = namespace.folder("origin")?;
    fs::write(folder.join("large"), "x".repeat(LARGE))?;
    let folder = folder.display();
    Nginx::on(namespace)
        .port(8090)
        .block(&format!(
            "server {{ listen 127.0.0.1:{ODD}; root {folder}; error_page 503 /large;
              add_header X-Accel-Redirect $elsewhere always;
              location = /large {{ }}
              location / {{ try_files /large =404; }}
              location /unavailable/ {{ return 503; }} }}"
        ))
        .block("map $request_uri $elsewhere { ~elsewhere /fine/; default ''; }")
        .block(&format!("server {{ listen 127.0.0.1:{PLAIN}; location / {{ return 200 \"plain\\n\"; }} }}"))
        .start()
}

/// The traced nginx: it passes on to the origin, and to servers that fail.
fn front(namespace: &Namespace, muted: &Endpoint, cut: &Endpoint, socket: u16, more: &str) -> Result<Nginx> {
    let (muted, cut) = (muted.for_nginx(), cut.for_nginx());
    let locations = format!(
        "location /fine/ {{ return 200 \"fine\\n\"; }}
         location /plain/ {{ proxy_pass http://127.0.0.1:{PLAIN}; }}
         location /intercepted/ {{ proxy_pass http://127.0.0.1:{ODD}/unavailable/; proxy_intercept_errors on; error_page 503 =200 /fine/; }}
         location /named/ {{ proxy_pass http://127.0.0.1:{ODD}/unavailable/; proxy_intercept_errors on; error_page 503 =200 @other; }}
         location @other {{ proxy_pass http://127.0.0.1:{PLAIN}; }}
         location /next/ {{ proxy_pass http://pair/unavailable/; proxy_next_upstream http_503; }}
         location /authorized/ {{ auth_request /authorize; proxy_pass http://127.0.0.1:{PLAIN}; }}
         location = /authorize {{ proxy_pass http://127.0.0.1:{ODD}/large; }}
         location /elsewhere/ {{ proxy_pass http://127.0.0.1:{ODD}; }}
         location /mirrored/ {{ mirror /copy; proxy_pass http://127.0.0.1:{PLAIN}; }}
         location = /copy {{ proxy_pass http://127.0.0.1:{ODD}/large; }}
         location /mute/ {{ proxy_pass http://{muted}; }}
         location /slow/ {{ proxy_pass http://{muted}; proxy_read_timeout 700ms; }}
         location /cut/ {{ proxy_pass http://{cut}; }}
         location /nobody/ {{ proxy_pass http://127.0.0.1:9109; }}
         location /socket/ {{ proxy_pass http://127.0.0.1:{socket}; proxy_http_version 1.1;
           proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade; }}"
    );
    Nginx::on(namespace)
        .block(more)
        .block(&format!(
            "upstream pair {{ server 127.0.0.1:{ODD} max_fails=0; server 127.0.0.1:{PLAIN} backup; }}"
        ))
        .block(&format!("server {{ listen 127.0.0.1:{FRONT}; {locations} }}"))
        .block(&format!("server {{ listen 127.0.0.1:{HTTP2} http2; {locations} }}"))
        .start()
}

fn ended_early(account: &Account) -> Result<u64> {
    account.summary["ended_early"].as_u64().context("a count of exchanges that nginx ended early")
}

#[test]
fn what_nginx_ends_early_on_purpose_is_no_failure_and_is_counted() -> Result<()> {
    let namespace = Namespace::new()?;
    let (muted, cut) = (Endpoint::v4(9100), Endpoint::v4(9101));
    let servers = [
        FaultyServer::start(&namespace, Fault::Mute, muted.clone(), 4)?,
        FaultyServer::start(&namespace, Fault::CutLength, cut.clone(), 4)?,
    ];
    let _origin = origin(&namespace)?;
    let nginx = front(&namespace, &muted, &cut, 9300, "")?;
    let tracer = Tracer::of(nginx.master())?;
    let client = Client::new(&namespace, loopback(FRONT));
    for (path, body) in ENDED_EARLY {
        let answer = client.get(path)?;
        let got = String::from_utf8_lossy(&answer.body);
        ensure!((answer.status, &*got) == (200, body), "{path}: {} {got:.20}", answer.status);
        // A real one beside each.
        ensure!(client.get("/nobody/")?.status == 502);
    }
    ensure!(client.get("/slow/")?.status == 504);
    ensure!(client.get("/cut/")?.body.len() == 4_000);
    tracer.wait_for(ENDED_EARLY.len() + 2)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    account.only(&muted)?.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    account.only(&cut)?;
    ensure!(account.about(&Endpoint::v4(9109)).len() == ENDED_EARLY.len());
    ensure!(ended_early(&account)? == ENDED_EARLY.len() as u64, "{}", account.summary);
    drop(servers);
    Ok(())
}

#[test]
fn a_connection_that_the_pool_has_no_room_for_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let servers = (9100..9103)
        .map(|port| FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(port), 16))
        .collect::<Result<Vec<_>>>()?;
    let endpoints: Vec<_> = servers.iter().map(FaultyServer::endpoint).collect();
    let nginx = Nginx::on(&namespace)
        .group("three", &endpoints, &["keepalive 2"])
        .location(Location::http("/", endpoints[0]).through_group("three"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    for _ in 0..12 {
        ensure!(nginx.client().get("/")?.status == 200);
    }
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty() && nginx.failures().is_empty(), "{:#?}", account.verdicts);
    ensure!(account.summary["exchanges"].as_u64().is_some_and(|ended| ended >= 10), "{}", account.summary);
    Ok(())
}

/// Asks on an HTTP/2 connection, and gives the status that comes.
async fn ask(requests: &mut SendRequest<Bytes>, path: &str) -> Result<u16> {
    let request = Request::get(format!("http://rig{path}")).body(())?;
    let (response, _) = requests.clone().ready().await?.send_request(request, true)?;
    let response = response.await?;
    let status = response.status().as_u16();
    let mut body = response.into_body();
    while let Some(some) = body.data().await {
        let length = some?.len();
        body.flow_control().release_capacity(length)?;
    }
    Ok(status)
}

/// An HTTP/2 client that cancels one request beside those that it waits for.
///
/// What it asks for next must not come to nginx in one read with the cancel: nginx then answers in the turn in which it closes what was
/// cancelled, and that answer may be to either.
async fn cancels(stream: TcpStream, server: &FaultyServer, nginx: &Nginx) -> Result<()> {
    stream.set_nonblocking(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let (mut requests, connection) = h2::client::handshake(stream).await?;
    let driven = tokio::spawn(connection);
    for round in 1..=3 {
        let request = Request::get("http://rig/mute/").body(())?;
        let (_, mut canceled) = requests.clone().ready().await?.send_request(request, true)?;
        ensure!(ask(&mut requests, "/plain/").await? == 200);
        tokio::task::block_in_place(|| server.wait_read(round))?;
        canceled.send_reset(Reason::CANCEL);
        // Each round has four requests, of which two have ended by then.
        tokio::task::block_in_place(|| nginx.wait_for_accesses(4 * round - 2))?;
        ensure!(ask(&mut requests, "/plain/").await? == 200);
        ensure!(ask(&mut requests, "/nobody/").await? == 502);
    }
    drop(requests);
    driven.abort();
    Ok(())
}

#[test]
fn what_an_http2_client_cancels_is_not_the_upstreams_fault() -> Result<()> {
    let namespace = Namespace::new()?;
    let (muted, cut) = (Endpoint::v4(9100), Endpoint::v4(9101));
    let server = FaultyServer::start(&namespace, Fault::Mute, muted.clone(), 16)?;
    let _origin = origin(&namespace)?;
    let nginx = front(&namespace, &muted, &cut, 9300, "")?;
    let tracer = Tracer::of(nginx.master())?;
    let stream = namespace.run(|| Ok(TcpStream::connect(loopback(HTTP2))?))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(cancels(stream, &server, &nginx))?;
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    // nginx says of a client that cancels at level info only, and names no upstream.
    let of_upstreams: Vec<_> =
        account.verdicts.iter().filter(|verdict| verdict.cause != "client_abort").cloned().collect();
    pair_off_words(&nginx.failures(), &of_upstreams)?;
    ensure!(account.about(&muted).len() == 3, "{:#?}", account.about(&muted));
    for canceled in account.about(&muted) {
        canceled.says("client_abort/stream_cancelled", "proven", 499, None)?;
    }
    ensure!(ended_early(&account)? == 0, "{}", account.summary);
    ensure!(account.about(&Endpoint::v4(9109)).len() == 3, "{:#?}", account.verdicts);
    Ok(())
}

/// Greets each, and says goodbye to who asks for it.
fn upgrade(listener: &TcpListener) -> Result<()> {
    for stream in listener.incoming().take(2) {
        let mut stream = stream?;
        stream.set_read_timeout(Some(wait::bound()))?;
        read_until(&mut stream, b"\r\n\r\n")?;
        stream.write_all(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\nhello",
        )?;
        // Either asks to be left, or leaves.
        let _read = stream.read(&mut [0; 16])?;
    }
    Ok(())
}

fn read_until(stream: &mut TcpStream, end: &[u8]) -> Result<()> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(end) {
        ensure!(stream.read(&mut byte)? == 1, "the end after {}", String::from_utf8_lossy(&all));
        all.push(byte[0]);
    }
    Ok(())
}

#[test]
fn an_upgraded_connection_that_either_side_ends_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let nowhere = Endpoint::v4(9109);
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(0))?))?;
    let upstream = listener.local_addr()?;
    let serving = thread::spawn(move || upgrade(&listener));
    let nginx = front(&namespace, &nowhere, &nowhere, upstream.port(), "")?;
    let tracer = Tracer::of(nginx.master())?;
    for who in ["server", "client"] {
        let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(FRONT))?))?;
        stream.set_read_timeout(Some(wait::bound()))?;
        stream.write_all(
            b"GET /socket/ HTTP/1.1\r\nHost: rig\r\nUpgrade: websocket\r\nConnection: upgrade\r\n\r\n",
        )?;
        read_until(&mut stream, b"hello")?;
        if who == "server" {
            stream.write_all(b"leave me")?;
            ensure!(stream.read(&mut [0; 16])? == 0);
        }
        drop(stream);
    }
    serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    nginx.wait_for_accesses(2)?;
    ensure!(Client::new(&namespace, loopback(FRONT)).get("/nobody/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    account.only(&nowhere)?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);
    Ok(())
}

/// Where nginx's word is not heard, what it did next proves nothing.
fn is_only_inferred(more: &str, arguments: &[&str]) -> Result<()> {
    let namespace = Namespace::new()?;
    let (muted, cut) = (Endpoint::v4(9100), Endpoint::v4(9101));
    let mute = FaultyServer::start(&namespace, Fault::Mute, muted.clone(), 4)?;
    let cutting = FaultyServer::start(&namespace, Fault::CutLength, cut.clone(), 4)?;
    let _origin = origin(&namespace)?;
    let nginx = front(&namespace, &muted, &cut, 9300, more)?;
    let master = nginx.master().to_string();
    let tracer = Tracer::start(&[&["-p", &master], arguments].concat())?;
    let client = Client::new(&namespace, loopback(FRONT));
    for (path, _) in ENDED_EARLY {
        ensure!(client.get(path)?.status == 200, "{path}");
    }
    ensure!(client.get("/slow/")?.status == 504);
    let leaves = client.ask("/mute/")?;
    mute.wait_read(2)?;
    leaves.abort()?;
    nginx.wait_for_accesses(ENDED_EARLY.len() + 2)?;
    ensure!(client.get("/nobody/")?.status == 502);
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    for verdict in &account.verdicts {
        // Which exchange a line of the log is about is a conclusion, too.
        let of_kernel = verdict.cause == "refused" && verdict.word.is_none();
        ensure!((verdict.confidence == "proven") == of_kernel, "{verdict:#?}");
        let is_heard = verdict.evidence.iter().any(|one| one.source.starts_with("uprobe/"));
        ensure!(!is_heard, "{verdict:#?}");
    }
    let mut names: Vec<_> = account.about(&muted).iter().map(|verdict| verdict.name()).collect();
    names.sort();
    ensure!(names == ["client_abort/before_response", "read_timeout/slow_worker"], "{names:?}");
    ensure!(ended_early(&account)? == 0, "{}", account.summary);
    drop(cutting);
    Ok(())
}

#[test]
fn where_errors_are_kept_from_the_log_silence_proves_nothing() -> Result<()> {
    is_only_inferred("error_log /dev/null crit;", &[])
}

#[test]
fn where_nginx_is_not_listened_to_silence_proves_nothing() -> Result<()> {
    is_only_inferred("", &["--no-uprobe"])
}

#[test]
fn two_requests_on_one_clients_connection_are_not_one() -> Result<()> {
    let namespace = Namespace::new()?;
    let nowhere = Endpoint::v4(9109);
    let other = Endpoint::v4(9108);
    let nginx = Nginx::on(&namespace)
        .group("two", &[&nowhere, &other], &[])
        .location(Location::http("/two/", &nowhere).through_group("two").read_timeout(Duration::from_secs(1)))
        .location(Location::http("/one/", &nowhere))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = namespace.run(|| Ok(TcpStream::connect(loopback(8080))?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    // Both at once: nginx comes to the second in the turn in which it has answered the first.
    stream.write_all(b"GET /two/ HTTP/1.1\r\nHost: rig\r\n\r\nGET /one/ HTTP/1.1\r\nHost: rig\r\nConnection: close\r\n\r\n")?;
    stream.read_to_end(&mut Vec::new())?;
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let [first, second, third] = account.verdicts.as_slice() else {
        anyhow::bail!("{:#?}", account.verdicts)
    };
    ensure!(first.request.is_some() && first.request == second.request, "{first:#?} {second:#?}");
    ensure!(third.request != first.request, "{third:#?}");
    let clients: Vec<_> =
        account.verdicts.iter().map(|it| it.word.as_ref().map(|word| word.connection)).collect();
    ensure!(clients.iter().all(|client| *client == clients[0]), "{clients:?}");
    Ok(())
}

/// Answers one FastCGI request with an error that is longer than nginx's buffer for it, and keeps the connection until nginx closes it.
fn answer_unavailable(listener: &TcpListener) -> Result<()> {
    const ANSWER: &[u8] = b"Status: 503 Service Unavailable\r\n\r\n";
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(wait::bound()))?;
    ensure!(stream.read(&mut [0; 4_096])? > 0, "no request");
    let content = [ANSWER, &[b'x'; 30_000]].concat();
    // Version 1, standard output, of request 1, without padding.
    let mut record = vec![1, 6, 0, 1];
    record.extend(u16::try_from(content.len())?.to_be_bytes());
    record.extend([0, 0]);
    record.extend(content);
    stream.write_all(&record)?;
    // A reset, for nginx leaves most of it unread.
    while stream.read(&mut [0; 4_096]).is_ok_and(|read| read > 0) {}
    Ok(())
}

#[test]
fn an_error_of_fastcgi_that_is_intercepted_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(0))?))?;
    let upstream = listener.local_addr()?;
    let serving = thread::spawn(move || answer_unavailable(&listener));
    let nginx = Nginx::on(&namespace)
        .block(&format!(
            "server {{ listen 127.0.0.1:{FRONT};
              location /fine/ {{ return 200 \"fine\\n\"; }}
              location / {{ fastcgi_pass {upstream}; fastcgi_intercept_errors on; error_page 503 =200 /fine/; }} }}"
        ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let answer = Client::new(&namespace, loopback(FRONT)).get("/")?;
    ensure!(answer.status == 200 && answer.body == b"fine\n", "{}", answer.status);
    serving.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
    ensure!(ended_early(&account)? == 1, "{}", account.summary);
    Ok(())
}

/// The upstream's 304 makes nginx's copy good again, and that is what the client gets.
#[test]
fn a_copy_in_the_cache_that_is_still_good_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let folder = namespace.folder("origin")?;
    fs::write(folder.join("copied"), "copied\n")?;
    let _origin = Nginx::on(&namespace)
        .port(8090)
        .block(&format!("server {{ listen 127.0.0.1:{PLAIN}; root {}; }}", folder.display()))
        .start()?;
    let cache = namespace.folder("cache")?;
    let nginx = Nginx::on(&namespace)
        .block(&format!("proxy_cache_path {} keys_zone=zone:1m;", cache.display()))
        .block(&format!(
            "server {{ listen 127.0.0.1:{FRONT};
              location / {{ proxy_pass http://127.0.0.1:{PLAIN}; proxy_cache zone; proxy_cache_valid 200 1s; proxy_cache_revalidate on; }} }}"
        ))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = Client::new(&namespace, loopback(FRONT));
    ensure!(client.get("/copied")?.status == 200);
    wait::until_true("nginx's copy to be asked about again", || {
        let answer = client.get("/copied")?;
        ensure!(answer.body == b"copied\n", "{}", answer.status);
        Ok(nginx.wait_for_accesses(1)?.iter().any(|access| access.upstream_status == "304"))
    })?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.is_empty(), "{:#?}", account.verdicts);
    Ok(())
}
