//! Listeners, and other people's sockets: whatever `nobody` opens and calls his sockets, no byte of anybody's is taken, nobody is blinded, and
//! no verdict is turned.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::attacker::{Attacker, Walls};
use rig::recorder::Recorder;
use rig::tracer::run;
use rig::{Backlog, Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};
use serde_json::Value;

/// Shorter than the second after which a dropped SYN is sent again and could succeed.
const CONNECT: Duration = Duration::from_millis(700);

/// The number of a socket's inode.
fn inode(socket: &impl AsRawFd) -> Result<String> {
    let link = fs::read_link(format!("/proc/self/fd/{}", socket.as_raw_fd()))?;
    let link = link.to_string_lossy();
    let number = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
    Ok(number.context("no socket")?.to_owned())
}

/// Starts everything that looks for listeners, and ends it again.
fn look_for_listeners() -> Result<()> {
    Tracer::start(&["--comm", "nobodys"])?.stop()?.is_orderly()?;
    Recorder::start(&["--comm", "nobodys"])?.stop()?.is_orderly()?;
    Backlog::start(&["--all"])?.stop()?;
    // Its status is about what the kernel does not let it see.
    let doctor = run(&["doctor", "-o", "json"])?;
    ensure!(doctor.stdout.concat().contains("\"processes\""), "{}", doctor.stderr);
    Ok(())
}

#[test]
fn a_forged_row_takes_no_byte_out_of_a_stream_and_no_datagram() -> Result<()> {
    let namespace = Namespace::new()?;
    let listener = namespace.run(|| Ok(TcpListener::bind("127.0.0.1:0")?))?;
    let address = listener.local_addr()?;
    let (mut stream, mut peer, datagrams, sender) = namespace.run(|| {
        let peer = TcpStream::connect(address)?;
        let datagrams = UdpSocket::bind("127.0.0.1:0")?;
        let sender = UdpSocket::bind("127.0.0.1:0")?;
        Ok((listener.accept()?.0, peer, datagrams, sender))
    })?;
    let (mut here, mut there) = UnixStream::pair()?;
    peer.write_all(b"HELLO")?;
    there.write_all(b"HELLO")?;
    sender.send_to(b"HELLO", datagrams.local_addr()?)?;
    let inodes = [inode(&stream)?, inode(&here)?, inode(&datagrams)?];
    let inodes: Vec<&str> = inodes.iter().map(String::as_str).collect();
    let _attacker = Attacker::start(&namespace, Walls::None, "names", &inodes)?;
    look_for_listeners()?;
    drop((peer, there));
    let (mut of_stream, mut of_pair) = (String::new(), String::new());
    stream.read_to_string(&mut of_stream)?;
    here.read_to_string(&mut of_pair)?;
    ensure!(of_stream == "HELLO" && of_pair == "HELLO", "{of_stream:?} and {of_pair:?} are left");
    datagrams.set_nonblocking(true)?;
    let mut datagram = [0; 8];
    let received = datagrams.recv(&mut datagram).context("the datagram has gone")?;
    ensure!(&datagram[..received] == b"HELLO");
    Ok(())
}

#[test]
fn names_that_are_no_text_blind_nobody() -> Result<()> {
    let namespace = Namespace::new()?;
    let _attacker = Attacker::start(&namespace, Walls::None, "names", &[])?;
    let fpm = Fpm::on(&namespace).backlog(1).listen(Endpoint::v4(9612)).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm).connect_timeout(CONNECT)).start()?;
    let doctor = run(&["doctor", "-o", "json"])?;
    let doctor: Value = serde_json::from_str(&doctor.stdout.concat())?;
    let processes = doctor["processes"].as_array().context("no processes")?;
    let of_fpm = processes.iter().find(|process| process["pid"] == fpm.master()).context("no php-fpm")?;
    ensure!(of_fpm["listeners"] == serde_json::json!([fpm.endpoint().to_string()]), "{of_fpm}");
    let tracer = Tracer::of(nginx.master())?;
    let backlog = Backlog::of(fpm.endpoint())?;
    fpm.freeze()?;
    let _fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    ensure!(nginx.client().get("/")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("accept_queue_overflow/syn_dropped", "proven", 504, Some("ETIMEDOUT"))?;
    let listed = backlog.stop()?;
    ensure!(listed.last(fpm.endpoint())?["pid"] == fpm.master(), "{:#?}", listed.lines);
    Ok(())
}

#[test]
fn a_flood_of_listeners_turns_no_full_queue_into_a_firewall() -> Result<()> {
    let namespace = Namespace::new()?;
    let _attacker = Attacker::start(&namespace, Walls::None, "listeners", &["9000", "8300"])?;
    // It has a higher pid, and is visited after all of those.
    let fpm = Fpm::on(&namespace).backlog(1).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm).connect_timeout(CONNECT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    fpm.freeze()?;
    let _fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    let is_overflow = |line: &str| line.contains("\"accept_queue_overflow\"") && line.contains("\"proven\"");
    wait::until_true("the listener to be looked up", || {
        ensure!(nginx.client().get("/")?.status == 504);
        Ok(tracer.lines().so_far().iter().any(|line| is_overflow(line)))
    })?;
    let account = tracer.stop()?;
    for verdict in &account.verdicts {
        let name = verdict.name();
        ensure!(
            name == "accept_queue_overflow/syn_dropped" || verdict.confidence == "incomplete",
            "{verdict:#?}"
        );
        ensure!(verdict.errno.as_deref() == Some("ETIMEDOUT"), "{verdict:#?}");
    }
    let last = account.verdicts.last().context("no verdict")?;
    let queue = last.queue.as_ref().map(|queue| (queue.depth, queue.limit));
    ensure!(queue == Some((Some(2), Some(1))), "{last:#?}");
    ensure!(account.stderr.contains("more listeners than are kept in sight"), "{}", account.stderr);
    Ok(())
}

/// A full queue of nginx's own, and another listener by the same path, with other figures.
fn full_beside_another(has_connected_before: bool) -> Result<()> {
    let namespace = Namespace::new()?;
    let path = namespace.scratch().join("fpm.sock");
    let fpm = Fpm::on(&namespace).backlog(1).listen(Endpoint::Unix(path.clone())).start()?;
    let above = path.ancestors().find(|above| above.parent() == Some(Path::new("/"))).context("a root")?;
    let words = [above, &path].map(|path| path.to_string_lossy().into_owned());
    let _attacker = Attacker::start(&namespace, Walls::Own, "path", &[&words[0], &words[1], "777"])?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let named = fpm.endpoint().for_nginx();
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "-u", &named])?;
    if has_connected_before {
        ensure!(nginx.client().get("/ok.php")?.status == 200);
    }
    fpm.freeze()?;
    let _fillers = [UnixStream::connect(&path)?, UnixStream::connect(&path)?];
    namespace.wait_for_queue(fpm.endpoint(), 2)?;
    ensure!(nginx.client().get("/ok.php")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("accept_queue_overflow/unix_backlog_full", "proven", 502, Some("EAGAIN"))?;
    let queue = verdict.queue.as_ref().map(|queue| (queue.depth, queue.limit));
    ensure!(!verdict.explanation.contains("777"), "{verdict:#?}");
    if has_connected_before {
        ensure!(queue == Some((Some(2), Some(1))), "{verdict:#?}");
    } else {
        // By its path alone, none of the two is told from the other.
        ensure!(queue.is_none(), "{verdict:#?}");
    }
    Ok(())
}

#[test]
fn the_same_path_elsewhere_is_another_listener() -> Result<()> {
    full_beside_another(true)
}

#[test]
fn where_a_path_is_not_known_to_lead_no_figure_is_emitted() -> Result<()> {
    full_beside_another(false)
}

#[test]
fn a_flood_of_namespaces_takes_no_descriptor_and_hides_no_owner() -> Result<()> {
    const COUNT: usize = 1_100;
    let namespace = Namespace::new()?;
    let attacker = Attacker::start(&namespace, Walls::Own, "namespaces", &["9000", &COUNT.to_string()])?;
    let fpm = Fpm::on(&namespace).backlog(5).listen(Endpoint::v4(9611)).start()?;
    let backlog = Backlog::start(&["--all"])?;
    let addr = fpm.endpoint().to_string();
    let is_owned = |line: &Value| line["addr"] == addr && line["pid"] == fpm.master();
    backlog.wait_for_listener("the listener with its owner", is_owned)?;
    let of_attacker = |line: &Value| line["pid"] == attacker.pid();
    wait::until_true("the attacker's listeners", || {
        Ok(backlog.lines("listener").iter().filter(|line| of_attacker(line)).count() >= COUNT)
    })?;
    let held: Vec<String> = fs::read_dir(format!("/proc/{}/fd", backlog.pid()))?
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .map(|link| link.to_string_lossy().into_owned())
        .collect();
    ensure!(!held.iter().any(|link| link.starts_with("net:")) && held.len() < 250, "{held:#?}");
    attacker.finish()?;
    let account = backlog.stop()?;
    let last = account.last(fpm.endpoint())?;
    ensure!(last["pid"] == fpm.master(), "{last}");
    Ok(())
}
