//! Connections that nginx makes for no request that it passes on: sessions of `stream {}` and Lua's cosockets. Their connects and timers may
//! fail, their ends are ordinary ones, and a status is none of theirs.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::thread;

use anyhow::{Context, Result, anyhow, ensure};
use nix::sys::signal::Signal;
use rig::tracer::Account;
use rig::{
    Client, Endpoint, Fault, FaultyServer, Help, Namespace, Nginx, Resolver, Tracer, Verdict, process, wait,
};

const SERVER: u16 = 9100;
const MUTE: u16 = 9101;
const FULL: u16 = 9102;
const EXITING: u16 = 9103;
const NOBODY: u16 = 9109;
/// Where nginx takes the sessions, and where the requests for Lua.
const SESSIONS: u16 = 8081;
const REFUSED: u16 = 8082;
const MISSING: u16 = 8083;
const UNREACHED: u16 = 8084;
const CUT: u16 = 8085;
const LUA: u16 = 8086;
const NAMELESS: u16 = 8087;
const DEAD: u16 = 8088;
const NAMES: u16 = 5301;

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

fn connect(namespace: &Namespace, port: u16) -> Result<TcpStream> {
    let stream = namespace.run(|| Ok(TcpStream::connect(loopback(port))?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    Ok(stream)
}

/// An nginx that passes sessions on.
fn nginx(namespace: &Namespace, sessions: &[(u16, String)]) -> Result<Nginx> {
    let servers: String = sessions
        .iter()
        .map(|(port, to)| {
            format!("server {{ listen 127.0.0.1:{port}; proxy_pass {to}; proxy_connect_timeout 500ms; }}\n")
        })
        .collect();
    Nginx::on(namespace)
        .module("ngx_stream_module")
        .beside_http(&format!("stream {{ {servers} }}"))
        .location(rig::Location::http("/nobody/", &Endpoint::v4(NOBODY)))
        .start()
}

/// The account after a real failure of a request, beside so many others.
fn account(nginx: &Nginx, tracer: Tracer, others: usize) -> Result<Account> {
    ensure!(nginx.client().get("/nobody/")?.status == 502);
    tracer.wait_for(others + 1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == others + 1, "{:#?}", account.verdicts);
    Ok(account)
}

/// What must hold of a verdict on what is no request.
fn says(verdict: &Verdict, name: &str, errno: Option<&str>) -> Result<()> {
    let said = (verdict.name(), verdict.confidence.as_str(), verdict.status, verdict.errno.as_deref());
    ensure!(said == (name.to_owned(), "proven", None, errno), "{said:?}: {verdict:#?}");
    Ok(())
}

/// What each side does in its turn.
const ENDS: [(&str, &str); 5] = [
    ("talks", "closes"),
    ("talks", "waits"),
    ("closes", "waits"),
    ("shuts down", "waits"),
    ("closes", "closes"),
];

fn echo(listener: &TcpListener) -> Result<()> {
    for ((_, does), stream) in ENDS.iter().zip(listener.incoming()) {
        let mut stream = stream?;
        stream.set_read_timeout(Some(wait::bound()))?;
        let mut some = [0; 16];
        let mut length = stream.read(&mut some)?;
        while length > 0 {
            stream.write_all(&some[..length])?;
            if *does == "closes" {
                break;
            }
            length = stream.read(&mut some).unwrap_or(0);
        }
    }
    Ok(())
}

#[test]
fn a_session_that_either_side_ends_is_no_failure() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(SERVER))?))?;
    let serving = thread::spawn(move || echo(&listener));
    let nginx = nginx(&namespace, &[(SESSIONS, format!("127.0.0.1:{SERVER}"))])?;
    let tracer = Tracer::of(nginx.master())?;
    for (client, server) in ENDS {
        let mut stream = connect(&namespace, SESSIONS)?;
        for _ in 0..if (client, server) == ("talks", "waits") { 3 } else { 1 } {
            stream.write_all(b"hello")?;
            stream.read_exact(&mut [0; 5])?;
        }
        if client == "shuts down" {
            stream.shutdown(Shutdown::Write)?;
        }
        // What a server has closed with bytes unread would be reset.
        if client == "shuts down" || (client, server) == ("talks", "closes") {
            stream.read_to_end(&mut Vec::new())?;
        }
    }
    serving.join().map_err(|_| anyhow!("the server panicked"))??;
    account(&nginx, tracer, 0)?.only(&Endpoint::v4(NOBODY))?.says(
        "refused/no_listener",
        "proven",
        502,
        Some("ECONNREFUSED"),
    )
}

/// nginx logs it, and there was no request that could have come too late for a kept connection.
#[test]
fn a_session_that_the_server_resets_is_reset_by_it_and_has_no_status() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind(loopback(SERVER))?))?;
    let serving = thread::spawn(move || -> Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(wait::bound()))?;
        let mut some = [0; 5];
        stream.read_exact(&mut some)?;
        stream.write_all(&some)?;
        stream.peek(&mut some)?;
        Ok(())
    });
    let nginx = nginx(&namespace, &[(SESSIONS, format!("127.0.0.1:{SERVER}"))])?;
    let tracer = Tracer::of(nginx.master())?;
    let mut stream = connect(&namespace, SESSIONS)?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])?;
    stream.write_all(b"hello")?;
    // The end, or a reset.
    let _ended = stream.read(&mut [0; 16]);
    serving.join().map_err(|_| anyhow!("the server panicked"))??;
    let account = account(&nginx, tracer, 1)?;
    says(account.only(&Endpoint::v4(SERVER))?, "reset/peer_aborted", Some("ECONNRESET"))
}

#[test]
fn a_session_whose_upstream_cannot_be_reached_has_a_verdict_and_no_status() -> Result<()> {
    let namespace = Namespace::new()?;
    let missing = Endpoint::Unix(namespace.scratch().join("missing.sock"));
    let full = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(FULL), 0)?;
    let _first = connect(&namespace, FULL)?;
    let refused = Endpoint::v4(NOBODY - 1);
    let sessions = [
        (REFUSED, refused.for_nginx()),
        (MISSING, missing.for_nginx()),
        (UNREACHED, full.endpoint().for_nginx()),
    ];
    let nginx = nginx(&namespace, &sessions)?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    for (port, _) in &sessions {
        connect(&namespace, *port)?.read_to_end(&mut Vec::new())?;
    }
    let account = account(&nginx, tracer, 3)?;
    says(account.only(&refused)?, "refused/no_listener", Some("ECONNREFUSED"))?;
    says(account.only(&missing)?, "refused/socket_missing", Some("ENOENT"))?;
    says(account.only(full.endpoint())?, "accept_queue_overflow/syn_dropped", Some("ETIMEDOUT"))
}

/// What the log alone says of them is the same.
fn no_status_without_a_connection(arguments: &[&str], confidence: &str) -> Result<()> {
    let namespace = Namespace::new()?;
    let _names = Resolver::start(&namespace, NAMES, Help::NoSuchName)?;
    let nginx = Nginx::on(&namespace)
        .module("ngx_stream_module")
        .beside_http(&format!(
            "stream {{ resolver 127.0.0.1:{NAMES} ipv6=off;
               upstream dead {{ server 127.0.0.1:{} fail_timeout=60s; server 127.0.0.1:{} fail_timeout=60s; }}
               server {{ listen 127.0.0.1:{DEAD}; proxy_pass dead; }}
               server {{ listen 127.0.0.1:{NAMELESS}; proxy_pass $server_port.test:{SERVER}; }} }}",
            NOBODY - 1,
            NOBODY - 2,
        ))
        .location(rig::Location::http("/nobody/", &Endpoint::v4(NOBODY)))
        .start()?;
    let master = nginx.master().to_string();
    let tracer = Tracer::start(&[&["-p", &master], arguments].concat())?;
    // The first takes both servers out of use.
    for port in [DEAD, DEAD, NAMELESS] {
        connect(&namespace, port)?.read_to_end(&mut Vec::new())?;
    }
    let account = account(&nginx, tracer, 4)?;
    for name in ["not_attempted/no_live_upstreams", "not_attempted/unresolved"] {
        let named: Vec<_> = account.verdicts.iter().filter(|verdict| verdict.name() == name).collect();
        ensure!(named.len() == 1, "{name}: {:#?}", account.verdicts);
        let said = (named[0].status, named[0].confidence.as_str());
        ensure!(said == (None, confidence), "{:#?}", named[0]);
    }
    Ok(())
}

#[test]
fn a_session_for_which_nobody_could_be_asked_has_a_verdict_and_no_status() -> Result<()> {
    no_status_without_a_connection(&[], "proven")
}

#[test]
fn a_session_for_which_nobody_could_be_asked_has_no_status_where_the_log_shows_it() -> Result<()> {
    no_status_without_a_connection(&["--no-uprobe"], "inferred")
}

#[test]
fn a_session_is_cut_by_a_worker_that_is_killed_and_not_by_one_that_exits() -> Result<()> {
    let namespace = Namespace::new()?;
    let killed = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(SERVER), 8)?;
    let exiting = FaultyServer::start(&namespace, Fault::AnswerAndExit, Endpoint::v4(EXITING), 8)?;
    let sessions = [(SESSIONS, killed.endpoint().for_nginx()), (CUT, exiting.endpoint().for_nginx())];
    let nginx = nginx(&namespace, &sessions)?;
    let tracer = Tracer::of(nginx.master())?;
    let ask = |port| -> Result<TcpStream> {
        let mut stream = connect(&namespace, port)?;
        stream.write_all(b"GET / HTTP/1.1\r\n\r\n")?;
        ensure!(stream.read(&mut [0; 16])? > 0);
        Ok(stream)
    };
    // As servers do that have a process for each connection.
    ask(CUT)?.read_to_end(&mut Vec::new())?;
    let mut stream = ask(SESSIONS)?;
    process::send(killed.pid(), Signal::SIGKILL)?;
    stream.read_to_end(&mut Vec::new())?;
    let account = account(&nginx, tracer, 1)?;
    let verdict = account.only(killed.endpoint())?;
    says(verdict, "upgraded/worker_killed", None)?;
    verdict.blames(Some(killed.pid()), Some("SIGKILL"), Some(std::process::id().cast_signed()))?;
    ensure!(verdict.explanation.contains("(stream)"), "{verdict:#?}");
    Ok(())
}

/// Says what came of it: each location has a line that is run with a cosocket.
fn lua(namespace: &Namespace) -> Result<Option<Nginx>> {
    let core = ["/usr/share/lua/5.1/resty/core.lua", "/usr/share/lua/5.1/resty/core/base.lua"];
    if !core.iter().any(|path| Path::new(path).is_file()) {
        eprintln!("skipped: no Lua for nginx; `cargo xtask setup` installs it");
        return Ok(None);
    }
    let location = |name: &str, port: u16, then: &str| {
        format!(
            "location /{name}/ {{ content_by_lua_block {{
               local sock = ngx.socket.tcp()
               sock:settimeouts(500, 500, 500)
               local is_connected, why = sock:connect('127.0.0.1', {port})
               if not is_connected then ngx.say(why) return end
               {then}
             }} }}\n"
        )
    };
    let sink = "sock:send('a line of a log') sock:close() ngx.say('sent')";
    let asks = "sock:send('GET / HTTP/1.0\\r\\n\\r\\n') local line, why = sock:receive() sock:close() ngx.say(line or why)";
    let locations = location("sink", SERVER, sink)
        + &location("refused", NOBODY - 1, sink)
        + &location("unreached", FULL, sink)
        + &location("slow", MUTE, asks);
    let nginx = Nginx::on(namespace)
        .module("ndk_http_module")
        .module("ngx_http_lua_module")
        .block(&format!("server {{ listen 127.0.0.1:{LUA}; {locations} }}"))
        .location(rig::Location::http("/nobody/", &Endpoint::v4(NOBODY)))
        .start()?;
    Ok(Some(nginx))
}

#[test]
fn a_cosocket_has_verdicts_for_connects_and_timers_and_none_for_its_end() -> Result<()> {
    let namespace = Namespace::new()?;
    let Some(nginx) = lua(&namespace)? else { return Ok(()) };
    let sink = namespace.run(|| Ok(TcpListener::bind(loopback(SERVER))?))?;
    let mute = FaultyServer::start(&namespace, Fault::Mute, Endpoint::v4(MUTE), 8)?;
    let full = FaultyServer::start(&namespace, Fault::NeverAccept, Endpoint::v4(FULL), 0)?;
    let _first = connect(&namespace, FULL)?;
    let tracer = Tracer::of(nginx.master())?;
    let client = Client::new(&namespace, loopback(LUA));
    let says_of = |name: &str| -> Result<String> {
        Ok(String::from_utf8_lossy(&client.get(&format!("/{name}/"))?.body).trim_end().to_owned())
    };
    for _ in 0..5 {
        ensure!(says_of("sink")? == "sent");
        sink.accept().context("a line of a log")?.0.read_to_end(&mut Vec::new())?;
    }
    ensure!(says_of("refused")? == "connection refused");
    ensure!(says_of("unreached")? == "timeout");
    ensure!(says_of("slow")? == "timeout");
    let account = account(&nginx, tracer, 3)?;
    says(account.only(&Endpoint::v4(NOBODY - 1))?, "refused/no_listener", Some("ECONNREFUSED"))?;
    says(account.only(full.endpoint())?, "accept_queue_overflow/syn_dropped", Some("ETIMEDOUT"))?;
    let slow = account.only(mute.endpoint())?;
    says(slow, "read_timeout/slow_worker", Some("ETIMEDOUT"))?;
    let word = slow.word.as_ref().context("nginx's word")?;
    ensure!(word.message == "lua tcp socket read timed out", "{slow:#?}");
    slow.blames(Some(mute.pid()), None, None)
}
