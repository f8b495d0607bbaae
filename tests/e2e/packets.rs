//! Packets of handshakes that never arrived: dropped, rejected, or sent where nothing answers.

use std::net::Ipv4Addr;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, connect, socket};
use rig::reconcile::account;
use rig::tracer::Account;
use rig::{
    Endpoint, Fault, FaultyServer, Fpm, Location, Namespace, Nginx, Sight, Tracer, Verdict, process, wait,
};

/// Shorter than the second after which a SYN is sent again.
const ONE_SYN: Duration = Duration::from_millis(700);
/// Long enough for a second one.
const TWO_SYNS: Duration = Duration::from_millis(1500);
const PATIENT: Duration = Duration::from_secs(10);

/// Asks each path at the same time, and returns the statuses.
fn ask_all(nginx: &Nginx, paths: impl IntoIterator<Item = String>) -> Result<Vec<u16>> {
    let asked: Vec<_> = paths.into_iter().map(|path| nginx.client().ask(&path)).collect::<Result<_>>()?;
    asked.into_iter().map(|one| Ok(one.answer()?.status)).collect()
}

#[test]
fn a_firewall_that_drops_the_syn_or_its_answer_is_named_with_the_kernels_reason() -> Result<()> {
    let namespace = Namespace::new()?;
    // The SYN on its way out and in, the answer on its way out and in; the last one over IPv6.
    let upstreams = [1, 2, 3, 4].map(|n| Endpoint::v4(9000 + n)).into_iter().chain([Endpoint::v6(9005)]);
    let servers: Vec<_> = upstreams
        .map(|upstream| FaultyServer::start(&namespace, Fault::Answer, upstream, 8))
        .collect::<Result<_>>()?;
    let mut nginx = Nginx::on(&namespace);
    for (index, server) in servers.iter().enumerate() {
        let patience = if index % 2 == 0 { TWO_SYNS } else { ONE_SYN };
        nginx = nginx
            .location(Location::http(&format!("/{index}/"), server.endpoint()).connect_timeout(patience));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    namespace.nft(
        "table inet rig {
           chain out { type filter hook output priority 0; tcp dport 9001 drop; tcp sport 9003 drop; }
           chain in { type filter hook input priority 0; tcp dport { 9002, 9005 } drop; tcp sport 9004 drop; }
         }",
    )?;
    ensure!(ask_all(&nginx, (0..servers.len()).map(|n| format!("/{n}/")))? == [504; 5]);
    let account = account(tracer, &nginx, servers.len())?;
    let (name, confidence, fact) = Sight::here()?.by_drops(
        ("connect_timeout/dropped_by_firewall", "proven", "NETFILTER_DROP"),
        ("connect_timeout/syn_unanswered", "inferred", "nginx closes first"),
    )?;
    for server in &servers {
        let verdict = account.only(server.endpoint())?;
        verdict.says(name, confidence, 504, Some("ETIMEDOUT"))?;
        verdict.has_evidence(fact)?;
        verdict.blames(None, None, None)?;
    }
    Ok(())
}

#[test]
fn a_firewall_that_rejects_is_told_from_a_port_where_nobody_listens() -> Result<()> {
    let namespace = Namespace::new()?;
    let cases = [
        (Endpoint::v4(9011), "ECONNREFUSED"),
        (Endpoint::v4(9012), "ECONNREFUSED"),
        (Endpoint::v4(9013), "ECONNREFUSED"),
        (Endpoint::v4(9014), "EHOSTUNREACH"),
        (Endpoint::v6(9015), "ECONNREFUSED"),
        (Endpoint::v6(9016), "ECONNREFUSED"),
    ];
    let (nobody, listens) = (Endpoint::v4(9017), Endpoint::v4(9012));
    // That somebody listens behind the rule changes nothing.
    let _server = FaultyServer::start(&namespace, Fault::Answer, listens, 8)?;
    let mut nginx = Nginx::on(&namespace).location(Location::http("/nobody/", &nobody));
    for (index, (upstream, _)) in cases.iter().enumerate() {
        nginx = nginx.location(Location::http(&format!("/{index}/"), upstream).connect_timeout(PATIENT));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    namespace.nft(
        "table inet rig {
           chain out { type filter hook output priority 0;
             tcp dport 9011 reject with tcp reset; tcp dport 9014 reject with icmp admin-prohibited; }
           chain in { type filter hook input priority 0;
             tcp dport 9012 reject with tcp reset; tcp dport 9013 reject with icmp port-unreachable;
             tcp dport 9015 reject with tcp reset; tcp dport 9016 reject with icmpv6 port-unreachable; }
         }",
    )?;
    let paths = (0..cases.len()).map(|n| format!("/{n}/")).chain(["/nobody/".into()]);
    ensure!(ask_all(&nginx, paths)? == [502; 7]);
    let account = account(tracer, &nginx, 7)?;
    let sight = Sight::here()?;
    for (upstream, errno) in &cases {
        let verdict = account.only(upstream)?;
        // Without the drop and without the message's code, "administratively prohibited" is one way to have no route.
        let unseen =
            if *errno == "EHOSTUNREACH" { "refused/no_route" } else { "refused/rejected_by_firewall" };
        let (name, confidence) =
            sight.by_drops(("refused/rejected_by_firewall", "proven"), (unseen, "inferred"))?;
        verdict.says(name, confidence, 502, Some(errno))?;
        if sight.has("packet_drops")? {
            verdict.has_evidence("NETFILTER_DROP")?;
        }
    }
    if sight.has("icmp")? {
        account.only(&cases[2].0)?.has_evidence("ICMP answers the SYN: port unreachable")?;
        account.only(&cases[3].0)?.has_evidence("ICMP answers the SYN: administratively prohibited")?;
    }
    account.only(&nobody)?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))
}

#[test]
fn reverse_path_filtering_is_named_with_the_kernels_reason() -> Result<()> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    let upstream = asymmetric(&here, &there)?;
    let _server = FaultyServer::start(&there, Fault::Answer, upstream.clone(), 8)?;
    let nginx =
        Nginx::on(&here).location(Location::http("/there/", &upstream).connect_timeout(TWO_SYNS)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/there/")?.status == 504);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    let (name, confidence, fact) = Sight::here()?.by_drops(
        ("connect_timeout/dropped_by_rp_filter", "proven", "IP_RPFILTER"),
        ("connect_timeout/syn_unanswered", "inferred", "nginx closes first"),
    )?;
    verdict.says(name, confidence, 504, Some("ETIMEDOUT"))?;
    verdict.has_evidence(fact)
}

/// Two namespaces with two links: what `here` sends by the second one, `there` would answer by the first, and
/// filters it.
fn asymmetric(here: &Namespace, there: &Namespace) -> Result<Endpoint> {
    here.join(there, "one", Ipv4Addr::new(10, 77, 1, 1), Ipv4Addr::new(10, 77, 1, 2))?;
    here.join(there, "two", Ipv4Addr::new(10, 77, 2, 1), Ipv4Addr::new(10, 77, 2, 2))?;
    // Or its question for the neighbour would be filtered, too.
    here.sysctl("net.ipv4.conf.two.arp_announce", "2")?;
    here.ip("route add 10.77.1.2/32 via 10.77.2.2 dev two src 10.77.1.1")?;
    there.sysctl("net.ipv4.conf.all.rp_filter", "1")?;
    Ok(Endpoint::Tcp(SocketAddr::from(([10, 77, 1, 2], 9000))))
}

#[test]
fn connects_that_fail_at_once_are_reported_if_asked_for() -> Result<()> {
    let namespace = Namespace::new()?;
    let cases = [
        ("10.66.0.1:9000", "refused/no_route", "EHOSTUNREACH"),
        ("10.67.0.1:9000", "refused/no_route", "ENETUNREACH"),
        ("[fd00::1]:9000", "refused/no_route", "ENETUNREACH"),
        ("10.68.0.1:9000", "refused/no_route", "EACCES"),
        ("10.69.0.1:9000", "local_error/connect_error", "EINVAL"),
    ];
    for (kind, network) in [("unreachable", 66), ("prohibit", 68), ("blackhole", 69)] {
        namespace.ip(&format!("route add {kind} 10.{network}.0.0/24"))?;
    }
    let mut nginx = Nginx::on(&namespace).location(Location::http("/nobody/", &Endpoint::v4(9017)));
    for (index, (upstream, _, _)) in cases.iter().enumerate() {
        nginx = nginx.location(Location::http(&format!("/{index}/"), &upstream.parse()?));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::start(&["-p", &nginx.master().to_string(), "--connect-errors"])?;
    let paths = (0..cases.len()).map(|n| format!("/{n}/")).chain(["/nobody/".into()]);
    ensure!(ask_all(&nginx, paths)? == [502; 6]);
    let account = account(tracer, &nginx, 6)?;
    for (upstream, name, errno) in cases {
        account.only(&upstream.parse()?)?.says(name, "proven", 502, Some(errno))?;
    }
    // What TCP's own hooks see is emitted once.
    account.only(&Endpoint::v4(9017))?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))
}

#[test]
fn connects_that_fail_at_once_are_named_by_nginxs_word() -> Result<()> {
    let namespace = Namespace::new()?;
    let cases = [
        ("10.66.0.1:9000", "refused/no_route", "inferred", "EHOSTUNREACH"),
        ("10.67.0.1:9000", "refused/no_route", "inferred", "ENETUNREACH"),
        ("[fd00::1]:9000", "refused/no_route", "inferred", "ENETUNREACH"),
        ("10.68.0.1:9000", "refused/no_route", "proven", "EACCES"),
        ("10.69.0.1:9000", "local_error/connect_error", "proven", "EINVAL"),
    ];
    for (kind, network) in [("unreachable", 66), ("prohibit", 68), ("blackhole", 69)] {
        namespace.ip(&format!("route add {kind} 10.{network}.0.0/24"))?;
    }
    let mut nginx = Nginx::on(&namespace).location(Location::http("/nobody/", &Endpoint::v4(9017)));
    for (index, (upstream, ..)) in cases.iter().enumerate() {
        nginx = nginx.location(Location::http(&format!("/{index}/"), &upstream.parse()?));
    }
    let nginx = nginx.start()?;
    let tracer = Tracer::of(nginx.master())?;
    let paths = (0..cases.len()).map(|n| format!("/{n}/")).chain(["/nobody/".into()]);
    ensure!(ask_all(&nginx, paths)? == [502; 6]);
    let account = account(tracer, &nginx, 6)?;
    // Where connects that fail at once are seen from the start, the word is not all there is.
    let is_seen = Sight::here()?.has("connect_errors")?;
    for (upstream, name, by_word, errno) in cases {
        let confidence = if is_seen { "proven" } else { by_word };
        account.only(&upstream.parse()?)?.says(name, confidence, 502, Some(errno))?;
    }
    account.only(&Endpoint::v4(9017))?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))
}

/// Named by nginx's word alone, or where connects that fail at once are seen.
fn an_upstream_that_no_address_reaches(arguments: &[&str]) -> Result<()> {
    let namespace = Namespace::new()?;
    let upstream: Endpoint = "[fd00::1]:9000".parse()?;
    let nginx = Nginx::on(&namespace).location(Location::http("/there/", &upstream)).start()?;
    // Not before: nginx listens on ::1, too.
    namespace.sysctl("net.ipv6.conf.all.disable_ipv6", "1")?;
    let tracer = Tracer::start(&[&["-p", &nginx.master().to_string()], arguments].concat())?;
    ensure!(nginx.client().get("/there/")?.status == 502);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    verdict.says("local_error/connect_error", "inferred", 502, Some("EADDRNOTAVAIL"))?;
    ensure!(verdict.explanation.contains("no address of its own"), "{verdict:#?}");
    Ok(())
}

#[test]
fn an_upstream_that_no_address_of_nginxs_host_reaches_is_no_want_of_ports_by_its_word() -> Result<()> {
    if Sight::here()?.has("connect_errors")? {
        eprintln!(
            "not tested: here connects that fail at once are seen, and nginx's word is not all there is"
        );
        return Ok(());
    }
    an_upstream_that_no_address_reaches(&[])
}

#[test]
fn an_upstream_that_no_address_of_nginxs_host_reaches_is_no_want_of_ports_where_it_is_seen() -> Result<()> {
    an_upstream_that_no_address_reaches(&["--connect-errors"])
}

#[test]
fn a_neighbour_that_does_not_answer_is_no_route() -> Result<()> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    here.join(&there, "wire", Ipv4Addr::new(10, 78, 0, 1), Ipv4Addr::new(10, 78, 0, 2))?;
    here.sysctl("net.ipv4.neigh.wire.retrans_time_ms", "50")?;
    let upstream: Endpoint = "10.78.0.99:9000".parse()?;
    let nginx =
        Nginx::on(&here).location(Location::http("/there/", &upstream).connect_timeout(PATIENT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/there/")?.status == 502);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    let (confidence, fact) =
        Sight::here()?.by_drops(("proven", "NEIGH_FAILED"), ("inferred", "EHOSTUNREACH"))?;
    verdict.says("refused/no_route", confidence, 502, Some("EHOSTUNREACH"))?;
    verdict.has_evidence(fact)
}

#[test]
fn a_listener_that_finds_no_way_back_leaves_the_syn_unanswered() -> Result<()> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    here.join(&there, "wire", Ipv4Addr::new(10, 79, 0, 1), Ipv4Addr::new(10, 79, 0, 2))?;
    here.ip("address add 10.99.9.1/32 dev lo")?;
    here.sysctl("net.ipv4.conf.wire.arp_announce", "2")?;
    here.ip("route add 10.79.0.2/32 dev wire src 10.99.9.1")?;
    let upstream: Endpoint = "10.79.0.2:9000".parse()?;
    let _server = FaultyServer::start(&there, Fault::Answer, upstream.clone(), 8)?;
    let nginx =
        Nginx::on(&here).location(Location::http("/there/", &upstream).connect_timeout(TWO_SYNS)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/there/")?.status == 504);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    verdict.says("connect_timeout/syn_unanswered", "inferred", 504, Some("ETIMEDOUT"))
}

#[test]
fn a_full_syn_queue_without_cookies_is_told_from_a_full_accept_queue() -> Result<()> {
    const BACKLOG: usize = 1;
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_syncookies", "0")?;
    let fpm = Fpm::on(&namespace).backlog(BACKLOG as i32).start()?;
    let nginx =
        Nginx::on(&namespace).location(Location::fpm("/php/", &fpm).connect_timeout(TWO_SYNS)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    // Who comes from there never hears the answer. Where the answer cannot even be sent, the kernel forgets the handshake.
    namespace
        .nft("table ip rig { chain in { type filter hook input priority 0; ip daddr 127.0.0.2 drop; }; }")?;
    let half_open = fill_syn_queue(&namespace, fpm.endpoint())?;
    let drops = namespace.tcp_counter("TCPReqQFullDrop")?;
    ensure!(nginx.client().get("/php/ok.php")?.status == 504);
    ensure!(namespace.tcp_counter("TCPReqQFullDrop")? > drops);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(fpm.endpoint())?;
    // Old kernels are full with one less, and do not say that they do so.
    let is_old = !Sight::here()?.has("packet_drops")? && half_open == BACKLOG;
    ensure!(is_old || half_open == BACKLOG + 1, "{half_open} fit");
    let confidence = if is_old { "inferred" } else { "proven" };
    verdict.says("connect_timeout/syn_queue_full", confidence, 504, Some("ETIMEDOUT"))?;
    verdict.has_evidence(&format!("{half_open} handshake"))
}

/// Sends SYNs from 127.0.0.2, whose handshakes do not end, until the kernel drops a SYN because there are too many; says how many there are.
fn fill_syn_queue(namespace: &Namespace, listener: &Endpoint) -> Result<usize> {
    let Endpoint::Tcp(SocketAddr::V4(address)) = listener else { anyhow::bail!("{listener}") };
    let begin = || {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let stream = TcpStream::from(socket(AddressFamily::Inet, SockType::Stream, flags, None)?);
        let fd = std::os::fd::AsRawFd::as_raw_fd(&stream);
        bind(fd, &SockaddrIn::new(127, 0, 0, 2, 0)).context("binding to 127.0.0.2")?;
        let begun = connect(fd, &SockaddrIn::from(*address));
        ensure!(begun == Err(Errno::EINPROGRESS), "{begun:?}");
        Ok(stream)
    };
    let before = namespace.tcp_counter("TCPReqQFullDrop")?;
    let dropped = || Ok::<_, anyhow::Error>(namespace.tcp_counter("TCPReqQFullDrop")? > before);
    for fit in 0.. {
        let _stays_half_open = namespace.run(begin)?;
        wait::until_true("a SYN to be queued or dropped", || {
            Ok(namespace.half_open(listener)? > fit || dropped()?)
        })?;
        if dropped()? {
            return Ok(fit);
        }
    }
    unreachable!("a SYN queue has an end")
}

/// nginx connects three times at once to a listener with room for one more; with `TCP_DEFER_ACCEPT` it is the
/// request that ends a handshake, so two of them end at a full queue.
fn three_for_one_place(namespace: &Namespace, upstream: &Endpoint, status: u16) -> Result<Account> {
    const BACKLOG: i32 = 4;
    let listener = namespace.listen_deferring(upstream, BACKLOG)?;
    let nginx = Nginx::on(namespace)
        .location(Location::http("/", upstream).read_timeout(Duration::from_secs(1)))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let Endpoint::Tcp(address) = *upstream else { anyhow::bail!("{upstream}") };
    let mut fillers = Vec::new();
    for _ in 0..BACKLOG {
        let filler = namespace.run(|| Ok(TcpStream::connect_timeout(&address, wait::bound())?))?;
        std::io::Write::write_all(&mut &filler, b"x")?;
        fillers.push(filler);
    }
    namespace.wait_for_queue(upstream, BACKLOG.cast_unsigned())?;

    let connected: Vec<_> = (0..3).map(|_| nginx.client().connected()).collect::<Result<_>>()?;
    namespace.wait_for_queue(&Endpoint::v4(8080), 0)?;
    let worker = nginx.workers()?[0];
    process::send(worker, Signal::SIGSTOP)?;
    wait::until_true("nginx to stand still", || Ok(process::state(worker) == Some('T')))?;
    let asked: Vec<_> = connected.into_iter().map(|one| one.ask("/")).collect::<Result<_>>()?;
    process::send(worker, Signal::SIGCONT)?;
    let mut statuses: Vec<_> =
        asked.into_iter().map(|one| Ok(one.answer()?.status)).collect::<Result<_>>()?;
    statuses.sort_unstable();
    ensure!(statuses == [status, status, 504], "{statuses:?}");
    let account = account(tracer, &nginx, 3)?;
    drop(listener);
    Ok(account)
}

#[test]
fn a_handshake_that_ends_at_a_full_queue_is_a_connection_only_for_nginx() -> Result<()> {
    const DROPPED: &str = "accept_queue_overflow/handshake_ack_dropped";
    let by_function = Sight::here()?.has("handshake_drops")?;
    // Without either, what is left is a queue that is full in the end.
    let confidence = Sight::here()?.standing(DROPPED)?;
    for upstream in [Endpoint::v4(9100), Endpoint::v6(9100)] {
        let namespace = Namespace::new()?;
        let account = three_for_one_place(&namespace, &upstream, 504)?;
        let (dropped, queued): (Vec<_>, Vec<_>) =
            account.verdicts.iter().partition(|verdict| verdict.cause == "accept_queue_overflow");
        ensure!(dropped.len() == 2 && queued.len() == 1, "{:#?}", account.verdicts);
        for verdict in dropped {
            verdict.says(DROPPED, confidence, 504, Some("ETIMEDOUT"))?;
            verdict.has_evidence(match (by_function, confidence) {
                (true, _) => "the accept queue was full",
                (false, "proven") => "TCP_LISTEN_OVERFLOW",
                _ => "backlog 4, full",
            })?;
            ensure!(verdict.us.connected.is_some() && verdict.us.accepted.is_none(), "{verdict:#?}");
        }
        waited_behind_others(queued[0])?;
    }
    Ok(())
}

#[test]
fn with_tcp_abort_on_overflow_it_is_reset_by_the_listener() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.sysctl("net.ipv4.tcp_abort_on_overflow", "1")?;
    let account = three_for_one_place(&namespace, &Endpoint::v4(9100), 502)?;
    let (aborted, queued): (Vec<_>, Vec<_>) =
        account.verdicts.iter().partition(|verdict| verdict.cause == "accept_queue_overflow");
    ensure!(aborted.len() == 2 && queued.len() == 1, "{:#?}", account.verdicts);
    for verdict in aborted {
        verdict.says("accept_queue_overflow/aborted", "proven", 502, Some("ECONNRESET"))?;
        verdict.has_evidence("the listener makes no socket for it")?;
    }
    waited_behind_others(queued[0])
}

/// Others were before it in a queue from which nobody accepts. Looks at who holds a listener take a twentieth of the time at most: on an emulated
/// machine there may be none.
fn waited_behind_others(verdict: &Verdict) -> Result<()> {
    let (name, confidence) = match verdict.holders {
        Some(_) => ("read_timeout/nobody_accepts", "inferred"),
        None => ("read_timeout/never_accepted", "proven"),
    };
    verdict.says(name, confidence, 504, Some("ETIMEDOUT"))
}

#[test]
fn a_request_that_a_firewall_drops_after_the_handshake_is_no_slow_worker() -> Result<()> {
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9021), 8)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/", server.endpoint()).read_timeout(TWO_SYNS))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    namespace.nft(
        "table ip rig { chain in { type filter hook input priority 0; tcp dport 9021 tcp flags & psh == psh drop; }; }",
    )?;
    ensure!(nginx.client().get("/")?.status == 504);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(server.endpoint())?;
    let sight = Sight::here()?;
    // It has accepted the connection, and read nothing.
    let is_known = verdict.worker_pid() == Some(server.pid());
    ensure!(is_known == sight.has("accepts")?, "{verdict:#?}");
    ensure!(verdict.name() == "read_timeout/unacked", "{verdict:#?}");
    if sight.has("packet_drops")? {
        verdict.has_evidence("NETFILTER_DROP")?;
    }
    Ok(())
}
