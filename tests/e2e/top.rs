//! `why502 top` in a real terminal: keys go in, and the screen is read.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::incident::Incident;
use rig::recorder::report;
use rig::terminal::Terminal;
use rig::tmux::Tmux;
use rig::tracer::{Run, binary, run};
use rig::{Endpoint, Location, Namespace, Nginx, Tracer, process, wait};

/// Evidence that every later version reads: a pool of workers that could not keep up, one killed worker, a port without a listener.
fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/evidence-1.zst")
}

/// What the shell is to run: why502 top with these arguments, in this terminal's folder.
fn top(tmux: &Tmux, arguments: &[&str]) -> Result<String> {
    let why502 = binary()?;
    let folder = tmux.folder().display();
    Ok(format!("cd {folder}; {} top {}", why502.display(), arguments.join(" ")))
}

/// Runs it as a process of which the pid is known.
fn start(tmux: &Tmux, arguments: &[&str]) -> Result<i32> {
    let file = tmux.folder().join("pid");
    let _ = fs::remove_file(&file);
    let command = top(tmux, arguments)?.replace("; ", "; sh -c 'echo $$ > pid; exec ") + "'";
    tmux.line(&command)?;
    tmux.wait_for("why502 top  ")?;
    fs::read_to_string(file)?.trim().parse().context("a pid")
}

/// What each view has to show of the incident, whoever shows it.
const SHOWN: [(&str, &[&str]); 3] = [
    (
        "1",
        &[
            "refused/no_listener",
            "reset/worker_killed",
            "accept_queue_overflow/syn_dropped",
            "read_timeout/never_accepted",
            "read_timeout/slow_worker",
            "premature_close/response_cut_short",
            "127.0.0.1:19001",
        ],
    ),
    ("3", &["127.0.0.1:19003", "LISTENER", "DEEPEST"]),
    ("4", &["SIGTERM", "SIGKILL", "php-fpm", "127.0.0.1:19002"]),
];

fn shows_the_incident(tmux: &Tmux) -> Result<()> {
    for (key, words) in SHOWN {
        tmux.press(&[key])?;
        for word in words {
            tmux.wait_for(word)?;
        }
    }
    // A failure is found by typing, and unfolded.
    tmux.press(&["2"])?;
    tmux.wait_for("STATUS")?;
    tmux.press(&["/"])?;
    tmux.press(&["s", "i", "g", "k", "i", "l", "l"])?;
    tmux.wait_until("only the worker that was killed by hand", |screen| {
        screen.matches("reset/worker_killed").count() == 1 && screen.contains("only what has: sigkill")
    })?;
    tmux.press(&["Enter"])?;
    tmux.wait_for("only /sigkill")?;
    tmux.press(&["Enter"])?;
    for word in ["sent SIGKILL to", "more: why502 explain reset/worker_killed"] {
        tmux.wait_for(word)?;
    }
    tmux.press(&["Escape"])?;
    tmux.wait_for("STATUS")?;
    tmux.press(&["Escape"])?;
    tmux.wait_for("Enter unfold")?;
    tmux.press(&["5"])?;
    for word in ["What nginx says of its upstreams", "master of", "recv() failed", "no live upstreams"] {
        tmux.wait_for(word)?;
    }
    tmux.press(&["?"])?;
    tmux.wait_for("This host, as it is now.")?;
    tmux.press(&["End"])?;
    tmux.wait_for("why502 backlog: Every connection's wait")?;
    tmux.press(&["?"])?;
    tmux.wait_for("master of")?;
    Ok(())
}

/// What a listener's row has in a column of figures, as far as its last word; none where there is no such row.
fn figure(screen: &str, listener: &str, column: &str) -> Option<String> {
    let header = screen.lines().find(|line| line.contains("LISTENER"))?;
    let end = header[..header.find(column)? + column.len()].chars().count();
    let row = screen.lines().find(|line| line.starts_with(listener))?;
    let upto: String = row.chars().take(end).collect();
    upto.split_whitespace().last().map(str::to_owned)
}

#[test]
fn the_demos_incident_is_in_every_view_live_and_from_its_file() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut incident = Incident::set(&namespace, |_| {})?;
    let tmux = Tmux::start(120, 40, &[])?;
    let master = incident.nginx().master().to_string();
    tmux.line(&top(&tmux, &["-p", &master, "--ready-file", "ready"])?)?;
    wait::until_true("why502 top to attach its hooks", || Ok(tmux.folder().join("ready").exists()))
        .with_context(|| tmux.screen().unwrap_or_default())?;
    tmux.wait_for("no exchange has failed yet")?;
    // Of every connection it is known how long it waited, once the hooks for that are attached: while the queues are on the screen.
    tmux.press(&["3"])?;
    wait::until_true("the wait of a connection that is well", || {
        ensure!(incident.nginx().client().get("/plain/ok.php")?.status == 200);
        let waited = figure(&tmux.screen()?, "127.0.0.1:19002", "WAIT P50");
        Ok(waited.is_some_and(|waited| waited != "-"))
    })?;
    incident.healthy()?;
    let mut expected = 0;
    for (scene, its) in Incident::SCENES {
        scene(&mut incident)?;
        expected += its;
        tmux.wait_for(&format!("{expected} failed"))?;
    }
    tmux.wait_until("that a queue overflowed, and that the others did not", |screen| {
        let overflows = |listener| figure(screen, listener, "OVERFLOWS");
        let (full, others) = (overflows("127.0.0.1:19003"), overflows("127.0.0.1:19002"));
        full.and_then(|count| count.parse().ok()).is_some_and(|count: u32| count > 0)
            && others.as_deref() == Some("-")
    })?;
    shows_the_incident(&tmux)?;
    // The pool's workers are looked at while they are shown: all wait for a connection now.
    tmux.press(&["4"])?;
    tmux.wait_until("idle workers", |screen| {
        let line = screen.lines().find(|line| line.starts_with("127.0.0.1:19004"));
        line.is_some_and(|line| line.split_whitespace().nth(3) == Some("1"))
    })?;

    // Kept for a report, and played back.
    tmux.press(&["s"])?;
    tmux.wait_for("wrote why502-top.zst")?;
    let file = tmux.folder().join("why502-top.zst");
    ensure!(report(&[&file])?.verdicts.len() == expected);
    // Copied: the failure that was unfolded last is still the selected one.
    tmux.press(&["2"])?;
    tmux.press(&["y"])?;
    tmux.wait_for("copied to why502-failure-1.txt")?;
    tmux.press(&["Y"])?;
    tmux.wait_for("copied to why502-failure-1.json")?;
    let text = fs::read_to_string(tmux.folder().join("why502-failure-1.txt"))?;
    ensure!(text.contains("sent SIGKILL to") && text.contains("raw_tp/"), "{text}");
    let json = fs::read_to_string(tmux.folder().join("why502-failure-1.json"))?;
    ensure!(serde_json::from_str::<serde_json::Value>(&json)?["type"] == "verdict", "{json}");
    tmux.press(&["q"])?;
    tmux.wait_for(&format!("watched {expected} failures"))?;

    tmux.line("clear")?;
    tmux.wait_until("an empty screen", |screen| !screen.contains("watched"))?;
    tmux.line(&top(&tmux, &["why502-top.zst"])?)?;
    tmux.wait_for("the end of the file")?;
    tmux.wait_for(&format!("{expected} failed"))?;
    shows_the_incident(&tmux)?;
    tmux.press(&["q"])?;
    Ok(())
}

#[test]
fn the_terminal_is_left_as_it_was_after_a_key_a_signal_and_a_fault() -> Result<()> {
    let tmux = Tmux::start(100, 30, &[])?;
    let golden = golden();
    let file = golden.to_str().context("a path")?;
    tmux.line(&format!("cd {}; stty -g > before; echo was there before", tmux.folder().display()))?;
    tmux.wait_for("\nwas there before")?;
    let before = fs::read_to_string(tmux.folder().join("before"))?;
    for how in ["q", "SIGTERM", "SIGINT", "!"] {
        let pid = start(&tmux, &["--fault-key", file])?;
        ensure!(tmux.knows("#{alternate_on} #{cursor_flag}")? == "1 0", "{how}");
        ensure!(!tmux.screen()?.contains("was there before"), "{how}: {}", tmux.screen()?);
        match how {
            "SIGTERM" => process::send(pid, Signal::SIGTERM)?,
            "SIGINT" => process::send(pid, Signal::SIGINT)?,
            key => tmux.press(&[key])?,
        }
        wait::until_true("the terminal to be given back", || {
            Ok(tmux.knows("#{alternate_on} #{cursor_flag}")? == "0 1")
        })
        .with_context(|| how.to_owned())?;
        wait::until_true("why502 to end", || Ok(process::state(pid).is_none()))?;
        tmux.wait_for("was there before")?;
        if how == "!" {
            tmux.wait_for("this is a fault of why502 itself")?;
        }
        tmux.line("stty -g > after; echo compared")?;
        tmux.wait_for("\ncompared")?;
        ensure!(fs::read_to_string(tmux.folder().join("after"))? == before, "{how}");
        tmux.line("clear; echo was there before")?;
        tmux.wait_until("a screen that begins anew", |screen| {
            screen.contains("was there before") && !screen.contains("compared")
        })?;
    }
    Ok(())
}

#[test]
fn it_fits_any_size_without_colours_where_none_are_wanted() -> Result<()> {
    let golden = golden();
    let file = golden.to_str().context("a path")?;
    for (no_colour, has_colour) in [("", true), ("1", false)] {
        let tmux = Tmux::start(80, 24, &[("NO_COLOR", no_colour)])?;
        start(&tmux, &[file])?;
        tmux.wait_for("38 failed")?;
        for (columns, lines) in [(80, 24), (200, 60), (60, 12), (30, 5), (120, 30)] {
            tmux.resize(columns, lines)?;
            let is_enough = columns >= 40;
            let words = if is_enough { "1 causes  2 failures" } else { "why502 top needs 40 columns" };
            let words: String = words.chars().take(columns.into()).collect();
            tmux.wait_for(words.trim_end())?;
            if is_enough {
                for (key, word) in
                    [("1", "CAUSE"), ("2", "STATUS"), ("3", "LISTENER"), ("4", "POOL"), ("5", "PID")]
                {
                    tmux.press(&[key])?;
                    let screen = tmux.wait_for(word)?;
                    ensure!(screen.lines().all(|line| line.chars().count() <= columns.into()), "{screen}");
                }
                tmux.press(&["1"])?;
            }
        }
        tmux.wait_for("accept_queue_overflow/syn_dropped")?;
        // The terminal's own red, green or yellow, as tmux writes them.
        let styled = tmux.styled()?;
        let codes = ["38;5;1m", "38;5;2m", "38;5;3m", "31m", "32m", "33m"];
        let is_coloured = codes.iter().any(|code| styled.contains(code));
        ensure!(is_coloured == has_colour, "{styled:?}");
        tmux.press(&["q"])?;
    }
    Ok(())
}

#[test]
fn a_file_is_played_as_fast_as_asked_for_and_only_a_terminal_is_drawn_on() -> Result<()> {
    let golden = golden();
    let file = golden.to_str().context("a path")?;
    // Six seconds of evidence: the end comes after some of it was seen, and not at once.
    let tmux = Tmux::start(100, 30, &[])?;
    start(&tmux, &["--speed", "3", file])?;
    tmux.wait_for("from a file")?;
    tmux.wait_for("the end of the file")?;
    tmux.wait_for("38 failed")?;
    tmux.press(&["q"])?;
    let Run { stdout, stderr, status } = run(&["top", file])?;
    ensure!(status.code() == Some(1) && stdout.is_empty(), "{status}: {stdout:?}");
    ensure!(stderr.contains("draws on a terminal") && stderr.contains("why502 report"), "{stderr}");
    Ok(())
}

#[test]
fn live_has_a_status_line_on_a_terminal_and_the_same_text_in_a_pipe() -> Result<()> {
    let namespace = Namespace::new()?;
    let nginx = Nginx::on(&namespace).location(Location::fastcgi("/one/", &Endpoint::v4(9009))).start()?;
    let pid = nginx.master().to_string();
    let plain = Terminal { columns: 110, colour: false };
    let mut texts = Vec::new();
    for (terminal, has_status) in [(Some(plain), true), (None, false)] {
        let tracer = Tracer::spawn(&["-p", &pid], terminal, |_| {})?;
        nginx.client().get("/one/")?;
        tracer.lines().wait("a verdict", |lines| lines.iter().any(|line| line.contains("more: why502")))?;
        tracer.signal(Signal::SIGINT)?;
        let Run { stdout, stderr, status } = tracer.end()?;
        ensure!(status.success(), "{status}: {stderr}");
        let text = stdout.join("\n");
        ensure!(text.contains("nothing lost, ") == has_status, "{text:?}");
        ensure!(has_status || !text.contains('\u{1b}'), "{text:?}");
        // From the explanation on: before it, the time differs.
        let lines = text.split('\n').skip_while(|line| !line.starts_with("              ")).take(3);
        texts.push(lines.map(|line| line.trim_end().to_owned()).collect::<Vec<_>>());
    }
    ensure!(texts[0] == texts[1] && texts[0].len() == 3, "{texts:#?}");
    Ok(())
}
