//! Packets of a connection that is made: what nginx's own host does to them, and what is lost on the way back.

use std::fs;
use std::net::Ipv4Addr;
use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use rig::reconcile::account;
use rig::{
    Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Remote, Sight, Temper, Tracer, process,
};

const SOON: Duration = Duration::from_millis(1_500);
/// Longer than it takes until the request is sent again, however busy the machine is.
const PATIENT: Duration = Duration::from_secs(30);

/// Whether this kernel says why it drops packets.
fn names_drops() -> Result<bool> {
    Sight::here()?.has("packet_drops")
}

/// Rejects what nginx sends to this port once a connection is made.
fn reject(namespace: &Namespace, hook: &str, port: u16) -> Result<()> {
    namespace.nft(&format!(
        "table ip rig {{ chain c {{ type filter hook {hook} priority 0; tcp dport {port} tcp flags & psh == psh reject with tcp reset; }}; }}"
    ))
}

#[test]
fn a_rule_of_nginxs_host_that_rejects_a_request_is_no_reset_by_the_upstream() -> Result<()> {
    for (hook, confidence) in [("output", "inferred"), ("output", "proven"), ("input", "proven")] {
        let namespace = Namespace::new()?;
        let (mut remote, mut server) = (None, None);
        let upstream = if confidence == "inferred" {
            remote.insert(Remote::start(&namespace, Temper::Answer)?).endpoint()
        } else {
            server
                .insert(FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?)
                .endpoint()
                .clone()
        };
        let nginx =
            Nginx::on(&namespace).location(Location::http("/far/", &upstream).read_timeout(SOON)).start()?;
        let Endpoint::Tcp(address) = upstream else { anyhow::bail!("{upstream}") };
        reject(&namespace, hook, address.port())?;
        let tracer = Tracer::of(nginx.master())?;
        ensure!(nginx.client().get("/far/")?.status == 502);
        let account = account(tracer, &nginx, 1)?;
        let verdict = account.only(&upstream)?;
        if names_drops()? {
            verdict.says("reset/by_own_host", confidence, 502, Some("ECONNRESET"))?;
            verdict.blames(verdict.worker_pid(), None, None)?;
            verdict.has_evidence("NETFILTER_DROP")?;
        } else {
            ensure!(verdict.confidence != "proven" && verdict.cause != "read_timeout", "{verdict:#?}");
        }
    }
    Ok(())
}

/// The near host translates the destination, and does not translate the answer back, as it does with what connection tracking finds INVALID.
/// With the answer its acknowledgement is lost, and no other comes: nginx's request is sent again, and meets an end that is gone.
#[test]
fn an_answer_that_meets_no_socket_was_refused_by_nginxs_own_host() -> Result<()> {
    let namespace = Namespace::new()?;
    let _remote = Remote::start(&namespace, Temper::Answer)?;
    let upstream: Endpoint = "10.98.0.77:8088".parse()?;
    namespace.nft(
        "table ip rig {
           chain out { type nat hook output priority -100; ip daddr 10.98.0.77 tcp dport 8088 dnat to 10.98.0.2:80; }
           chain pre { type filter hook prerouting priority -300;
             ip saddr 10.98.0.2 ip length > 64 notrack;
             ip saddr 10.98.0.2 tcp flags == ack ip length <= 64 drop; }
         }",
    )?;
    let nginx =
        Nginx::on(&namespace).location(Location::http("/far/", &upstream).read_timeout(PATIENT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/far/")?.status == 502);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    verdict.says("reset/by_own_host", "inferred", 502, Some("ECONNRESET"))?;
    verdict.has_evidence("answers the upstream's next packet with a reset: no socket takes it")?;
    ensure!(verdict.advice.as_ref().is_some_and(|advice| advice.contains("INVALID")), "{verdict:#?}");
    Ok(())
}

#[test]
fn an_answer_whose_full_packets_do_not_fit_is_lost_and_not_missing() -> Result<()> {
    const GAP: &str = "later bytes came, earlier ones did not";
    let namespace = Namespace::new()?;
    let remote = Remote::start(&namespace, Temper::Large)?;
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/far/", &remote.endpoint()).read_timeout(SOON))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/far/")?.status == 504);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&remote.endpoint())?;
    verdict.says("read_timeout/answer_lost", "inferred", 504, Some("ETIMEDOUT"))?;
    ensure!(verdict.explanation.contains(GAP), "{verdict:#?}");
    ensure!(verdict.advice.as_ref().is_some_and(|advice| advice.contains("MTU")), "{verdict:#?}");
    verdict.has_evidence("nginx's socket holds bytes behind others")
}

#[test]
fn an_answer_that_this_host_drops_is_proven_to_be_lost_and_its_worker_not_slow() -> Result<()> {
    let (here, there) = (Namespace::new()?, Namespace::new()?);
    here.join(&there, "wire", Ipv4Addr::new(10, 81, 0, 1), Ipv4Addr::new(10, 81, 0, 2))?;
    let upstream: Endpoint = "10.81.0.2:9000".parse()?;
    let _server = FaultyServer::start(&there, Fault::Answer, upstream.clone(), 8)?;
    let nginx = Nginx::on(&here).location(Location::http("/there/", &upstream).read_timeout(SOON)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    here.nft(
        "table ip rig { chain in { type filter hook input priority 0; tcp sport 9000 tcp flags & psh == psh drop; }; }",
    )?;
    ensure!(nginx.client().get("/there/")?.status == 504);
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(&upstream)?;
    let confidence = if names_drops()? { "proven" } else { "inferred" };
    verdict.says("read_timeout/answer_lost", confidence, 504, Some("ETIMEDOUT"))?;
    ensure!(verdict.explanation.contains("the worker had sent"), "{verdict:#?}");
    if names_drops()? {
        verdict.has_evidence("that nginx's socket waited for next, the last one now: NETFILTER_DROP")?;
    }
    Ok(())
}

/// What connection tracking has forgotten is INVALID to it where it takes up no connection in its middle, and the rule that many hosts have
/// for that resets a connection that both ends still have.
#[test]
fn a_kept_connection_that_connection_tracking_has_forgotten_is_reset_by_nginxs_own_host() -> Result<()> {
    /// So long connection tracking remembers, in seconds.
    const REMEMBERED: u64 = 1;
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9100), 4)?;
    // Connections are tracked from the first rule about them on.
    namespace.nft(
        "table ip rig {
           counter invalid { }
           chain out { type filter hook output priority 0; tcp dport 9100 ct state invalid counter name invalid reject with tcp reset; }
         }",
    )?;
    if !fs::exists("/proc/sys/net/netfilter/nf_conntrack_max")? {
        eprintln!("not tested: this kernel tracks no connections");
        return Ok(());
    }
    namespace.sysctl("net.netfilter.nf_conntrack_tcp_loose", "0")?;
    namespace.sysctl("net.netfilter.nf_conntrack_tcp_timeout_established", &REMEMBERED.to_string())?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[server.endpoint()], &["keepalive 4"])
        .location(
            Location::http("/kept/", server.endpoint())
                .through_group("kept")
                .directive("proxy_next_upstream off")
                .read_timeout(SOON),
        )
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/kept/")?.status == 200);
    // Not for anything to happen: the connection has to be idle for longer than it is remembered.
    thread::sleep(Duration::from_secs(REMEMBERED + 1));
    ensure!(nginx.client().get("/kept/")?.status == 502);
    let mut list = namespace.command(process::find_program(&["nft"])?);
    let listed = String::from_utf8(list.args(["list", "counter", "ip", "rig", "invalid"]).output()?.stdout)?;
    ensure!(listed.contains("packets") && !listed.contains("packets 0 "), "nothing was INVALID: {listed}");
    let account = account(tracer, &nginx, 1)?;
    let verdict = account.only(server.endpoint())?;
    if names_drops()? {
        verdict.says("reset/by_own_host", "proven", 502, Some("ECONNRESET"))?;
        verdict.has_evidence("NETFILTER_DROP")?;
        ensure!(verdict.advice.as_ref().is_some_and(|advice| advice.contains("INVALID")), "{verdict:#?}");
    } else {
        ensure!(verdict.confidence != "proven", "{verdict:#?}");
    }
    Ok(())
}
