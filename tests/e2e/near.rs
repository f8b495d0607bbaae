//! Nobody listens where nginx asks: who listens near.

use std::fs;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::tracer::Account;
use rig::verdict::Neighbour;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Sight, Tracer, Verdict, process, wait};

/// Listens on a unix socket, and does no more.
const LISTENER: &str = "import signal, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen()
signal.pause()";

/// Asks each of these upstreams once.
fn refused_at(namespace: &Namespace, upstreams: &[&Endpoint]) -> Result<Account> {
    let mut nginx = Nginx::on(namespace);
    for (number, upstream) in upstreams.iter().enumerate() {
        nginx = nginx.location(Location::http(&format!("/{number}/"), upstream));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    for number in 0..upstreams.len() {
        ensure!(nginx.client().get(&format!("/{number}/"))?.status == 502);
    }
    tracer.wait_for(upstreams.len())?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    Ok(account)
}

fn neighbours(verdict: &Verdict) -> Result<&[Neighbour]> {
    verdict.near.as_deref().with_context(|| format!("nobody looked: {verdict:#?}"))
}

fn explains(verdict: &Verdict, what: &str) -> Result<()> {
    ensure!(verdict.explanation.contains(what), "{what:?} is not in {verdict:#?}");
    Ok(())
}

#[test]
fn who_listens_on_the_same_port_at_another_address_is_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let here: Endpoint = "127.0.0.2:9371".parse()?;
    let other = FaultyServer::start(&namespace, Fault::Answer, here, 8)?;
    let six = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v6(9372), 8)?;
    let asked = [Endpoint::v4(9371), Endpoint::v4(9372), Endpoint::v4(9373)];
    let account = refused_at(&namespace, &[&asked[0], &asked[1], &asked[2]])?;
    for (asked, server) in asked.iter().zip([&other, &six]) {
        let verdict = account.only(asked)?;
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
        let [near] = neighbours(verdict)? else { anyhow::bail!("{verdict:#?}") };
        ensure!(near.pid == server.pid() && near.addr == server.endpoint().to_string(), "{verdict:#?}");
        ensure!(!near.elsewhere, "{verdict:#?}");
        explains(verdict, &format!("{} listens on {}", server.pid(), server.endpoint()))?;
        let advice = verdict.advice.as_deref().unwrap_or_default();
        ensure!(advice.contains("proxy_pass") && advice.contains(&near.addr), "{advice}");
    }
    let verdict = account.only(&asked[2])?;
    verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    ensure!(neighbours(verdict)?.is_empty(), "{verdict:#?}");
    explains(verdict, "Nothing on this host listens on port 9373")
}

#[test]
fn who_listens_in_another_network_namespace_is_told_apart() -> Result<()> {
    let (namespace, container) = (Namespace::new()?, Namespace::new()?);
    let server = FaultyServer::start(&container, Fault::Answer, Endpoint::v4(9374), 8)?;
    let account = refused_at(&namespace, &[server.endpoint()])?;
    let verdict = account.only(server.endpoint())?;
    verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    let [near] = neighbours(verdict)? else { anyhow::bail!("{verdict:#?}") };
    ensure!(near.pid == server.pid() && near.elsewhere, "{verdict:#?}");
    explains(verdict, &format!("{} listens on 127.0.0.1:9374 in another network namespace", server.pid()))
}

#[test]
fn a_socket_that_another_mount_namespace_has_is_not_taken_for_one_whose_file_is_gone() -> Result<()> {
    let namespace = Namespace::new()?;
    let folder = namespace.folder("private")?;
    let private = Endpoint::Unix(folder.join("private.sock"));
    let removed = Endpoint::Unix(namespace.scratch().join("removed.sock"));
    // As systemd's PrivateTmp.
    let mut command = namespace.command(process::find_program(&["unshare"])?);
    command.args([
        "--mount",
        "sh",
        "-c",
        "mount -t tmpfs none \"$1\" && exec python3 -c \"$2\" \"$3\"",
        "sh",
    ]);
    command.arg(&folder).args([LISTENER, &private.to_string()]);
    let hidden = namespace.start(command)?;
    let visible = FaultyServer::start(&namespace, Fault::Answer, removed.clone(), 8)?;
    wait::until_true("the hidden server to listen", || {
        let mut ss = namespace.command(process::find_program(&["ss"])?);
        ss.args(["-Hlx"]);
        Ok(process::output(ss)?.contains(&private.to_string()))
    })?;
    fs::remove_file(removed.to_string())?;
    let account = refused_at(&namespace, &[&private, &removed])?;
    for (endpoint, pid, elsewhere) in [(&private, hidden.pid(), true), (&removed, visible.pid(), false)] {
        let verdict = account.only(endpoint)?;
        verdict.says("refused/socket_missing", "proven", 502, Some("ENOENT"))?;
        let [near] = neighbours(verdict)? else { anyhow::bail!("{verdict:#?}") };
        ensure!(near.pid == pid && near.elsewhere == elsewhere, "{verdict:#?}");
        explains(verdict, if elsewhere { "in another mount namespace" } else { "its file was removed" })?;
    }
    let advice = account.only(&private)?.advice.as_deref().unwrap_or_default();
    ensure!(advice.contains("PrivateTmp"), "{advice}");
    Ok(())
}

#[test]
fn who_listened_there_until_a_moment_ago_is_named() -> Result<()> {
    let namespace = Namespace::new()?;
    let start = |endpoint| FaultyServer::start(&namespace, Fault::Answer, endpoint, 8);
    let mut closing = start(Endpoint::v4(9375))?;
    let killed = start(Endpoint::v4(9376))?;
    let unix = start(Endpoint::Unix(namespace.scratch().join("closed.sock")))?;
    let mut nginx = Nginx::on(&namespace);
    for (name, server) in [("closed", &closing), ("killed", &killed), ("unix", &unix)] {
        nginx = nginx.location(Location::http(&format!("/{name}/"), server.endpoint()));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    for name in ["closed", "killed", "unix"] {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 200);
    }
    closing.close_listener()?;
    process::send(killed.pid(), Signal::SIGKILL)?;
    process::send(unix.pid(), Signal::SIGKILL)?;
    let all = [closing.endpoint(), killed.endpoint(), unix.endpoint()];
    all.iter().try_for_each(|endpoint| namespace.wait_for_no_listener(endpoint))?;
    // It listens somewhere else now.
    let elsewhere = start(Endpoint::v4(9377))?;
    for name in ["closed", "killed", "unix"] {
        ensure!(nginx.client().get(&format!("/{name}/"))?.status == 502);
    }
    tracer.wait_for(3)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let died = "until it died of SIGKILL";
    for (server, how, signal) in [
        (&closing, "until it closed its listener", None),
        (&killed, died, Some("SIGKILL")),
        (&unix, died, Some("SIGKILL")),
    ] {
        let verdict = account.only(server.endpoint())?;
        verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
        // Tracepoints do not show when a unix listener ends.
        let is_unix = matches!(server.endpoint(), Endpoint::Unix(_));
        if is_unix && !Sight::here()?.has("unix_sockets")? {
            ensure!(verdict.closed.is_none(), "{verdict:#?}");
            continue;
        }
        explains(verdict, &format!("faulty-server {} listened there {how}", server.pid()))?;
        let closed = verdict.closed.as_ref().with_context(|| format!("nobody was seen to: {verdict:#?}"))?;
        ensure!(closed.pid == server.pid() && closed.us < 0 && closed.again_us.is_none(), "{verdict:#?}");
        ensure!(closed.signal.as_deref() == signal, "{verdict:#?}");
        let at = elsewhere.endpoint().to_string();
        ensure!(closed.namesakes.iter().any(|one| one.addr == at), "{verdict:#?}");
        explains(verdict, &format!("faulty-server {} listens on {at}", elsewhere.pid()))?;
    }
    Ok(())
}

#[test]
fn a_socket_that_is_missing_is_told_from_one_whose_folder_is() -> Result<()> {
    let namespace = Namespace::new()?;
    let folder = namespace.folder("there")?;
    let [there, not] = [folder.join("a.sock"), namespace.scratch().join("not/a.sock")].map(Endpoint::Unix);
    let account = refused_at(&namespace, &[&there, &not])?;
    for (endpoint, what, advice) in
        [(&there, "though its folder does", "is running"), (&not, "nor does its folder", "RuntimeDirectory")]
    {
        let verdict = account.only(endpoint)?;
        verdict.says("refused/socket_missing", "proven", 502, Some("ENOENT"))?;
        explains(verdict, what)?;
        ensure!(verdict.advice.as_deref().unwrap_or_default().contains(advice), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn a_listener_that_is_open_again_is_named_with_since_when() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9378), 8)?;
    let endpoint = server.endpoint().clone();
    let nginx = Nginx::on(&namespace).location(Location::http("/", &endpoint)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/")?.status == 200);
    // The tracer looks only once somebody listens there again.
    tracer.signal(Signal::SIGSTOP)?;
    server.close_listener()?;
    namespace.wait_for_no_listener(&endpoint)?;
    ensure!(nginx.client().get("/")?.status == 502);
    let again = FaultyServer::start(&namespace, Fault::Answer, endpoint.clone(), 8)?;
    tracer.signal(Signal::SIGCONT)?;
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(&endpoint)?;
    verdict.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))?;
    explains(
        verdict,
        &format!("faulty-server {} listened there until it closed its listener", server.pid()),
    )?;
    explains(verdict, "Somebody has listened there again since")?;
    explains(verdict, "after nginx asked")?;
    explains(verdict, &format!("faulty-server {} listens on {endpoint} by now", again.pid()))?;
    let closed = verdict.closed.as_ref().with_context(|| format!("nobody was seen to: {verdict:#?}"))?;
    ensure!(closed.pid == server.pid() && closed.us < 0, "{verdict:#?}");
    ensure!(closed.again_us.is_some_and(|us| us > 0), "{verdict:#?}");
    Ok(())
}
