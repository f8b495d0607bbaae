//! The end-to-end tests on this machine. They wait for timers most of the time: programs whose tests watch only what they made themselves
//! run side by side, the others one after the other.

use std::{
    io::{Read as _, Write as _},
    path::Path,
    process::{Command, Stdio},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, bail};

use crate::{
    count::Count,
    interrupt::{End, Group, OnSignal},
    rig::{Kind, Program},
};

/// How many programs run at a time. In each, one test at a time does.
const LANES: usize = 4;

/// Test programs that want the machine for themselves: they keep all processors at work, measure memory or what the whole machine does, set
/// what holds for all of it, look at what another tracer would change, such as the text of a function of nginx's, or meet a server's timer.
const ALONE: [&str; 28] = [
    "attack_configuration",
    "attack_crowd",
    "attack_listeners",
    "attack_syscalls",
    "backlog",
    "backlog_claims",
    "backlog_configured",
    "cli",
    "coexistence",
    "detach",
    "doctor",
    "endurance",
    "hook_runs",
    "kernel_drops",
    "losses",
    "mixed_storm",
    "record",
    "report",
    "silence_storm",
    "soak",
    "stale_keepalive",
    "storm",
    "timers",
    "words_binaries",
    "words_hostile",
    "words_storm",
    "words_unheard",
    "words_unix",
];

/// What became of them.
pub(crate) struct Outcome {
    pub(crate) count: Count,
    /// The programs that failed.
    pub(crate) failed: Vec<Failed>,
}

/// A program that failed.
pub(crate) struct Failed {
    pub(crate) name: String,
    /// What its failed tests said, shortened.
    pub(crate) why: String,
}

/// Runs them all with this why502, also after one has failed. Of each, the output is shown once it has ended.
pub(crate) fn run(workspace: &Path, programs: &[Program], why502: &Path) -> Result<Outcome> {
    if let Some(name) = ALONE.iter().find(|name| !programs.iter().any(|program| program.name == **name)) {
        bail!("no test program is called {name}");
    }
    let tests: Vec<_> = programs.iter().filter(|program| program.kind != Kind::Part).collect();
    let (alone, beside): (Vec<_>, Vec<_>) =
        tests.into_iter().partition(|program| ALONE.contains(&program.name.as_str()));
    let folder = workspace.join("tests");
    let outcome = Mutex::new(Outcome { count: Count::default(), failed: Vec::new() });
    let run_one = |program: &Program| -> Result<()> {
        let ended = run_program(program, &folder, why502)?;
        let mut outcome = outcome.lock().map_err(|_| anyhow!("a thread panicked"))?;
        outcome.count += ended.count;
        if !ended.passed {
            outcome.failed.push(Failed { name: program.name.clone(), why: ended.why });
            // As in every check: what ended badly without a failed test case counts as one.
            outcome.count.failed += usize::from(ended.count.failed == 0);
        }
        Ok(())
    };
    alone.into_iter().try_for_each(run_one)?;
    let next = AtomicUsize::new(0);
    let lane = || {
        std::iter::from_fn(|| beside.get(next.fetch_add(1, Ordering::Relaxed)).copied()).try_for_each(run_one)
    };
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..LANES).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().try_for_each(|lane| lane.join().map_err(|_| anyhow!("a thread panicked"))?)
    })?;
    outcome.into_inner().map_err(|_| anyhow!("a thread panicked"))
}

/// How one program ended.
struct Ended {
    count: Count,
    passed: bool,
    why: String,
}

fn run_program(program: &Program, folder: &Path, why502: &Path) -> Result<Ended> {
    let started = Instant::now();
    let (mut output, write) = std::io::pipe()?;
    let mut command = Command::new(&program.path);
    command
        // Those that only this machine has all for, too: what set-up could not fetch is a failure.
        .args(["--test-threads=1", "--include-ignored"])
        .current_dir(folder)
        .env("WHY502_BIN", why502)
        .stdin(Stdio::null())
        .stdout(write.try_clone()?)
        .stderr(write);
    let group = Group::spawn(&mut command)?;
    // Its own copies of the output's other end would keep that open.
    drop(command);
    let (send, read) = mpsc::channel();
    thread::spawn(move || {
        let mut said = Vec::new();
        send.send(output.read_to_end(&mut said).map(|_| said))
    });
    let end = group.wait(OnSignal::Pass, None, |_| ())?;
    // A process that a test left behind would keep its output open for ever.
    let said = read.recv_timeout(Duration::from_secs(5));
    let mut stdout = std::io::stdout().lock();
    let mut passed = match end {
        End::Exited(status) => status.success(),
        End::TimedOut => false,
        End::Interrupted(signal) => bail!("{} interrupted by {signal}", program.name),
    };
    let said = if let Ok(said) = said {
        said.with_context(|| format!("the output of {} cannot be read", program.name))?
    } else {
        passed = false;
        b"a process was left behind that still holds the output\n".to_vec()
    };
    let (how, seconds) = (if passed { "passed" } else { "failed" }, started.elapsed().as_secs_f64());
    // Whoever reads our output may have gone; the tests go on.
    let _ = writeln!(stdout, "     {} {how} in {seconds:.1} s", program.name)
        .and_then(|()| stdout.write_all(&said));
    let said = String::from_utf8_lossy(&said);
    let count = said.lines().map(Count::of_line).fold(Count::default(), |mut sum, count| {
        sum += count;
        sum
    });
    Ok(Ended { count, passed, why: why(&said) })
}

/// What failed tests said, of the output of a program of theirs: the beginning of each one's, without the way there; the end of the
/// output where it is not that of tests.
fn why(said: &str) -> String {
    /// Lines of each failure: the message is among the first, with an account in it, maybe.
    const LINES: usize = 40;
    /// Letters of a line: one may be a whole account.
    const LETTERS: usize = 400;
    // A panic's, and an error's.
    let is_backtrace = |line: &str| line.eq_ignore_ascii_case("stack backtrace:");
    let lines: Vec<_> = match said.split_once("\nfailures:\n") {
        Some((_, failures)) => failures
            .split("\n---- ")
            .skip(1)
            .flat_map(|failure| failure.lines().take_while(|line| !is_backtrace(line)).take(LINES))
            .filter(|line| !line.is_empty())
            .collect(),
        None => said.lines().skip(said.lines().count().saturating_sub(LINES)).collect(),
    };
    lines.iter().map(|line| format!("    {}\n", line.chars().take(LETTERS).collect::<String>())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_failed_tests_said_is_shown_without_the_way_there() {
        let said = "test a ... FAILED\ntest b ... ok\n\nfailures:\n\n---- a stdout ----\nError: grew\n\nstack backtrace:\n  0: main\n\n\nfailures:\n    a\n";
        assert_eq!(why(said), "    a stdout ----\n    Error: grew\n");
        let said = said.replace("stack", "Stack");
        assert_eq!(why(&said), "    a stdout ----\n    Error: grew\n");
        assert_eq!(why("one\ntwo\n"), "    one\n    two\n");
    }
}
