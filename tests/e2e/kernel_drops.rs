//! Handshakes whose packets this host's kernel drops, for reasons that it names: tc, and a full table of connections.

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rig::drops::{Hook, Program};
use rig::reconcile::pair_off;
use rig::{Endpoint, Fault, FaultyServer, Location, Namespace, Nginx, Sight, Tracer};

const PATIENCE: Duration = Duration::from_millis(1500);

/// What is emitted where the kernel does not say why it drops a packet.
const UNSEEN: (&str, &str, &str) = ("connect_timeout/syn_unanswered", "inferred", "nginx closes first");

#[test]
fn what_tc_drops_is_named_by_the_kernels_name_for_it() -> Result<()> {
    let tc = |reason| ("connect_timeout/dropped_by_kernel", "proven", reason);
    for (hook, known) in [
        (Hook::Egress, tc("TC_EGRESS")),
        (Hook::Ingress, tc("TC_INGRESS")),
        // Of a packet that an XDP program drops, the kernel names no reason (`netif_receive_generic_xdp`, net/core/dev.c).
        (Hook::Xdp, UNSEEN),
    ] {
        let namespace = Namespace::new()?;
        let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9001), 8)?;
        let location = Location::http("/", server.endpoint()).connect_timeout(PATIENCE);
        let nginx = Nginx::on(&namespace).location(location).start()?;
        let tracer = Tracer::of(nginx.master())?;
        let Some(_program) = Program::drop_port(&namespace, hook, 9001)? else {
            eprintln!("not tested: this kernel attaches no program to {hook:?} by a link");
            continue;
        };
        ensure!(nginx.client().get("/")?.status == 504);
        tracer.wait_for(1)?;
        let account = tracer.stop()?;
        account.is_orderly()?;
        pair_off(&nginx.failures(), &account.verdicts)?;
        let (name, confidence, fact) = Sight::here()?.by_drops(known, UNSEEN)?;
        let verdict = account.only(server.endpoint())?;
        verdict.says(name, confidence, 504, Some("ETIMEDOUT")).with_context(|| format!("{hook:?}"))?;
        ensure!(verdict.evidence.iter().any(|one| one.fact.contains(fact)), "{verdict:#?}");
        let is_named = name == "connect_timeout/dropped_by_kernel";
        ensure!(!is_named || verdict.explanation.contains("a tc filter"), "{verdict:#?}");
    }
    Ok(())
}

/// A sysctl of the whole host, as it was before once this is dropped, or once this process is gone: a shell waits for that.
struct Sysctl(Child);

impl Sysctl {
    fn set(path: &str, value: &str) -> Result<Sysctl> {
        let before = fs::read_to_string(path)?;
        let mut command = Command::new("sh");
        command.args(["-c", r#"read -r _; echo "$1" > "$2""#, "restore", before.trim(), path]);
        let shell = Sysctl(command.stdin(Stdio::piped()).spawn()?);
        fs::write(path, value)?;
        Ok(shell)
    }
}

impl Drop for Sysctl {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing can be done about a failure.
        let _ = self.0.wait();
    }
}

#[test]
fn a_full_table_of_connections_is_no_rule() -> Result<()> {
    const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
    const ENTRIES: usize = 200;
    let namespace = Namespace::new()?;
    let server = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9001), 8)?;
    let ruled = FaultyServer::start(&namespace, Fault::Answer, Endpoint::v4(9002), 8)?;
    // Connections are tracked from the first rule about them on; those of clients are not.
    namespace.nft(
        "table inet rig {
           chain raw_out { type filter hook output priority raw; tcp dport 8080 notrack; tcp sport 8080 notrack; }
           chain raw_in { type filter hook prerouting priority raw; tcp dport 8080 notrack; tcp sport 8080 notrack; }
           chain out { type filter hook output priority 0; ct state established accept; tcp dport 9002 drop; }
         }",
    )?;
    if !fs::exists(MAX)? {
        eprintln!("not tested: this kernel tracks no connections");
        return Ok(());
    }
    let nginx = Nginx::on(&namespace)
        .location(Location::http("/full/", server.endpoint()).connect_timeout(PATIENCE))
        .location(Location::http("/ruled/", ruled.endpoint()).connect_timeout(PATIENCE))
        .start()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(nginx.client().get("/ruled/")?.status == 504);
    // Each is one that is established, which does not make room for others.
    let held = namespace.run(|| {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let mut held = Vec::new();
        for _ in 0..ENTRIES {
            held.push((TcpStream::connect(address)?, listener.accept()?.0));
        }
        Ok(held)
    })?;
    // The only place of this limit is the host's own network namespace.
    let small = Sysctl::set(MAX, &ENTRIES.to_string())?;
    ensure!(nginx.client().get("/full/")?.status == 504);
    // It is looked at once nginx has given up.
    tracer.wait_for(2)?;
    drop(small);
    drop(held);
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off(&nginx.failures(), &account.verdicts)?;
    let sight = Sight::here()?;
    let (name, confidence, _) = sight.by_drops(("connect_timeout/conntrack_full", "inferred", ""), UNSEEN)?;
    let verdict = account.only(server.endpoint())?;
    verdict.says(name, confidence, 504, Some("ETIMEDOUT"))?;
    let (name, confidence, _) =
        sight.by_drops(("connect_timeout/dropped_by_firewall", "proven", ""), UNSEEN)?;
    account.only(ruled.endpoint())?.says(name, confidence, 504, Some("ETIMEDOUT"))
}
