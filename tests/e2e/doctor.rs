//! `why502 doctor`: what it says of this kernel, and of hosts that cannot be traced.

use std::ffi::CString;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use rig::tracer::{Run, binary, run};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, Tracer, golden, process};
use serde_json::Value;
use tempfile::TempDir;

/// What doctor wrote, and its exit status.
struct Said {
    stdout: String,
    stderr: String,
    code: Option<i32>,
}

fn said(mut command: Command) -> Result<Said> {
    let Output { status, stdout, stderr } = command.output().with_context(|| format!("{command:?}"))?;
    let said =
        Said { stdout: String::from_utf8(stdout)?, stderr: String::from_utf8(stderr)?, code: status.code() };
    ensure!(!said.stderr.contains("panicked") && said.stderr.lines().count() < 3, "{}", said.stderr);
    Ok(said)
}

fn doctor(arguments: &[&str]) -> Result<Command> {
    let mut command = process::command(binary()?);
    command.arg("doctor").args(arguments);
    Ok(command)
}

fn json(command: Command) -> Result<(Value, Said)> {
    let said = said(command)?;
    ensure!(said.stdout.lines().count() == 1, "{}", said.stdout);
    let value: Value = serde_json::from_str(&said.stdout)?;
    ensure!(value["v"] == 1 && value["type"] == "doctor", "{value}");
    Ok((value, said))
}

fn list<'a>(value: &'a Value, name: &str) -> Result<&'a Vec<Value>> {
    value[name].as_array().with_context(|| format!("{name} in {value}"))
}

/// The fact of this name.
fn fact<'a>(value: &'a Value, name: &str) -> Result<&'a Value> {
    list(value, "facts")?.iter().find(|fact| fact["fact"] == name).with_context(|| format!("no fact {name}"))
}

/// Without what differs between hosts of one kernel: its build, what is mounted, and which processes run.
fn normalised(text: &str) -> Result<String> {
    let (text, _processes) = text.split_once("\nnginx and php-fpm\n").context("the last section")?;
    let lines = text.lines().map(|line| {
        let varies = ["  kernel ", "  lockdown ", "  tracefs ", "  landlock "]
            .into_iter()
            .find(|head| line.starts_with(head));
        varies.map_or_else(|| line.to_owned(), |head| format!("{head}..."))
    });
    Ok(lines.collect::<Vec<_>>().join("\n") + "\n")
}

/// `RENEW=1 cargo test -p rig --test doctor` writes the golden text of the running kernel anew, `RENEW=1 cargo xtask vm --only
/// doctor::` those of the others.
#[test]
fn what_this_kernel_shows_is_as_recorded() -> Result<()> {
    // Alone in a network whose settings are known.
    let namespace = Namespace::new()?;
    for (name, value) in [
        ("net.core.somaxconn", "4096"),
        ("net.ipv4.tcp_abort_on_overflow", "0"),
        ("net.ipv4.tcp_syn_retries", "6"),
        ("net.ipv4.tcp_synack_retries", "5"),
        ("net.ipv4.tcp_syncookies", "1"),
        ("net.ipv4.tcp_max_syn_backlog", "512"),
        ("net.ipv4.conf.all.rp_filter", "0"),
    ] {
        namespace.sysctl(name, value)?;
    }
    let mut command = namespace.command(binary()?);
    command.arg("doctor");
    let said = said(command)?;
    ensure!(matches!(said.code, Some(0 | 1)) && said.stderr.is_empty(), "{:?}: {}", said.code, said.stderr);
    for words in [
        "Tracing works.",
        "raw_tp/inet_sock_set_state",
        "read_timeout/stalled_response",
        "net.core.somaxconn",
        "4096",
    ] {
        ensure!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    ensure!(said.stdout.contains("from the start\n") == (said.code == Some(1)), "{}", said.stdout);
    ensure!(!said.stdout.contains('\u{1b}'), "colour on a pipe: {}", said.stdout);

    golden::is_as_recorded("doctor", &normalised(&said.stdout)?)
}

#[test]
fn json_holds_every_fact_and_cause_and_agrees_with_the_exit_status() -> Result<()> {
    let (value, said) = json(doctor(&["-o", "json"])?)?;
    ensure!(value["tracing"] == true && value["obstacle"].is_null() && value["btf"] == true, "{value}");
    ensure!(list(&value, "missing_capabilities")?.is_empty(), "{value}");
    for fact in list(&value, "facts")? {
        ensure!(fact["source"].is_null() != fact["reason"].is_null(), "{fact}");
    }
    let states = fact(&value, "states")?;
    ensure!(states["source"] == "raw_tp/inet_sock_set_state" && states["on_demand"] == false, "{states}");
    let causes = list(&value, "causes")?;
    ensure!(
        causes.iter().all(|cause| (cause["standing"] == "proven") == cause["reason"].is_null()),
        "{value}"
    );
    let is_worse = causes.iter().any(|cause| cause["standing"] != "proven" && cause["everywhere"] == false);
    ensure!(said.code == Some(i32::from(is_worse)), "{:?}: {value}", said.code);
    ensure!(list(&value, "settings")?.len() == 7, "{value}");
    Ok(())
}

#[test]
fn without_functions_the_tracepoints_stand_in() -> Result<()> {
    let (value, said) = json(doctor(&["-o", "json", "--hooks-only", "raw_tp,syscall"])?)?;
    if value["tracing"] == false {
        // Before 6.3 no tracepoint shows bytes sent.
        ensure!(said.code == Some(3), "{:?}: {value}", said.code);
        return Ok(());
    }
    ensure!(said.code == Some(1), "{:?}: {value}", said.code);
    let accepts = fact(&value, "accepts")?;
    ensure!(accepts["source"].is_null() && accepts["instead"].is_string(), "{accepts}");
    let unix = fact(&value, "unix_sockets")?;
    ensure!(unix["on_demand"] == true, "{unix}");
    // Without system calls, nothing shows them.
    let (value, _) = json(doctor(&["-o", "json", "--hooks-only", "raw_tp"])?)?;
    let unix = fact(&value, "unix_sockets")?;
    ensure!(unix["source"].is_null(), "{unix}");
    let missing = list(&value, "causes")?.iter().find(|cause| cause["detail"] == "socket_missing");
    ensure!(missing.is_some_and(|cause| cause["standing"] == "not_seen"), "{missing:?}");
    Ok(())
}

/// Shows the command `folder` in the place of `place`, which others see as it is.
fn masked(command: &mut Command, folder: &Path, place: &str) -> Result<()> {
    let (from, to) = (CString::new(folder.as_os_str().as_bytes())?, CString::new(place)?);
    // SAFETY: both calls are async-signal-safe, and nothing here allocates.
    unsafe {
        command.pre_exec(move || {
            unshare(CloneFlags::CLONE_NEWNS)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, c"/", None::<&str>, private, None::<&str>)?;
            Ok(mount(Some(from.as_c_str()), to.as_c_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
        });
    }
    Ok(())
}

#[test]
fn a_host_that_cannot_be_traced_is_named_in_one_sentence_with_what_can_be_said() -> Result<()> {
    let folder = TempDir::with_prefix("why502-doctor-")?;
    let cases = [
        ("/sys", None, "there is no /sys"),
        ("/sys/kernel/btf", None, "--btf FILE"),
        ("/sys/kernel/security", Some("none integrity [confidentiality]\n"), "confidentiality"),
    ];
    for (place, lockdown, words) in cases {
        if !Path::new(place).is_dir() {
            continue;
        }
        if let Some(modes) = lockdown {
            fs::write(folder.path().join("lockdown"), modes)?;
        }
        let mut command = doctor(&[])?;
        masked(&mut command, folder.path(), place)?;
        impossible(&said(command)?, words)?;

        let mut command = doctor(&["-o", "json"])?;
        masked(&mut command, folder.path(), place)?;
        let (value, said) = json(command)?;
        let obstacle = value["obstacle"].as_str().context("an obstacle")?;
        ensure!(said.code == Some(3) && obstacle.contains(words) && value["tracing"] == false, "{value}");
        ensure!(list(&value, "facts")?.is_empty() && list(&value, "causes")?.is_empty(), "{value}");
        ensure!(list(&value, "settings")?.len() == 7, "{value}");
    }
    Ok(())
}

fn impossible(said: &Said, words: &str) -> Result<()> {
    ensure!(said.code == Some(3), "{:?}: {}", said.code, said.stdout);
    // The sentence alone, where errors go; and at the head of the report.
    ensure!(said.stderr.lines().count() == 1 && said.stderr.contains(words), "{}", said.stderr);
    ensure!(said.stdout.starts_with("Tracing is impossible here: "), "{}", said.stdout);
    for words in [words, "Host", "net.core.somaxconn", "nginx and php-fpm"] {
        ensure!(said.stdout.contains(words), "{words}: {}", said.stdout);
    }
    Ok(())
}

/// A copy of the running kernel's types stands for what BTFHub has: with it, and without those of the kernel's own, exchanges are explained.
#[test]
fn a_kernel_that_shows_no_types_is_traced_with_those_of_a_file() -> Result<()> {
    const SHOWN: &str = "/sys/kernel/btf";
    let folder = TempDir::with_prefix("why502-btf-")?;
    let (types, nothing) = (folder.path().join("vmlinux.btf"), folder.path().join("nothing"));
    fs::copy(Path::new(SHOWN).join("vmlinux"), &types)?;
    fs::create_dir(&nothing)?;
    let types = types.to_str().context("a name in UTF-8")?;

    let mut command = doctor(&["-o", "json", "--btf", types])?;
    masked(&mut command, &nothing, SHOWN)?;
    let (value, _) = json(command)?;
    ensure!(value["tracing"] == true && value["btf"] == false && value["btf_file"] == types, "{value}");
    let refused = list(&value, "causes")?.iter().find(|cause| cause["detail"] == "no_listener");
    let standing = refused.and_then(|cause| cause["standing"].as_str()).context("refused/no_listener")?;
    // What is attached by a type's number is not: a file's numbers are not the kernel's.
    for fact in list(&value, "facts")? {
        let by_number = |source: &str| source.starts_with("fentry/") || source.starts_with("fexit/");
        ensure!(!fact["source"].as_str().is_some_and(by_number), "{fact}");
    }

    let dead = Endpoint::v4(9009);
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/", &dead)).start()?;
    let tracer = Tracer::start_prepared(&["-p", &nginx.master().to_string(), "--btf", types], |command| {
        masked(command, &nothing, SHOWN)
    })?;
    ensure!(nginx.client().get("/")?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(
        account.stderr.contains("listeners that are older than why502 are not all known"),
        "{}",
        account.stderr
    );
    account.only(&dead)?.says("refused/no_listener", standing, 502, Some("ECONNREFUSED"))
}

#[test]
fn a_file_that_is_not_this_kernels_types_is_refused_in_one_sentence() -> Result<()> {
    let folder = TempDir::with_prefix("why502-btf-")?;
    let (empty, evidence) = (folder.path().join("empty"), folder.path().join("evidence.zst"));
    fs::write(&empty, "")?;
    let own = binary()?;
    for (path, words) in [
        (own.as_path(), "without BTF"),
        (&empty, "neither BTF nor an ELF file"),
        (Path::new("/dev/zero"), "no regular file"),
        (Path::new("/nonexistent"), "No such file"),
    ] {
        for verb in ["live", "record", "serve", "backlog", "doctor"] {
            let mut arguments = vec![verb, "--btf", path.to_str().context("UTF-8")?];
            match verb {
                "record" => arguments.extend(["-o", evidence.to_str().context("UTF-8")?]),
                "serve" => arguments.extend(["--metrics", "off"]),
                _ => {}
            }
            let Run { stderr, status, .. } = run(&arguments)?;
            let is_one = stderr.lines().count() == 1 && stderr.contains("--btf") && stderr.contains(words);
            ensure!(is_one && status.code() == Some(3), "{verb}: {status}: {stderr}");
        }
    }
    Ok(())
}

#[test]
fn missing_privileges_are_named() -> Result<()> {
    // Where everybody can reach it.
    let folder = TempDir::with_prefix("why502-doctor-")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("why502");
    fs::copy(binary()?, &copy)?;
    let nobody = 65534;
    let mut command = process::command(&copy);
    command.arg("doctor").uid(nobody).gid(nobody);
    impossible(&said(command)?, "CAP_BPF and CAP_PERFMON and CAP_SYS_PTRACE")
}

#[test]
fn without_tracefs_and_the_right_to_mount_it_only_system_calls_are_missing() -> Result<()> {
    const CAP_SYS_ADMIN: u32 = 21;
    let folder = TempDir::with_prefix("why502-doctor-")?;
    let mut command = doctor(&["-o", "json"])?;
    masked(&mut command, folder.path(), "/sys/kernel/tracing")?;
    process::without_capability(&mut command, CAP_SYS_ADMIN);
    let (value, said) = json(command)?;
    ensure!(value["tracing"] == true && value["tracefs"] == false, "{:?}: {value}", said.code);
    let unix = fact(&value, "unix_sockets")?;
    let by_function = unix["source"].as_str().is_some_and(|source| !source.starts_with("tracepoint/"));
    ensure!(
        by_function || unix["reason"].as_str().is_some_and(|reason| reason.contains("tracefs")),
        "{unix}"
    );
    Ok(())
}

#[test]
fn nginx_and_php_fpm_are_seen_with_their_workers_and_listeners() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace).location(Location::fpm("/", &fpm)).start()?;
    let (value, _) = json(doctor(&["-o", "json"])?)?;
    let processes = list(&value, "processes")?;
    let of = |pid: i32| {
        processes.iter().find(|process| process["pid"] == pid).with_context(|| format!("{pid}: {value}"))
    };
    for (pid, name) in [(nginx.master(), "nginx"), (fpm.master(), "php-fpm")] {
        let process = of(pid)?;
        let comm = process["comm"].as_str().unwrap_or_default();
        ensure!(comm.starts_with(name) && process["other_network_namespace"] == true, "{process}");
        ensure!(!list(process, "listeners")?.is_empty(), "{process}");
    }
    ensure!(of(fpm.master())?["workers"] == fpm.workers()?.len(), "{value}");
    ensure!(of(nginx.master())?["workers"] == nginx.workers()?.len(), "{value}");
    // What nginx logs is heard, or why not is said; php-fpm's is nobody's concern.
    let word = fact(&value, "words")?;
    ensure!(
        of(nginx.master())?["word"] == word["source"] && of(nginx.master())?["unheard"].is_null(),
        "{value}"
    );
    ensure!(of(fpm.master())?["word"].is_null() && of(fpm.master())?["unheard"].is_null(), "{value}");
    let (alone, _) = json(doctor(&["-o", "json", "--no-uprobe"])?)?;
    let mut processes = list(&alone, "processes")?.iter();
    let left = processes.find(|process| process["pid"] == nginx.master()).context("nginx")?;
    ensure!(left["word"].is_null() && left["unheard"].to_string().contains("--no-uprobe"), "{left}");
    let listeners = &of(fpm.master())?["listeners"];
    ensure!(listeners == &serde_json::json!([fpm.endpoint().to_string()]), "{listeners}");
    Ok(())
}

#[test]
fn wrong_usage_is_status_2() -> Result<()> {
    for word in ["--frobnicate", "extra"] {
        let Run { stdout, stderr, status } = run(&["doctor", word])?;
        ensure!(status.code() == Some(2) && stderr.contains(word) && stdout.is_empty(), "{status}: {stderr}");
    }
    let Run { stderr, status, .. } = run(&["doctor", "-o", "xml"])?;
    ensure!(status.code() == Some(2) && stderr.contains("xml"), "{status}: {stderr}");
    Ok(())
}
