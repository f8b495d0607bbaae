//! nginx in one network namespace and php-fpm in another, as containers are, with and without address translation.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Sight, Tracer, process};

const READ: Duration = Duration::from_millis(800);
/// Shorter than the second after which a SYN is sent again.
const CONNECT: Duration = Duration::from_millis(700);

/// Two hosts with a wire between them, for IPv4 and IPv6. Over IPv4 and IPv6, 10.99.0.1 and fd00:99::1 lead to the far
/// one, though nobody has these addresses.
struct Hosts {
    near: Namespace,
    far: Namespace,
}

impl Hosts {
    fn new() -> Result<Hosts> {
        let (near, far) = (Namespace::new()?, Namespace::new()?);
        near.join(&far, "wire", Ipv4Addr::new(10, 80, 0, 1), Ipv4Addr::new(10, 80, 0, 2))?;
        for (host, address) in [(&near, "fd00:80::1"), (&far, "fd00:80::2")] {
            host.ip(&format!("-6 address add {address}/64 dev wire nodad"))?;
        }
        near.ip("route add 10.99.0.0/24 via 10.80.0.2")?;
        near.ip("-6 route add fd00:99::/64 via fd00:80::2")?;
        Ok(Hosts { near, far })
    }

    /// As Docker publishes a port: the near host translates the destination, and its own address.
    fn translate_here(&self) -> Result<()> {
        self.near.nft(
            "table inet rig {
               chain out { type nat hook output priority -100;
                 ip daddr 10.99.0.1 tcp dport 80 dnat ip to 10.80.0.2:9000;
                 ip6 daddr fd00:99::1 tcp dport 80 dnat ip6 to [fd00:80::2]:9000; }
               chain post { type nat hook postrouting priority 100; oifname \"wire\" masquerade; }
             }",
        )
    }

    /// The far host does it, for what comes in.
    fn translate_there(&self) -> Result<()> {
        self.far.nft(
            "table inet rig {
               chain pre { type nat hook prerouting priority -100;
                 ip daddr 10.99.0.1 tcp dport 80 dnat ip to 10.80.0.2:9000;
                 ip6 daddr fd00:99::1 tcp dport 80 dnat ip6 to [fd00:80::2]:9000; }
             }",
        )
    }
}

/// A killed worker, a slow one, a request that waits in the queue, and a full queue: each is explained as if nginx and
/// php-fpm stood on one host.
fn causes_keep_their_proof(hosts: &Hosts, listen: &str, upstream: &str) -> Result<()> {
    let upstream: Endpoint = upstream.parse()?;
    let fpm = Fpm::on(&hosts.far).listen(listen.parse()?).backlog(2).start()?;
    let nginx = Nginx::on(&hosts.near)
        .group("far", &[&upstream], &[])
        .location(
            Location::fpm("/", &fpm)
                .directive("fastcgi_next_upstream off")
                .read_timeout(READ)
                .connect_timeout(CONNECT)
                .through_group("far"),
        )
        .location(Location::fpm("/patient/", &fpm).through_group("far"))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    ensure!(client.get("/ok.php")?.status == 200);

    let asked = client.ask("/patient/sleep.php?s=20&tag=killed")?;
    let killed = fpm.worker_on("killed")?;
    process::send(killed, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    let asked = client.ask("/sleep.php?s=2&tag=slow")?;
    let slow = fpm.worker_on("slow")?;
    ensure!(asked.answer()?.status == 504);
    rig::wait::until_true("a new worker", || {
        Ok(fpm.workers()?.len() == 2 && !fpm.workers()?.contains(&killed))
    })?;
    fpm.freeze()?;
    ensure!(client.get("/ok.php")?.status == 504);
    // The one that nginx gave up is still queued.
    let _fillers = hosts.far.fill_queue_up_to(fpm.endpoint(), 3)?;
    ensure!(client.get("/ok.php")?.status == 504);

    tracer.wait_for(4)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let [by_kill, by_sleep, queued, dropped] = account.verdicts.as_slice() else {
        anyhow::bail!("{:#?}", account.verdicts)
    };
    by_kill.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    by_kill.blames(Some(killed), Some("SIGKILL"), Some(std::process::id().cast_signed()))?;
    by_sleep.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    by_sleep.blames(Some(slow), None, None)?;
    queued.says("read_timeout/nobody_accepts", "proven", 504, Some("ETIMEDOUT"))?;
    let depth = queued.queue.as_ref().and_then(|queue| queue.depth);
    ensure!(depth == Some(1), "{queued:#?}");
    // Where a SYN goes that never came about is known only from those that did, unless its drop itself is seen.
    let confidence = if Sight::here()?.has("syn_drops")? { "proven" } else { "inferred" };
    dropped.says("accept_queue_overflow/syn_dropped", confidence, 504, Some("ETIMEDOUT"))?;
    let queue = dropped.queue.as_ref().map(|queue| (queue.depth, queue.limit));
    ensure!(queue == Some((Some(3), Some(2))), "{dropped:#?}");
    Ok(())
}

#[test]
fn two_namespaces_are_one_host() -> Result<()> {
    causes_keep_their_proof(&Hosts::new()?, "0.0.0.0:9000", "10.80.0.2:9000")
}

#[test]
fn two_namespaces_are_one_host_over_ipv6() -> Result<()> {
    causes_keep_their_proof(&Hosts::new()?, "[::]:9000", "[fd00:80::2]:9000")
}

#[test]
fn address_translation_on_nginxs_side_does_not_part_the_ends() -> Result<()> {
    let hosts = Hosts::new()?;
    hosts.translate_here()?;
    causes_keep_their_proof(&hosts, "0.0.0.0:9000", "10.99.0.1:80")
}

#[test]
fn address_translation_on_the_upstreams_side_does_not_part_the_ends_over_ipv6() -> Result<()> {
    let hosts = Hosts::new()?;
    hosts.translate_there()?;
    causes_keep_their_proof(&hosts, "[::]:9000", "[fd00:99::1]:80")
}

/// Where a listener is not found, it may be where one of those led that were not remembered.
#[test]
fn more_translated_addresses_than_are_remembered_turn_no_full_queue_into_a_firewall() -> Result<()> {
    const MORE: u32 = 1_100;
    let hosts = Hosts::new()?;
    hosts.near.ip("route add 10.98.0.0/16 via 10.80.0.2")?;
    hosts.near.nft(
        "table inet rig {
           chain out { type nat hook output priority -100; ip daddr 10.98.0.0/16 tcp dport 80 dnat ip to 10.80.0.2:9000; }
           chain post { type nat hook postrouting priority 100; oifname \"wire\" masquerade; }
         }",
    )?;
    let fpm = Fpm::on(&hosts.far).listen("0.0.0.0:9000".parse()?).backlog(2).start()?;
    let location =
        Location::fpm("/to/", &fpm).connect_timeout(CONNECT).through_group("10.98.$arg_a.$arg_b:80");
    let nginx = Nginx::on(&hosts.near).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    for number in 0..MORE {
        let path = format!("/to/ok.php?a={}&b={}", number / 250, number % 250 + 1);
        ensure!(client.get(&path)?.status == 200, "{path}");
    }
    fpm.freeze()?;
    let _fillers = hosts.far.fill_queue(fpm.endpoint(), 3)?;
    ensure!(client.get("/to/ok.php?a=200&b=1")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    let [verdict] = account.verdicts.as_slice() else { anyhow::bail!("{:#?}", account.verdicts) };
    let is_named = verdict.name() == "accept_queue_overflow/syn_dropped";
    ensure!(is_named || verdict.confidence == "incomplete", "{verdict:#?}");
    let notice = "of which it is not remembered where address translation led";
    ensure!(account.stderr.contains(notice), "{}", account.stderr);
    Ok(())
}

#[test]
fn a_translated_port_where_nobody_listens_is_refused_by_this_host() -> Result<()> {
    let hosts = Hosts::new()?;
    hosts.translate_here()?;
    let upstream: Endpoint = "10.99.0.1:80".parse()?;
    let nginx = Nginx::on(&hosts.near).location(Location::http("/", &upstream)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    account.only(&upstream)?.says("refused/no_listener", "proven", 502, Some("ECONNREFUSED"))
}

#[test]
fn a_full_queue_behind_a_translation_that_was_never_seen_to_work_is_not_guessed() -> Result<()> {
    let hosts = Hosts::new()?;
    hosts.translate_here()?;
    let upstream: Endpoint = "10.99.0.1:80".parse()?;
    let fpm = Fpm::on(&hosts.far).listen("0.0.0.0:9000".parse()?).backlog(1).start()?;
    // A listener of nginx's own host with the same port has nothing to do with it.
    let here = Fpm::on(&hosts.near).listen("0.0.0.0:80".parse()?).backlog(1).start()?;
    for (host, fpm) in [(&hosts.far, &fpm), (&hosts.near, &here)] {
        fpm.freeze()?;
        std::mem::forget(host.fill_queue(fpm.endpoint(), 2)?);
    }
    let nginx =
        Nginx::on(&hosts.near).location(Location::http("/", &upstream).connect_timeout(CONNECT)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/")?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    // Where the kernel lets the program see how a listener meets a SYN, it is proven after all.
    let verdict = account.only(&upstream)?;
    let is_honest = match verdict.confidence.as_str() {
        "proven" => verdict.name() == "accept_queue_overflow/syn_dropped",
        _ => verdict.name() == "connect_timeout/syn_unanswered" && verdict.queue.is_none(),
    };
    ensure!(is_honest, "{verdict:#?}");
    Ok(())
}
