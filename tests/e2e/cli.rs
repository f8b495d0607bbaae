//! How `why502` is called, and how it ends.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::terminal::Terminal;
use rig::tracer::{Account, Run, binary, run};
use rig::{Client, Endpoint, Location, Namespace, Nginx, Tracer, process, wait};
use tempfile::TempDir;

/// Whatever goes wrong, nobody is shown the program's insides.
fn is_civil(stderr: &str) -> Result<()> {
    for word in ["panicked", "RUST_BACKTRACE", "stack backtrace", "processed ", "R0=", "verifier"] {
        ensure!(!stderr.contains(word), "{word:?} in: {stderr}");
    }
    ensure!(stderr.lines().count() < 12, "{stderr}");
    Ok(())
}

/// An nginx whose upstreams all refuse.
fn refusing() -> Result<(Namespace, Nginx)> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/one/", &Endpoint::v4(9009)))
        .location(Location::fastcgi("/two/", &Endpoint::v4(9010)))
        .start()?;
    Ok((namespace, nginx))
}

#[test]
fn wrong_usage_is_status_2_and_names_the_word() -> Result<()> {
    let cases: [(&[&str], &str); 10] = [
        (&["live", "--frobnicate"], "--frobnicate"),
        (&["live", "-d", "soon"], "soon"),
        (&["live", "-d", "-3s"], "-3s"),
        (&["live", "-c", "many"], "many"),
        (&["live", "-u", "999.1.2.3:80"], "999.1.2.3:80"),
        (&["live", "-u", "127.0.0.1:70000"], "127.0.0.1:70000"),
        (&["live", "-p", "nginx"], "nginx"),
        (&["live", "-o", "xml"], "xml"),
        (&["dance"], "dance"),
        (&["explain", "reset/worker_kiled"], "the nearest: reset/worker_killed"),
    ];
    for (arguments, word) in cases {
        let Run { stdout, stderr, status } = run(arguments)?;
        ensure!(status.code() == Some(2), "{arguments:?}: {status}: {stderr}");
        ensure!(stderr.contains(word) && stdout.is_empty(), "{arguments:?}: {stderr}");
        is_civil(&stderr)?;
    }
    Ok(())
}

#[test]
fn a_pid_that_does_not_exist_is_status_1() -> Result<()> {
    let Run { stdout, stderr, status } = run(&["live", "-p", "4194304", "-d", "1s"])?;
    ensure!(
        status.code() == Some(1) && stderr.contains("4194304") && stdout.is_empty(),
        "{status}: {stderr}"
    );
    is_civil(&stderr)
}

/// What it does for somebody without any privilege.
fn as_nobody(arguments: &[&str]) -> Result<Output> {
    // Where everybody can reach it.
    let folder = TempDir::with_prefix("why502-cli-")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("why502");
    fs::copy(binary()?, &copy)?;
    let nobody = 65534;
    Ok(process::command(&copy).args(arguments).uid(nobody).gid(nobody).output()?)
}

#[test]
fn missing_privileges_are_status_3_and_named() -> Result<()> {
    let output = as_nobody(&["live", "-d", "1s"])?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.code() == Some(3), "{}: {stderr}", output.status);
    ensure!(stderr.contains("root") || stderr.contains("CAP_BPF"), "{stderr}");
    is_civil(&stderr)
}

#[test]
fn what_a_verdict_names_is_explained_to_anybody() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let tracer = Tracer::spawn(&["-p", &nginx.master().to_string(), "-c", "1", "-v"], None, |_| {})?;
    nginx.client().get("/one/")?;
    let Run { stdout, stderr, status } = tracer.end()?;
    ensure!(status.success(), "{status}: {stderr}");
    let more = stdout.iter().find_map(|line| line.trim().strip_prefix("more: why502 "));
    let arguments: Vec<&str> = more.with_context(|| stdout.join("\n"))?.split(' ').collect();
    ensure!(arguments == ["explain", "refused/no_listener"], "{arguments:?}");
    let output = as_nobody(&arguments)?;
    let text = String::from_utf8(output.stdout)?;
    ensure!(output.status.success() && output.stderr.is_empty(), "{}", output.status);
    ensure!(
        text.starts_with("refused/no_listener\n") && text.contains("(111: Connection refused)"),
        "{text}"
    );
    Ok(())
}

#[test]
fn it_ends_at_its_count_and_at_each_signal_with_a_summary() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();

    let tracer = Tracer::start(&["-p", &pid, "-c", "2"])?;
    for _ in 0..3 {
        nginx.client().get("/one/")?;
    }
    let account: Account = tracer.finish()?;
    account.is_orderly()?;
    ensure!(account.verdicts.len() == 2, "{:#?}", account.verdicts);

    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let tracer = Tracer::start(&["-p", &pid])?;
        nginx.client().get("/one/")?;
        // At once: what is still on its way is not to be lost.
        tracer.signal(signal)?;
        let account = tracer.finish()?;
        account.is_orderly()?;
        ensure!(account.verdicts.len() == 1, "{signal}: {:#?}", account.verdicts);
    }
    Ok(())
}

#[test]
fn it_ends_after_its_duration_and_says_when_nobody_matches() -> Result<()> {
    let Run { stdout, stderr, status } =
        run(&["live", "--comm", "nobody-at-all", "-d", "300ms", "-o", "json"])?;
    ensure!(status.success() && stdout.len() == 1, "{status}: {stdout:?} {stderr}");
    let summary: serde_json::Value = serde_json::from_str(&stdout[0])?;
    ensure!(summary["type"] == "summary" && summary["failures"] == 0, "{summary}");
    ensure!(stderr.contains("nobody-at-all"), "{stderr}");
    is_civil(&stderr)
}

#[test]
fn filters_select_upstreams_and_processes() -> Result<()> {
    let (namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    let of_two = Tracer::start(&["-p", &pid, "-u", "127.0.0.1:9010"])?;
    let of_everyone = Tracer::start(&["--all", "-u", "127.0.0.1:9010"])?;
    nginx.client().get("/one/")?;
    nginx.client().get("/two/")?;
    let direct = Client::new(&namespace, ([127, 0, 0, 1], 9010).into());
    ensure!(direct.get("/").is_err(), "somebody listens there");
    of_two.wait_for(1)?;
    of_everyone.wait_for(2)?;

    let account = of_two.stop()?;
    account.is_orderly()?;
    let verdict = account.only(&Endpoint::v4(9010))?;
    ensure!(nginx.workers()?.contains(&verdict.nginx.pid), "{verdict:#?}");
    ensure!(account.verdicts.len() == 1, "{:#?}", account.verdicts);

    let account = of_everyone.stop()?;
    account.is_orderly()?;
    let pids: Vec<_> = account.about(&Endpoint::v4(9010)).iter().map(|verdict| verdict.nginx.pid).collect();
    ensure!(pids == [verdict_pid(&nginx)?, std::process::id().cast_signed()], "{pids:?}");
    Ok(())
}

fn verdict_pid(nginx: &Nginx) -> Result<i32> {
    let workers = nginx.workers()?;
    ensure!(workers.len() == 1);
    Ok(workers[0])
}

#[test]
fn text_suits_where_it_goes() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    let plain = Terminal { columns: 100, colour: false };
    let cases = [
        // Where to, how much, and whether something is under the line, a fact among it, and in colour: wherever it goes, all is said.
        (None, None, (true, false, false)),
        (None, Some("-v"), (true, true, false)),
        (Some(plain), None, (true, false, false)),
        (Some(Terminal { colour: true, ..plain }), Some("-v"), (true, true, true)),
    ];
    for (terminal, verbose, (indented, facts, colour)) in cases {
        let mut arguments = vec!["-p", &pid, "-c", "1", "--no-status"];
        arguments.extend(verbose);
        let tracer = Tracer::spawn(&arguments, terminal, |_| {})?;
        nginx.client().get("/one/")?;
        let Run { stdout, stderr, status } = tracer.end()?;
        ensure!(status.success(), "{status}: {stderr}");
        let text = stdout.join("\n");
        let line = stdout.first().map(String::as_str).unwrap_or_default();
        ensure!(
            ["502", "refused/no_listener", "127.0.0.1:9009"].iter().all(|word| line.contains(word)),
            "{text}"
        );
        ensure!(stdout.get(1).is_some_and(|line| line.starts_with(' ')) == indented, "{text}");
        ensure!(text.contains("raw_tp/") == facts && text.contains('\u{1b}') == colour, "{text:?}");
        is_civil(&stderr)?;
    }
    Ok(())
}

#[test]
fn a_closed_standard_output_is_a_quiet_end() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let folder = TempDir::with_prefix("why502-cli-")?;
    let (ready, complaints) = (folder.path().join("ready"), folder.path().join("stderr"));
    let mut command = process::command(binary()?);
    command.args(["live", "-p", &nginx.master().to_string(), "--ready-file"]).arg(&ready);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(fs::File::create(&complaints)?);
    let mut why502 = process::Process::start(command)?;
    // As `| head` does when it has what it wanted.
    drop(why502.pipes().stdout.take());
    wait::until_true("why502 to attach its hooks", || Ok(ready.exists() || why502.ended()?.is_some()))?;
    let status = wait::until("why502 to end", || {
        nginx.client().get("/one/")?;
        why502.ended()
    })?;
    let stderr = fs::read_to_string(complaints)?;
    ensure!(status.success(), "{status}: {stderr}");
    ensure!(!stderr.to_lowercase().contains("broken pipe"), "{stderr}");
    is_civil(&stderr)
}
