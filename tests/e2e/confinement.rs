//! What is given up once all is attached, thread by thread as the kernel has it; and that late work is done all the same (issue 24).

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt as _, chown};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::libc;
use nix::sys::signal::Signal;
use rig::nginx::Program;
use rig::process::{self, Pid, Process, find_program, without_capability};
use rig::recorder::{Recorder, report};
use rig::refusing::refusing;
use rig::service::{Service, series, verdicts};
use rig::strace::Strace;
use rig::tracer::run;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, wait};
use serde_json::Value;
use tempfile::TempDir;

/// Capabilities by their numbers (include/uapi/linux/capability.h).
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const DAC_READ_SEARCH: u64 = 1 << 2;
const SETGID: u64 = 1 << 6;
const SETUID: u64 = 1 << 7;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const PERFMON: u64 = 1 << 38;
const BPF: u64 = 1 << 39;

/// What each thread keeps, and what those apart keep.
const TRACING: u64 = DAC_READ_SEARCH | SYS_PTRACE | PERFMON | BPF;
const APART: u64 = TRACING | CHOWN | SETGID | SETUID | SYS_ADMIN;

/// What the kernel says of one thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    name: String,
    capabilities: u64,
    may_gain: bool,
    is_filtered: bool,
}

fn threads(pid: Pid) -> Result<Vec<Thread>> {
    let mut threads = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        // One that worked apart for a moment may have ended.
        let Ok(status) = fs::read_to_string(task?.path().join("status")) else { continue };
        let values: BTreeMap<_, _> = status
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name, value.trim()))
            .collect();
        let value = |name: &str| values.get(name).copied().with_context(|| format!("no {name} in {status}"));
        let set = |name: &str| Ok::<_, anyhow::Error>(u64::from_str_radix(value(name)?, 16)?);
        ensure!(set("CapEff")? == set("CapPrm")?, "{status}");
        ensure!(set("CapInh")? == 0 && set("CapAmb")? == 0, "{status}");
        threads.push(Thread {
            name: value("Name")?.to_owned(),
            capabilities: set("CapEff")?,
            may_gain: value("NoNewPrivs")? == "0",
            is_filtered: values.get("Seccomp") == Some(&"2"),
        });
    }
    Ok(threads)
}

/// Whether this kernel has filters of system calls.
fn has_seccomp() -> bool {
    Path::new("/proc/sys/kernel/seccomp/actions_avail").exists()
}

fn has_landlock() -> bool {
    // SAFETY: asks for a version; takes no memory.
    unsafe { libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<u8>(), 0_usize, 1_u32) > 0 }
}

/// Holds each thread but those that are named against what it may keep; `more` is what each keeps beyond that.
fn is_confined(pid: Pid, more: u64, but: &[&str]) -> Result<Vec<Thread>> {
    let threads = threads(pid)?;
    for thread in threads.iter().filter(|thread| !but.contains(&thread.name.as_str())) {
        let kept = match thread.name.as_str() {
            "metrics" => 0,
            "apart" | "depths" => APART | more,
            _ => TRACING | more,
        };
        ensure!(thread.capabilities == kept, "{kept:x} is to be kept: {thread:x?}");
        ensure!(!thread.may_gain && thread.is_filtered == has_seccomp(), "{thread:x?}");
    }
    Ok(threads)
}

fn has(threads: &[Thread], name: &str) -> bool {
    threads.iter().any(|thread| thread.name == name)
}

#[test]
fn a_service_keeps_little_and_hears_an_nginx_that_starts_later_over_tcp_and_unix_sockets() -> Result<()> {
    let folder = Service::folder()?;
    let json = folder.path().join("verdicts.json");
    let path = json.to_str().context("no text")?.to_owned();
    let namespace = Namespace::new()?;
    // A name of this test's own: whoever traces all that have it traces no other nginx of this host.
    let program = namespace.scratch().join("nginx-few");
    fs::copy(find_program(&["nginx"])?, &program)?;
    let service = Service::start(folder, &["--comm", "nginx-few", "--json-path", &path])?;
    // A thread that has just begun is called as the one that started it.
    wait::until_true("each thread to have its name", || {
        let threads = threads(service.pid())?;
        Ok(["apart", "depths", "metrics", "sampler"].iter().all(|name| has(&threads, name)))
    })?;
    let threads = is_confined(service.pid(), 0, &[])?;
    ensure!(!has(&threads, "hook"), "{threads:x?}");

    // All of this is late: hearing nginx, watching unix sockets, and looking into another network namespace.
    let fpm = Fpm::on(&namespace).start()?;
    let missing = Endpoint::Unix(namespace.scratch().join("missing"));
    let nginx = Nginx::on(&namespace)
        .program(Program::File(program))
        .location(Location::fastcgi("/none/", &Endpoint::v4(9009)))
        .location(Location::fastcgi("/missing/", &missing))
        .location(Location::fpm("/php/", &fpm))
        .start()?;
    let client = nginx.client();
    wait::until_true("nginx to be heard", || {
        ensure!(client.get("/none/")?.status == 502);
        Ok(verdicts(&json)?.iter().any(|verdict| verdict.word.is_some()))
    })?;
    ensure!(client.get("/missing/")?.status == 502);
    ensure!(client.get("/php/ok.php")?.status == 200);
    wait::until_true("the unix upstream's failure", || {
        Ok(verdicts(&json)?.iter().any(|verdict| verdict.name() == "refused/socket_missing"))
    })?;
    let of_pool = fpm.endpoint().to_string();
    wait::until_true("the accept queue in the namespace", || {
        let queues = series(&service.page()?, "why502_accept_queue_limit")?;
        Ok(queues.iter().any(|(labels, _)| labels.get("listener") == Some(&of_pool)))
    })?;
    is_confined(service.pid(), 0, &[])?;
    // Where process 1 lives not even root may see in some virtual machines.
    for words in ["not permitted", "is not heard", "network namespace"] {
        ensure!(!service.complaints().contains(words), "{}", service.complaints());
    }
    service.stop()?;
    Ok(())
}

#[test]
fn only_a_hook_that_was_asked_for_at_the_start_keeps_what_it_takes_to_run_it() -> Result<()> {
    let own = threads(std::process::id().cast_signed())?;
    let own = own.first().context("a thread")?.capabilities;
    let (_namespace, nginx) = refusing()?;
    let (master, folder) = (nginx.master().to_string(), Service::folder()?);
    let (configuration, evidence) = (folder.path().join("why502.toml"), folder.path().join("evidence"));
    let text = format!("[record]\nlast = \"1m\"\ndirectory = \"{}\"\n", evidence.display());
    fs::write(&configuration, &text)?;
    let path = configuration.to_str().context("no text")?;
    let service = Service::start(folder, &["-p", &master, "--config", path])?;
    ensure!(!has(&is_confined(service.pid(), 0, &[])?, "hook"));
    // Too late: what it would take is not there any more.
    let with_hook = format!("{text}hook = [\"/bin/true\"]\n");
    fs::write(&configuration, &with_hook)?;
    service.signal(Signal::SIGHUP)?;
    service.wait_to_say("the hook is not run before a new start", 1)?;
    let ended = service.stop()?;

    fs::remove_file(ended.folder.path().join("ready"))?;
    let service = Service::start(ended.folder, &["-p", &master, "--config", path])?;
    let threads = is_confined(service.pid(), 0, &["hook"])?;
    let hook = threads.iter().find(|thread| thread.name == "hook").context("no hook's thread")?;
    ensure!(hook.capabilities == own && hook.may_gain && !hook.is_filtered, "{hook:x?}");
    service.stop()?;
    Ok(())
}

#[test]
fn live_and_record_keep_as_little_and_what_a_foreign_folder_takes_only_to_write_there() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let master = nginx.master().to_string();
    let tracer = Tracer::of(nginx.master())?;
    is_confined(tracer.pid(), 0, &[])?;
    ensure!(nginx.client().get("/none/")?.status == 502);
    tracer.wait_for(1)?;
    is_confined(tracer.pid(), 0, &[])?;
    tracer.stop()?.is_orderly()?;

    let recorder = Recorder::start(&["-p", &master])?;
    is_confined(recorder.pid(), 0, &[])?;
    recorder.stop()?;

    let folder = TempDir::with_prefix("why502-foreign-")?;
    chown(folder.path(), Some(65_534), Some(65_534))?;
    let file = folder.path().join("evidence.zst");
    let path = file.to_str().context("no text")?;
    let tracer = Tracer::run_as("record", &["-o", path, "-p", &master], None, |_| {})?;
    is_confined(tracer.pid(), DAC_OVERRIDE, &[])?;
    ensure!(nginx.client().get("/none/")?.status == 502);
    let before = fs::metadata(&file)?.len();
    wait::until_true("the failure to be on disk", || Ok(fs::metadata(&file)?.len() > before))?;
    tracer.signal(Signal::SIGINT)?;
    ensure!(tracer.end()?.status.success());
    ensure!(report(&[&file])?.verdicts.len() == 1);
    Ok(())
}

/// Before the first byte of a file is read, and with what a foreign folder's files take.
#[test]
fn report_is_confined_before_it_opens_a_file_and_reads_those_of_others() -> Result<()> {
    let folder = TempDir::with_prefix("why502-foreign-")?;
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/evidence-1.zst");
    let (file, page) = (folder.path().join("evidence.zst"), folder.path().join("page.html"));
    fs::copy(&golden, &file)?;
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    chown(&file, Some(65_534), Some(65_534))?;
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700))?;
    chown(folder.path(), Some(65_534), Some(65_534))?;
    let [file, page] = [&file, &page].map(|path| path.to_str().context("no text"));
    let (file, page) = (file?, page?);
    let said = run(&["report", file, "--html", page])?;
    ensure!(said.status.success() && said.stderr.is_empty(), "{}", said.stderr);
    ensure!(fs::metadata(page)?.len() > 1_000);

    let traced = Strace::run(&["report", "-o", "json", file])?;
    ensure!(traced.status.success() && !traced.stdout.is_empty(), "{}", traced.stderr);
    let first = |what: &str, is_it: &dyn Fn(&rig::strace::Call) -> bool| {
        traced.calls.iter().position(is_it).with_context(|| format!("{what} is not among its calls"))
    };
    let opens = |call: &rig::strace::Call| {
        matches!(call.name.as_str(), "open" | "openat")
            && call.shown().contains(file)
            && !call.shown().contains("O_PATH")
    };
    let opened = first("opening the file", &opens)?;
    let gained =
        first("no_new_privs", &|call| call.name == "prctl" && call.shown().contains("PR_SET_NO_NEW_PRIVS"))?;
    ensure!(gained < opened);
    ensure!(first("capset", &|call| call.name == "capset")? < opened);
    if has_seccomp() {
        let filter = |call: &rig::strace::Call| call.name == "seccomp" && call.result == Some(0);
        ensure!(first("seccomp", &filter)? < opened);
    }
    if has_landlock() {
        let rules =
            |call: &rig::strace::Call| call.name == "landlock_restrict_self" && call.result == Some(0);
        ensure!(first("landlock_restrict_self", &rules)? < opened);
    }
    // Nothing is left once it is open, and before it is read.
    let given_up = traced.calls.iter().rposition(|call| call.name == "capset").context("capset")?;
    let read = traced
        .calls
        .iter()
        .position(|call| call.name == "read" && call.shown().contains(&format!("<{file}>")));
    ensure!(opened < given_up && Some(given_up) < read, "{given_up}, {read:?}");
    Ok(())
}

/// What is missing where a process never had a capability.
#[derive(Clone, Copy)]
enum Missing {
    /// It does not begin, and says this.
    Start(&'static str),
    /// This is not seen, which it says.
    Said(&'static str),
    /// The verdict about a socket that owner and mode close is not proven.
    Owner,
    /// The verdict about a route that is prohibited does not name it.
    Route,
}

/// Each capability that is kept, by its number, and what fails without it. Until all is attached CAP_SYS_ADMIN stands for CAP_BPF and
/// CAP_PERFMON: without one of these it is the late work that is missed.
const MISSED: [(&str, u32, Missing); 9] = [
    ("CAP_BPF", 39, Missing::Said("unix-socket upstreams are in use and cannot be watched here")),
    ("CAP_PERFMON", 38, Missing::Said("unix-socket upstreams are in use and cannot be watched here")),
    ("CAP_SYS_PTRACE", 19, Missing::Start("tracing needs CAP_SYS_PTRACE")),
    ("CAP_DAC_READ_SEARCH", 2, Missing::Said("the access logs of nginx")),
    ("CAP_DAC_OVERRIDE", 1, Missing::Start("cannot be opened: Permission denied")),
    ("CAP_SYS_ADMIN", 21, Missing::Said("says of its upstreams is not heard")),
    ("CAP_SETUID", 7, Missing::Owner),
    ("CAP_SETGID", 6, Missing::Owner),
    ("CAP_CHOWN", 0, Missing::Route),
];

#[test]
fn each_capability_that_is_kept_is_missed_where_it_never_was() -> Result<()> {
    let doctor = serde_json::from_str::<Value>(&run(&["doctor", "-o", "json"])?.stdout.concat())?;
    let kept =
        doctor["kept"].as_array().context("no list")?.iter().filter_map(|one| one["capability"].as_str());
    let missed = MISSED.map(|(name, ..)| name);
    ensure!(kept.collect::<BTreeSet<_>>() == missed.into(), "{doctor:#}");

    let namespace = Namespace::new()?;
    fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o755))?;
    namespace.ip("route add prohibit 10.9.9.0/24")?;
    let closed = namespace.scratch().join("closed");
    let _listener = UnixListener::bind(&closed)?;
    fs::set_permissions(&closed, Permissions::from_mode(0o600))?;
    let program = namespace.scratch().join("nginx-kept");
    fs::copy(find_program(&["nginx"])?, &program)?;
    let log = namespace.scratch().join("foreign.log");
    fs::write(&log, "")?;
    fs::set_permissions(&log, Permissions::from_mode(0o600))?;
    chown(&log, Some(65_534), Some(65_534))?;
    for one in MISSED.into_iter().map(Some).chain([None]) {
        without(&namespace, &program, one).with_context(|| format!("without {:?}", one.map(|one| one.0)))?;
    }
    Ok(())
}

/// Runs a service that never has one of the capabilities, or has them all, and an nginx that starts later: what is missing is missing, and
/// all else is there.
fn without(namespace: &Namespace, program: &Path, one: Option<(&str, u32, Missing)>) -> Result<()> {
    let missing = one.map(|(.., missing)| missing);
    let is = |name: &str| one.is_some_and(|(its, ..)| its == name);
    let folder = Service::folder()?;
    let written = folder.path().join("foreign");
    fs::create_dir(&written)?;
    fs::set_permissions(&written, Permissions::from_mode(0o700))?;
    if is("CAP_DAC_OVERRIDE") {
        chown(&written, Some(65_534), Some(65_534))?;
    }
    let json = written.join("verdicts.json");
    let path = json.to_str().context("no text")?.to_owned();
    let arguments = ["--comm", "nginx-kept", "--json-path", &path];
    let started = Service::in_surroundings(folder, &arguments, |command| {
        if let Some((_, number, _)) = one {
            without_capability(command, number);
        }
    });
    if let Some(Missing::Start(words)) = missing {
        let error = started.err().context("it starts")?;
        ensure!(format!("{error:#}").contains(words), "{error:#}");
        return Ok(());
    }
    let service = started?;
    let prohibited = Endpoint::Tcp("10.9.9.9:9000".parse()?);
    let closed = Endpoint::Unix(namespace.scratch().join("closed"));
    let log = format!("access_log {}/foreign.log", namespace.scratch().display());
    let nginx = Nginx::on(namespace)
        .program(Program::File(program.to_owned()))
        .user("nobody nogroup")
        .location(Location::fastcgi("/none/", &Endpoint::v4(9009)).directive(&log))
        .location(Location::fastcgi("/closed/", &closed))
        .location(Location::fastcgi("/prohibited/", &prohibited))
        .start()?;
    let client = nginx.client();
    if let Some(Missing::Said(words)) = missing {
        service.wait_to_say(words, 1)?;
    }
    if !is("CAP_SYS_ADMIN") {
        wait::until_true("nginx to be heard", || {
            ensure!(client.get("/none/")?.status == 502);
            Ok(verdicts(&json)?.iter().any(|verdict| verdict.word.is_some()))
        })?;
        for path in ["/closed/", "/prohibited/"] {
            ensure!(client.get(path)?.status == 502);
        }
        let about = |upstream: &Endpoint| {
            wait::until("a verdict", || {
                let mut emitted = verdicts(&json)?.into_iter();
                Ok(emitted.find(|verdict| verdict.address() == Some(&upstream.to_string())))
            })
        };
        let (owner, route) = (about(&closed)?, about(&prohibited)?);
        let is_proven = owner.name() == "refused/permission_denied" && owner.confidence == "proven";
        ensure!(is_proven != matches!(missing, Some(Missing::Owner)), "{owner:#?}");
        let is_named = route.name() == "refused/no_route";
        ensure!(is_named != matches!(missing, Some(Missing::Route)), "{route:#?}");
    }
    for (other, _, its) in MISSED {
        if let Missing::Said(words) = its
            && !matches!(missing, Some(Missing::Said(_)))
        {
            ensure!(!service.complaints().contains(words), "{other} is missed: {}", service.complaints());
        }
    }
    service.stop()?;
    Ok(())
}

/// What the refusal to start without it rests on: with all else that is kept, the kernel shows nothing of another user's process.
#[test]
fn without_sys_ptrace_another_users_process_is_not_seen() -> Result<()> {
    let mut sleep = process::command(find_program(&["sleep"])?);
    sleep.arg("1000").uid(65_534).gid(65_534);
    let other = Process::start(sleep)?;
    let sees = |lacking: &[u32]| -> Result<bool> {
        let mut command = process::command(find_program(&["readlink"])?);
        command.arg(format!("/proc/{}/exe", other.pid()));
        for capability in lacking {
            without_capability(&mut command, *capability);
        }
        Ok(command.stdout(Stdio::null()).status()?.success())
    };
    ensure!(sees(&[])? && !sees(&[19])?);
    Ok(())
}
