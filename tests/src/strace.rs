//! `why502` under strace: every system call that it makes, in the order in which they return.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};

use anyhow::{Context, Result};
use nix::sys::signal::Signal;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::process::{self, Pid, Process};
use crate::tracer::{binary, only};
use crate::wait;

/// What is left out: they name neither a file nor a descriptor nor a process, and there are many of them.
const SILENT: &str = "!futex,madvise,munmap,brk,mprotect,mremap,clock_nanosleep,epoll_wait,poll,rt_sigprocmask,rt_sigaction,\
    sigaltstack,sched_yield,sched_getaffinity,rseq,set_robust_list,getrandom,restart_syscall";

/// A `why502` that strace watches, killed when dropped.
#[derive(Debug)]
pub struct Strace {
    process: Process,
    stdout: Lines,
    stderr: Lines,
    folder: TempDir,
}

/// What became of it.
#[derive(Debug)]
pub struct Traced {
    /// Its calls.
    pub calls: Vec<Call>,
    /// Its pid.
    pub pid: Pid,
    /// Its standard output.
    pub stdout: Vec<String>,
    /// Its standard error.
    pub stderr: String,
    /// How it ended.
    pub status: ExitStatus,
}

/// A system call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// The thread that made it.
    pub thread: Pid,
    /// The call's name.
    pub name: String,
    /// Its arguments, as strace shows them: `3</etc/passwd>`, `"/etc/passwd"`, `O_RDONLY|O_CLOEXEC`.
    pub arguments: Vec<String>,
    /// What it returned, or nothing if it did not return, or is a `close`, which is over for all others once it begins.
    pub result: Option<i64>,
}

impl Strace {
    /// Starts a command of `why502` that has `--ready-file`, and waits until every hook is attached.
    pub fn start(arguments: &[&str]) -> Result<Strace> {
        let mut strace = Strace::spawn(arguments, true)?;
        let ready = strace.ready();
        strace.process.wait_ready("why502 under strace", &ready, &strace.stderr)?;
        Ok(strace)
    }

    /// Runs a command of `why502` to its own end.
    pub fn run(arguments: &[&str]) -> Result<Traced> {
        Strace::spawn(arguments, false)?.finish()
    }

    fn spawn(arguments: &[&str], has_hooks: bool) -> Result<Strace> {
        let folder = TempDir::with_prefix("why502-strace-")?;
        let mut command = process::command(process::find_program(&["strace"])?);
        // As a grandchild, so that what was started is why502 itself, and signals reach it.
        command.args(["--daemonize", "--follow-forks", "--quiet=attach,personality", "--decode-fds=path"]);
        command
            .args(["--string-limit=32", "--trace", SILENT])
            .arg("--output")
            .arg(folder.path().join("trace"));
        command.arg(binary()?).args(arguments);
        if has_hooks {
            command.args(only()).arg("--ready-file").arg(folder.path().join("ready"));
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process::start(command)?;
        let pipes = process.pipes();
        let stdout = Lines::collect(pipes.stdout.take().context("a pipe for standard output")?, |_| {});
        let stderr = Lines::collect(pipes.stderr.take().context("a pipe for standard error")?, |_| {});
        Ok(Strace { process, stdout, stderr, folder })
    }

    /// The file by which it says that it is ready.
    pub fn ready(&self) -> PathBuf {
        self.folder.path().join("ready")
    }

    /// Its standard output, line by line.
    pub fn lines(&self) -> &Lines {
        &self.stdout
    }

    /// Ends it as Ctrl-C does.
    pub fn stop(self) -> Result<Traced> {
        self.process.signal(Signal::SIGINT)?;
        self.finish()
    }

    /// Waits for its own end.
    pub fn finish(mut self) -> Result<Traced> {
        let status = self.process.wait().context("why502 does not end under strace")?;
        let pid = self.process.pid();
        let text = whole(&self.folder.path().join("trace"), pid)?;
        let (stdout, stderr) = (self.stdout.finish()?, self.stderr.finish()?.join("\n"));
        Ok(Traced { calls: calls(&text)?, pid, stdout, stderr, status })
    }
}

/// What strace has written, once it has written that the process has ended.
fn whole(trace: &Path, pid: Pid) -> Result<String> {
    let pid = pid.to_string();
    let is_last = |line: &str| {
        line.split_once(' ').is_some_and(|(thread, said)| thread == pid && said.contains("+++ "))
    };
    let read = || -> std::io::Result<String> { Ok(String::from_utf8_lossy(&fs::read(trace)?).into_owned()) };
    let waited = wait::until("strace to write the end", || {
        let text = read().with_context(|| format!("reading {}", trace.display()))?;
        let is_whole = text.ends_with('\n') && text.lines().any(is_last);
        Ok(is_whole.then_some(text))
    });
    waited.with_context(|| match read() {
        Ok(text) => format!("its last lines: {:#?}", text.lines().rev().take(5).collect::<Vec<_>>()),
        Err(error) => format!("its file cannot be read: {error}"),
    })
}

/// Reads a trace. A call that another thread interrupts is in two lines, and is put together.
///
/// # Errors
/// Names the first line that it does not understand: what is not understood must not pass as harmless.
pub fn calls(text: &str) -> Result<Vec<Call>> {
    let mut calls = Vec::new();
    let mut unfinished: HashMap<Pid, String> = HashMap::new();
    for line in text.lines() {
        let understand = || format!("strace said what cannot be understood: {line}");
        let (thread, said) = line.split_once(' ').with_context(understand)?;
        let (thread, said) = (thread.parse::<Pid>().with_context(understand)?, said.trim_start());
        // A signal, or an end.
        if said.starts_with("--- ") || said.starts_with("+++ ") {
            continue;
        }
        if let Some(begun) = said.strip_suffix("<unfinished ...>") {
            let begun = begun.trim_end();
            if begun.starts_with("close(") {
                calls.push(call(thread, begun.trim_end_matches(')'), None).with_context(understand)?);
            }
            unfinished.insert(thread, begun.to_owned());
            continue;
        }
        let resumed = said.strip_prefix("<... ").and_then(|rest| rest.split_once(" resumed>"));
        let said = match resumed {
            Some((_name, rest)) => {
                let begun = unfinished.remove(&thread).with_context(understand)?;
                if begun.starts_with("close(") {
                    continue;
                }
                let gap = if rest.starts_with([',', ')']) || begun.ends_with(['(', ' ']) { "" } else { " " };
                format!("{begun}{gap}{}", rest.trim_start())
            }
            None => said.to_owned(),
        };
        let (made, returned) = said.rsplit_once(" = ").with_context(understand)?;
        let made = made.trim_end().strip_suffix(')').with_context(understand)?;
        calls.push(call(thread, made, number(returned)).with_context(understand)?);
    }
    // Those of threads that the process's end found waiting.
    for (thread, begun) in unfinished {
        if !begun.starts_with("close(") {
            calls.push(call(thread, begun.trim_end_matches(')'), None).context("a call without an end")?);
        }
    }
    Ok(calls)
}

/// The number at the beginning of what a call returned: `3</etc/passwd>`, `-1 ENOENT (...)`, `0x1 (flags FD_CLOEXEC)`, `?`.
fn number(returned: &str) -> Option<i64> {
    let word = returned.split([' ', '<']).next()?;
    match word.strip_prefix("0x") {
        Some(hexadecimal) => i64::from_str_radix(hexadecimal, 16).ok(),
        None => word.parse().ok(),
    }
}

fn call(thread: Pid, made: &str, result: Option<i64>) -> Option<Call> {
    let (name, arguments) = made.split_once('(')?;
    Some(Call { thread, name: name.to_owned(), arguments: split(arguments), result })
}

/// The arguments, parted at the commas that stand in no string, structure, or name of a descriptor.
fn split(arguments: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let (mut depth, mut before) = (0_usize, ' ');
    let (mut is_string, mut is_escaped, mut is_descriptor) = (false, false, false);
    let mut letters = arguments.chars().peekable();
    while let Some(letter) = letters.next() {
        if is_string {
            is_string = is_escaped || letter != '"';
            is_escaped = letter == '\\' && !is_escaped;
        } else if is_descriptor {
            is_descriptor = letter != '>';
        } else {
            match letter {
                '"' => is_string = true,
                // Not `1<<CAP_BPF`.
                '<' if before.is_ascii_alphanumeric() => is_descriptor = letters.peek() != Some(&'<'),
                '(' | '[' | '{' => depth += 1,
                ')' | ']' | '}' => depth = depth.saturating_sub(1),
                ',' if depth == 0 => {
                    parts.push(String::new());
                    before = ' ';
                    continue;
                }
                _ => {}
            }
        }
        before = letter;
        if let Some(part) = parts.last_mut() {
            part.push(letter);
        }
    }
    let parts = parts.into_iter().map(|part| part.trim().to_owned());
    parts.filter(|part| !part.is_empty()).collect()
}

impl Call {
    /// An argument, or nothing where it has fewer.
    pub fn argument(&self, number: usize) -> &str {
        self.arguments.get(number).map_or("", String::as_str)
    }

    /// The descriptor that an argument names, and what strace says that it is: `3</etc/passwd>`.
    pub fn descriptor(&self, number: usize) -> Option<(i32, &str)> {
        let (descriptor, name) = self.argument(number).split_once('<')?;
        Some((descriptor.parse().ok()?, name.strip_suffix('>')?))
    }

    /// What a path in an argument means: below the directory of the argument before it, unless it begins at the root.
    pub fn path(&self, number: usize) -> Option<PathBuf> {
        let path = self.argument(number).strip_prefix('"')?.strip_suffix('"')?;
        let folder = number.checked_sub(1).and_then(|before| self.argument(before).split_once('<'));
        let folder = folder.and_then(|(_descriptor, folder)| folder.strip_suffix('>')).unwrap_or_default();
        Some(Path::new(folder).join(path))
    }

    /// The call as strace shows it.
    pub fn shown(&self) -> String {
        let result = self.result.map_or_else(|| "?".to_owned(), |result| result.to_string());
        format!("{}({}) = {result}", self.name, self.arguments.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn only(text: &str) -> Call {
        let mut calls = calls(text).unwrap();
        assert_eq!(calls.len(), 1, "{calls:#?}");
        calls.remove(0)
    }

    #[test]
    fn a_call_is_read_with_its_descriptors_and_paths() {
        let call = only(
            "7     openat(5</proc/12>, \"ns/net\", O_RDONLY|O_CLOEXEC) = 9</proc/12/ns/net>\n7 +++ exited with 0 +++\n",
        );
        assert_eq!((call.thread, call.name.as_str(), call.result), (7, "openat", Some(9)));
        assert_eq!(call.descriptor(0), Some((5, "/proc/12")));
        assert_eq!(call.path(1), Some(PathBuf::from("/proc/12/ns/net")));
        assert_eq!(call.argument(2), "O_RDONLY|O_CLOEXEC");
        let call = only(
            "7 openat(AT_FDCWD</root>, \"/etc/passwd\", O_RDONLY) = -1 ENOENT (No such file or directory)\n",
        );
        assert_eq!((call.path(1), call.result), (Some(PathBuf::from("/etc/passwd")), Some(-1)));
    }

    #[test]
    fn a_call_that_another_thread_interrupts_is_put_together() {
        let text = "7 openat(AT_FDCWD</>, \"a\", O_RDONLY <unfinished ...>\n\
                    8 read(3</a, b) = 1>,  <unfinished ...>\n\
                    7 <... openat resumed>)          = 4</a>\n\
                    8 <... read resumed>\"x) = 5, \\\"\"..., 10) = 10\n";
        let calls = calls(text).unwrap();
        assert_eq!(calls[0].arguments, ["AT_FDCWD</>", "\"a\"", "O_RDONLY"]);
        assert_eq!(calls[0].result, Some(4));
        assert_eq!(calls[1].arguments, ["3</a, b) = 1>", "\"x) = 5, \\\"\"...", "10"]);
        assert_eq!((calls[1].thread, calls[1].result), (8, Some(10)));
    }

    #[test]
    fn a_close_is_over_once_it_begins() {
        let text = "7 close(3</a> <unfinished ...>\n8 dup(1</b>) = 3</b>\n7 <... close resumed>) = 0\n";
        let names: Vec<String> = calls(text).unwrap().into_iter().map(|call| call.name).collect();
        assert_eq!(names, ["close", "dup"]);
    }

    #[test]
    fn structures_are_one_argument_each() {
        let call =
            only("7 connect(3<socket:[9]>, {sa_family=AF_INET, sin_port=htons(80), a=[1, 2]}, 16) = 0\n");
        assert_eq!(call.arguments.len(), 3);
        assert_eq!(call.argument(1), "{sa_family=AF_INET, sin_port=htons(80), a=[1, 2]}");
    }

    #[test]
    fn what_is_not_understood_is_an_error() {
        assert!(calls("7 what is this\n").is_err());
        assert!(calls("strace: something happened\n").is_err());
        assert!(calls("7 <... read resumed>\"\", 1) = 0\n").is_err());
    }
}
