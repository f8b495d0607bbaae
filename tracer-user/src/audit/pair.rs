//! The two halves of a pair: what nginx logged, and a verdict.

use super::line::Failure;
use crate::model::{cause::Cause, upstream::Upstream};

/// A failure that nginx logged.
#[derive(Clone, Debug)]
pub struct Logged {
    /// The beginning of the second it was logged in (ns since 1970).
    pub at: i64,
    /// When it was read.
    pub since: i64,
    /// What it says.
    pub failure: Failure,
    /// The whole line.
    pub line: String,
    /// Whether it needs an explanation; if not, it only counts once it has one.
    pub counts: bool,
}

/// A verdict.
#[derive(Clone, Debug)]
pub struct Explained {
    /// When nginx's end ended (ns since 1970).
    pub at: i64,
    /// When it was given.
    pub since: i64,
    /// The nginx worker, as its own pid namespace counts.
    pub logged_pid: u32,
    /// The nginx worker.
    pub pid: u32,
    /// Where the exchange went.
    pub upstream: Upstream,
    /// Why it failed.
    pub cause: Cause,
    /// The error nginx met, by name.
    pub errno: Option<String>,
    /// What nginx should have written.
    pub error_log: Option<String>,
    /// Whether it was given to the user; if not, it only takes its line out of the way.
    pub counts: bool,
}

impl Logged {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let Failure { errno, text, upstream, .. } = &self.failure;
        let errno = errno.as_ref().map_or(0, String::len);
        size_of::<Self>() + self.line.len() + text.len() + errno + upstream.bytes()
    }
}

impl Explained {
    /// What it takes in memory.
    pub fn bytes(&self) -> usize {
        let path = match &self.upstream {
            Upstream::Inet(_) => 0,
            Upstream::Unix(path) => path.as_os_str().len(),
            Upstream::Named(name) => name.len(),
        };
        let texts = [&self.errno, &self.error_log].into_iter().flatten().map(String::len).sum::<usize>();
        size_of::<Self>() + path + texts
    }
}
