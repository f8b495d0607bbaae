//! How `why502 backlog` is called, what a person sees, and how it ends.

use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::terminal::Terminal;
use rig::tracer::{Run, Tracer, binary, run};
use rig::{Endpoint, Namespace, process, wait};

#[test]
fn wrong_usage_is_status_2_and_names_the_word() -> Result<()> {
    let cases: [(&[&str], &str); 6] = [
        (&["127.0.0.1"], "127.0.0.1"),
        (&["run/fpm.sock"], "run/fpm.sock"),
        (&["-d", "soon"], "soon"),
        (&["--all", ":9000"], "--all"),
        (&["--fpm-pool", "/etc/www.conf"], "--verify"),
        (&["--experiment", "--verify"], "--verify"),
    ];
    for (arguments, word) in cases {
        let Run { stdout, stderr, status } = run(&[&["backlog"], arguments].concat())?;
        ensure!(status.code() == Some(2), "{arguments:?}: {status}: {stderr}");
        ensure!(stderr.contains(word) && stdout.is_empty(), "{arguments:?}: {stderr}");
    }
    Ok(())
}

#[test]
fn missing_privileges_are_status_3_and_named() -> Result<()> {
    let folder = tempfile::TempDir::with_prefix("why502-cli-")?;
    std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("why502");
    std::fs::copy(binary()?, &copy)?;
    let nobody = 65534;
    for arguments in [&["backlog", "-d", "1s"], &["backlog", "--experiment", "--output=text"]] {
        let output = process::command(&copy).args(*arguments).uid(nobody).gid(nobody).output()?;
        let stderr = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(3), "{arguments:?}: {}: {stderr}", output.status);
        ensure!(stderr.contains("root") && output.stdout.is_empty(), "{stderr}");
        ensure!(!stderr.contains("panicked"), "{stderr}");
    }
    Ok(())
}

/// Three of five clients meet a full queue and stay, and another one goes; what a person reads about it.
fn reported(terminal: Option<Terminal>, listener: &Endpoint, signal: Signal) -> Result<Run> {
    let namespace = Namespace::new()?;
    let tracer = Tracer::run_as("backlog", &[&listener.to_string()], terminal, |_| {})?;
    let _socket = namespace.listen(listener, 1)?;
    let _crowd = namespace.file(&namespace, listener, 5)?;
    drop(namespace.file(&namespace, listener, 1)?);
    wait::until_true("each SYN to be dropped", || Ok(namespace.tcp_counter("ListenOverflows")? >= 4))?;
    tracer.signal(signal)?;
    let run = tracer.end()?;
    ensure!(run.status.success() && !run.stderr.contains("panicked"), "{}: {}", run.status, run.stderr);
    ensure!(
        run.stdout.last().is_some_and(|line| line.contains("4 connections met a full queue")),
        "{}\n{}",
        // What a terminal was shown is one long line.
        run.stdout.join("\n").replace('\r', "\n"),
        run.stderr
    );
    Ok(run)
}

#[test]
fn on_a_pipe_there_are_lines_and_at_the_end_a_table() -> Result<()> {
    let run = reported(None, &Endpoint::v4(9488), Signal::SIGTERM)?;
    let text = run.stdout.join("\n");
    ensure!(!text.contains('\u{1b}'), "no colour and no cursor on a pipe: {text:?}");
    let victims = run
        .stdout
        .iter()
        .filter(|line| line.contains("its SYN was dropped") && line.contains("it was still trying"));
    ensure!(victims.count() == 3, "{text}");
    let header = run.stdout.iter().position(|line| line.starts_with("LISTENER")).context("no table")?;
    let words: Vec<&str> = run.stdout[header + 1].split_whitespace().collect();
    // Address, namespace, owner and its pid, asked, limit, fit, now, deepest.
    ensure!(words[0] == "127.0.0.1:9488" && words[4..=8] == ["1", "1", "2", "2", "2"], "{words:?}");
    ensure!(text.contains("the kernel's own count of") && text.contains("is the same"), "{text}");
    Ok(())
}

#[test]
fn on_a_terminal_the_table_is_refreshed_in_place() -> Result<()> {
    let run = reported(Some(Terminal { columns: 200, colour: true }), &Endpoint::v4(9489), Signal::SIGINT)?;
    let text = run.stdout.join("\n");
    ensure!(text.contains("\u{1b}[2K") && text.contains("LISTENER"), "{text:?}");
    Ok(())
}
