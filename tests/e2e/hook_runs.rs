//! Which hooks run for one exchange: in which order, as docs/how-it-works.md lists them, and how often on each kernel (issue 21).

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::unistd::gettid;
use rig::process::Pid;
use rig::programs::{count, runs};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, golden, wait};

const FPM: u16 = 9000;
const NOBODY: u16 = 9009;

/// The hooks of both lists that are tracepoints, by their folder in tracefs.
const EVENTS: [(&str, &str); 7] = [
    ("sock", "inet_sock_set_state"),
    ("sock", "sock_send_length"),
    ("sock", "sock_recv_length"),
    ("sock", "inet_sk_error_report"),
    ("tcp", "tcp_destroy_sock"),
    ("tcp", "tcp_send_reset"),
    ("tcp", "tcp_receive_reset"),
];

/// The kernel's own trace: an instance of tracefs, which goes when this is dropped.
struct Trace(PathBuf);

impl Trace {
    /// Only this thread sees other mounts from now on: tracefs is not mounted everywhere.
    fn new() -> Result<Trace> {
        let tracefs = Path::new("/sys/kernel/tracing");
        unshare(CloneFlags::CLONE_NEWNS)?;
        let none: Option<&str> = None;
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
        if !tracefs.join("instances").exists() {
            mount(Some("tracefs"), tracefs, Some("tracefs"), MsFlags::empty(), none)
                .with_context(|| format!("mounting {}", tracefs.display()))?;
        }
        let trace = Trace(tracefs.join("instances").join(format!("why502-rig-{}", std::process::id())));
        fs::create_dir(&trace.0).with_context(|| format!("making {}", trace.0.display()))?;
        Ok(trace)
    }

    /// Those of [`EVENTS`] that this kernel has.
    fn events(&self) -> impl Iterator<Item = (&'static str, PathBuf)> {
        let all = EVENTS.map(|(folder, event)| (event, self.0.join("events").join(folder).join(event)));
        all.into_iter().filter(|(_, folder)| folder.exists())
    }

    /// What runs while `work` does, in order.
    fn of(&self, work: impl FnOnce() -> Result<()>) -> Result<Vec<Event>> {
        for (_, folder) in self.events() {
            fs::write(folder.join("enable"), "1")?;
        }
        work()?;
        for (_, folder) in self.events() {
            fs::write(folder.join("enable"), "0")?;
        }
        let text = fs::read_to_string(self.0.join("trace"))?;
        fs::write(self.0.join("trace"), "")?;
        text.lines().filter(|line| !line.starts_with('#')).map(Event::parse).collect()
    }
}

impl Drop for Trace {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir(&self.0) {
            eprintln!("{} is left: {error}", self.0.display());
        }
    }
}

/// One line of the kernel's trace.
#[derive(Debug)]
struct Event {
    /// The thread in whose time it is.
    thread: Pid,
    name: String,
    /// What follows: `name=value`, of some events `name = value`.
    text: String,
}

impl Event {
    /// `    nginx-218     [001] ..s2.  2137.258298: inet_sock_set_state: family=AF_INET ... oldstate=TCP_LISTEN newstate=TCP_SYN_RECV`
    fn parse(line: &str) -> Result<Event> {
        let parts = || {
            let (task, rest) = line.split_once(" [")?;
            let (_, thread) = task.trim_end().rsplit_once('-')?;
            let (_, rest) = rest.split_once(": ")?;
            let (name, text) = rest.split_once(": ")?;
            Some(Event {
                thread: thread.parse().ok()?,
                name: name.to_owned(),
                text: text.replace(" = ", "=").replace(',', ""),
            })
        };
        parts().with_context(|| format!("a line of the trace: {line}"))
    }

    fn field(&self, name: &str) -> Option<&str> {
        self.text.split(' ').find_map(|field| field.strip_prefix(name)?.strip_prefix('='))
    }

    fn port(&self, name: &str) -> Option<u16> {
        self.field(name)?.parse().ok()
    }

    /// The hook, as the lists write it.
    fn hook(&self) -> String {
        let state = |name| self.field(name)?.strip_prefix("TCP_");
        match (state("oldstate"), state("newstate")) {
            (Some(old), Some(new)) => format!("`{}` {old} to {new}", self.name),
            _ => format!("`{}`", self.name),
        }
    }
}

/// Who takes part in one exchange with the upstream at a port.
struct Cast {
    upstream: u16,
    client: Pid,
    nginx: Pid,
    worker: Option<Pid>,
}

/// What ran for each socket, in order: its changes of state, and apart from them all else, for a process may read while the other end ends.
type Runs = BTreeMap<(&'static str, bool), Vec<String>>;

const STATES: &str = "inet_sock_set_state";

impl Cast {
    /// Of what ran, that which is of this exchange.
    fn runs(&self, events: &[Event]) -> Runs {
        // Sends and receives name a socket by its address only: nginx reads the request before it does anything else.
        let with_client = events
            .iter()
            .find(|event| event.thread == self.nginx && event.name == "sock_recv_length")
            .and_then(|event| event.text.split("family").next());
        let mut runs = Runs::new();
        for event in events {
            let is_upstream = |name| event.port(name) == Some(self.upstream);
            let socket = match event.name.as_str() {
                "sock_send_length" | "sock_recv_length" if event.thread == self.client => "client",
                "sock_send_length" | "sock_recv_length" if Some(event.thread) == self.worker => "worker",
                "sock_send_length" | "sock_recv_length" if event.thread != self.nginx => continue,
                "sock_send_length" | "sock_recv_length" => {
                    match event.text.split("family").next() == with_client {
                        true => "nginx to client",
                        false => "nginx",
                    }
                }
                "tcp_send_reset" if event.text.contains(&format!(":{} dest", self.upstream)) => "nobody",
                _ if is_upstream("dport") => "nginx",
                _ if is_upstream("sport") => "worker",
                _ => continue,
            };
            runs.entry((socket, event.name == STATES)).or_default().push(event.hook());
        }
        runs
    }
}

/// Whether a process waits until somebody connects to it.
fn is_in_accept(pid: Pid) -> Result<bool> {
    let call = fs::read_to_string(format!("/proc/{pid}/syscall"))?;
    let number = call.split(' ').next().and_then(|number| number.parse().ok());
    Ok(number.is_some_and(|number| [libc::SYS_accept, libc::SYS_accept4].contains(&number)))
}

/// Waits until a worker has done with its exchange: it is the last to have.
fn wait_for_worker(worker: Pid) -> Result<()> {
    wait::until_true("the worker to wait for the next exchange", || is_in_accept(worker))
}

/// A connection with nginx that is kept.
fn client(namespace: &Namespace) -> Result<TcpStream> {
    let stream = namespace.run(|| Ok(TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, 8080)))?))?;
    stream.set_read_timeout(Some(wait::bound()))?;
    Ok(stream)
}

/// The page with both lists; the guests have no other.
const DOCUMENTATION: &str = include_str!("../../docs/how-it-works.md");

/// The list of this name, as far as it is of tracepoints that this machine has.
fn documented(name: &str, has: impl Fn(&str) -> bool) -> Result<Runs> {
    const SOCKETS: [&str; 5] = ["client", "nginx to client", "nginx", "worker", "nobody"];
    let (_, list) =
        DOCUMENTATION.split_once(&format!("<!-- {name} -->")).with_context(|| format!("no list: {name}"))?;
    let (list, _) = list.split_once("<!-- end of the list -->").context("a list without an end")?;
    let mut runs = Runs::new();
    for row in list.lines().filter(|line| line.starts_with("| ")).skip(2) {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let &[_, socket, hook, ..] = cells.as_slice() else { continue };
        let (hook, times) = match hook.split_once(" × ") {
            Some((hook, times)) => (hook, times.parse()?),
            None => (hook, 1),
        };
        let event = hook.split('`').nth(1).with_context(|| format!("no hook: {row}"))?;
        if !has(event) {
            continue;
        }
        let socket = SOCKETS.into_iter().find(|known| *known == socket);
        let socket = socket.with_context(|| format!("no socket: {row}"))?;
        let hooks = runs.entry((socket, event == STATES)).or_default();
        hooks.extend(std::iter::repeat_n(hook.to_owned(), times));
    }
    ensure!(!runs.is_empty(), "the list is empty: {name}");
    Ok(runs)
}

/// Asks on a connection that is kept, with one send and one receive.
fn ask(stream: &mut TcpStream, path: &str, status: &str) -> Result<()> {
    stream.write_all(format!("GET {path} HTTP/1.1\r\nHost: rig\r\n\r\n").as_bytes())?;
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer[..length]);
    ensure!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
    Ok(())
}

#[test]
fn an_exchange_runs_the_hooks_that_are_documented() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).listen(Endpoint::v4(FPM)).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::http("/nobody/", &Endpoint::v4(NOBODY)))
        .start()?;
    let (workers, pool) = (nginx.workers()?, fpm.workers()?);
    let (&[nginx], &[worker]) = (workers.as_slice(), pool.as_slice()) else {
        anyhow::bail!("one of each: {workers:?} {pool:?}");
    };
    let trace = Trace::new()?;
    let own = gettid().as_raw();
    let mut stream = client(&namespace)?;
    // Both have been there before: what happens once only is over.
    ask(&mut stream, "/php/ok.php", "200")?;
    ask(&mut stream, "/nobody/", "502")?;
    wait_for_worker(worker)?;

    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut release = release.split('.').map(|number| number.parse::<u32>().unwrap_or_default());
    let release = (release.next().unwrap_or_default(), release.next().unwrap_or_default());
    let has: Vec<&str> = trace.events().map(|(event, _)| event).collect();
    let has = |event: &str| has.contains(&event) && (event != "tcp_send_reset" || release >= (6, 12));

    let events = trace.of(|| {
        ask(&mut stream, "/php/ok.php", "200")?;
        wait_for_worker(worker)
    })?;
    let runs = Cast { upstream: FPM, client: own, nginx, worker: Some(worker) }.runs(&events);
    let documented_runs = documented("an exchange that succeeds", has)?;
    ensure!(runs == documented_runs, "{runs:#?}, and not {documented_runs:#?}");

    let events = trace.of(|| ask(&mut stream, "/nobody/", "502"))?;
    let runs = Cast { upstream: NOBODY, client: own, nginx, worker: None }.runs(&events);
    let documented_runs = documented("an exchange that fails", has)?;
    ensure!(runs == documented_runs, "{runs:#?}, and not {documented_runs:#?}");
    Ok(())
}

/// Exchanges that are counted one by one.
const ROUNDS: usize = 25;

/// How often each hook runs in a round: what most rounds show, for events of others on this machine come on top in some.
fn usual(tracer: Pid, mut round: impl FnMut() -> Result<()>) -> Result<BTreeMap<String, u64>> {
    let _counting = count()?;
    let mut before = runs(tracer)?;
    let mut times: BTreeMap<String, BTreeMap<u64, usize>> = BTreeMap::new();
    for _ in 0..ROUNDS {
        round()?;
        let after = runs(tracer)?;
        for (hook, runs) in &after {
            let since = runs.since(before.get(hook).copied().unwrap_or_default());
            *times.entry(hook.clone()).or_default().entry(since.count).or_default() += 1;
        }
        before = after;
    }
    let mut usual = BTreeMap::new();
    for (hook, times) in times {
        let (runs, rounds) = times.iter().max_by_key(|(_, rounds)| **rounds).context("no round")?;
        ensure!(2 * rounds > ROUNDS, "{hook} runs now so often, now so: {times:?}");
        usual.insert(hook, *runs);
    }
    Ok(usual)
}

/// What hooks are called whose programs' names the kernel cuts: it keeps 15 bytes, and what begins alike is one row.
const CUT: [(&str, &str); 11] = [
    ("fentry_security", "fentry/security_sock_graft"),
    ("fentry_tcp_conn", "fentry/tcp_connect, fentry/tcp_conn_request"),
    ("fentry_tcp_v4_s", "fentry/tcp_v4_send_reset"),
    ("fentry_unix_rel", "fentry/unix_release_sock"),
    ("fexit_inet_stre", "fexit/inet_stream_connect"),
    ("fexit_tcp_recvm", "fexit/tcp_recvmsg"),
    ("fexit_tcp_sendm", "fexit/tcp_sendmsg"),
    ("fexit_tcp_v4_sy", "fexit/tcp_v4_syn_recv_sock"),
    ("fexit_unix_stre", "fexit/unix_stream_connect, fexit/unix_stream_recvmsg, fexit/unix_stream_sendmsg"),
    ("ngx_log_error_c", "ngx_log_error_core"),
    ("sys_enter_conne", "sys_enter_connect"),
];

/// What a hook is called, of whose program's name the kernel may have kept 15 bytes.
fn whole(name: &str) -> &str {
    CUT.iter().find(|(cut, _)| *cut == name).map_or(name, |(_, whole)| whole)
}

/// `RENEW=1 cargo test -p rig --test hook_runs` writes the table of the running kernel anew, `RENEW=1 cargo xtask vm --best-only --only
/// hook_runs::` those of the others.
#[test]
fn each_hook_runs_as_often_as_recorded() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).listen(Endpoint::v4(FPM)).start()?;
    let unix = Endpoint::Unix(namespace.scratch().join("fpm"));
    let by_unix = Fpm::on(&namespace).workers(1).listen(unix.clone()).start()?;
    let origin = Endpoint::v4(9100);
    let _origin = Nginx::on(&namespace).port(9100).location(Location::fixed("/")).start()?;
    let nginx = Nginx::on(&namespace)
        .group("kept", &[&origin], &["keepalive 4"])
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fpm("/unix/", &by_unix))
        .location(Location::http("/kept/", &origin).through_group("kept"))
        .location(Location::http("/nobody/", &Endpoint::v4(NOBODY)))
        .start()?;
    let (&[worker], &[by_unix]) = (fpm.workers()?.as_slice(), by_unix.workers()?.as_slice()) else {
        anyhow::bail!("a pool has one worker");
    };
    let tracer = Tracer::start_plain(&["-p", &nginx.master().to_string()])?;
    let mut stream = client(&namespace)?;
    let mut text = String::new();
    for (what, path, status, worker) in [
        ("FastCGI over TCP", "/php/ok.php", "200", Some(worker)),
        ("FastCGI over a unix socket", "/unix/ok.php", "200", Some(by_unix)),
        ("HTTP, on a connection that is kept", "/kept/", "200", None),
        ("nobody listens", "/nobody/", "502", None),
    ] {
        ask(&mut stream, path, status)?;
        let mut usually = usual(tracer.pid(), || {
            ask(&mut stream, path, status)?;
            worker.map_or(Ok(()), wait_for_worker)
        })?;
        // What this test itself does in each round.
        for (hook, runs) in
            usual(tracer.pid(), || worker.map_or(Ok(()), |worker| is_in_accept(worker).map(drop)))?
        {
            usually.entry(hook).and_modify(|all| *all -= runs.min(*all));
        }
        usually.retain(|_, runs| *runs > 0);
        text += &format!("{what}: {}\n", usually.values().sum::<u64>());
        for (hook, runs) in usually {
            text += &format!("  {} {runs}\n", whole(&hook));
        }
    }
    drop(stream);
    tracer.stop()?;

    golden::is_as_recorded("hook-runs", &text)
}

/// The kernels of the documentation's tables, in order: the names of their golden tables, and of their columns.
const KERNELS: [(&str, &str); 5] = [
    ("5.10", "5.10"),
    ("6.1", "6.1"),
    ("6.12", "6.12"),
    ("7.2", "7.2"),
    ("6.18-tracepoints", "6.18, tracepoints only"),
];

/// The golden tables side by side, as docs/kernels.md has them.
fn side_by_side() -> Result<String> {
    type Hooks<'a> = BTreeMap<String, BTreeMap<&'a str, u64>>;
    let mut cases: Vec<(String, Hooks<'_>)> = Vec::new();
    for (kernel, _) in KERNELS {
        let path = golden::recorded().join(format!("hook-runs-{kernel}.txt"));
        let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let mut case = 0;
        for line in text.lines() {
            if let Some(line) = line.strip_prefix("  ") {
                let (hook, runs) = line.rsplit_once(' ').with_context(|| format!("no runs: {line}"))?;
                let (_, hooks) = &mut cases[case - 1];
                hooks.entry(hook.to_owned()).or_default().insert(kernel, runs.parse()?);
            } else {
                let (what, _) = line.split_once(": ").with_context(|| format!("no case: {line}"))?;
                if cases.len() == case {
                    cases.push((what.to_owned(), BTreeMap::new()));
                }
                ensure!(cases[case].0 == what, "{}: {what} for {}", path.display(), cases[case].0);
                case += 1;
            }
        }
    }
    let mut text = String::new();
    for (what, hooks) in cases {
        let names = KERNELS.map(|(_, name)| name).join(" | ");
        text += &format!("\n| {what} | {names} |\n|{}\n", " --- |".repeat(1 + KERNELS.len()));
        let row = |name: &str, runs: &dyn Fn(&str) -> u64| {
            let cells = KERNELS.map(|(kernel, _)| match runs(kernel) {
                0 => String::new(),
                runs => runs.to_string(),
            });
            format!("| {name} | {} |\n", cells.join(" | "))
        };
        for (hook, runs) in &hooks {
            let names = hook.split(", ").map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
            text += &row(&names, &|kernel| runs.get(kernel).copied().unwrap_or_default());
        }
        text += &row("all", &|kernel| hooks.values().filter_map(|runs| runs.get(kernel)).sum());
    }
    Ok(text)
}

/// `RENEW=1 cargo test -p rig --test hook_runs` writes the tables anew.
#[test]
#[ignore = "the documentation is not in the guests"]
fn the_documentation_has_the_recorded_runs() -> Result<()> {
    const BEGIN: &str = "<!-- hook runs: RENEW=1 cargo test -p rig --test hook_runs writes them anew -->\n";
    const END: &str = "<!-- end of the hook runs -->";
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/kernels.md");
    let text = fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).context("no tables of hook runs")?;
    let (_, after) = rest.split_once(END).context("tables of hook runs without an end")?;
    let renewed = format!("{before}{BEGIN}{}{END}{after}", side_by_side()?);
    if env::var_os("RENEW").is_some() {
        fs::write(&path, renewed)?;
    } else {
        ensure!(text == renewed, "the tables of hook runs in {} are not those recorded", path.display());
    }
    Ok(())
}
