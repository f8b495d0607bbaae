//! What `why502 live` says of each failure.

use std::io::{IsTerminal, Write, stdout};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use anyhow::{Result, ensure};
use nix::sys::signal::Signal;
use rig::incident::{BREATH, Incident};
use rig::recorder::Recorder;
use rig::terminal::Terminal;
use rig::tracer::Run;
use rig::{Namespace, Tracer, wait};

use crate::say;

/// Breaks it in every way, and lets why502 explain each.
pub fn show(namespace: &Namespace) -> Result<()> {
    say("Starting nginx and php-fpm in a network namespace of their own.");
    let mut stage = Incident::set(namespace, say)?;
    let master = stage.nginx().master().to_string();
    let verdicts = Arc::new(AtomicUsize::new(0));
    let (seen, terminal) = (Arc::clone(&verdicts), terminal());
    // Recorded for the pictures of `why502 top`, where that is wanted.
    let wanted = std::env::var_os("WHY502_DEMO_EVIDENCE");
    let recorder = wanted.as_ref().map(|_| Recorder::start(&["-p", &master])).transpose()?;
    let tracer = Tracer::spawn(&["-p", &master, "--no-status"], Some(terminal), move |line| {
        let _ = writeln!(stdout(), "{line}");
        // A verdict has a status behind its time; what belongs to it is indented.
        let status = line.split_whitespace().nth(1).filter(|_| !line.starts_with(' '));
        if status.is_some_and(|status| status == "---" || status.parse::<u16>().is_ok()) {
            seen.fetch_add(1, Ordering::Relaxed);
        }
    })?;
    say(&format!("why502 live -p {master}: attached, watching nginx."));

    stage.healthy()?;
    let mut expected = 0;
    for (scene, its) in Incident::SCENES {
        scene(&mut stage)?;
        expected += its;
        wait::until_true("why502's verdict", || Ok(verdicts.load(Ordering::Relaxed) >= expected))?;
        thread::sleep(BREATH);
    }

    if let (Some(file), Some(recorder)) = (wanted, recorder) {
        std::fs::copy(recorder.stop()?.file(), file)?;
    }
    say("Ctrl-C for why502, which sums up:");
    tracer.signal(Signal::SIGINT)?;
    let Run { stderr, status, .. } = tracer.end()?;
    ensure!(status.success(), "why502 ended with {status}: {stderr}");
    let logged = stage.nginx().failures().len();
    say(&format!(
        "nginx's own error log has {logged} lines about them, and says of hardly any of them more than an errno."
    ));
    Ok(())
}

/// Like the terminal that this runs on.
fn terminal() -> Terminal {
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    let columns = terminal_size::terminal_size_of(stdout()).map_or(110, |(width, _)| width.0);
    Terminal { columns, colour: stdout().is_terminal() && wanted }
}
