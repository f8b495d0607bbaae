//! Whether nginx's word on an exchange would have been heard, had there been one: then its silence is evidence.
//!
//! nginx says what is of level error unless its configuration keeps that back. Its workers have the configuration that the files said when
//! they were started, so it is read once for all that a start or a reload made, and not believed where a file has changed since.

use std::{collections::HashMap, time::Duration};

use procfs::process::Process;
use wire::NginxEnd;

use super::configurations::Configurations;
use crate::{
    load::{Binary, Tracer, binary},
    model::{
        budget,
        clock::{monotonic_ns, nanoseconds},
    },
};

/// For how long a pid is taken for the process that it was.
const FRESH: Duration = Duration::from_secs(1);

/// The processes that have had exchanges.
#[derive(Debug, Default)]
pub(super) struct Audible(HashMap<u32, Speaker>);

/// A process that may say something.
#[derive(Clone, Copy, Debug)]
struct Speaker {
    /// In ticks since the host's start.
    started: u64,
    binary: Binary,
    /// None as long as its configuration could not be read in time.
    says_errors: Option<bool>,
    looked_ns: u64,
}

impl Audible {
    /// Whether nginx's word on this exchange, which has just ended, would have been heard.
    pub(super) fn is(
        &mut self,
        tracer: &Tracer,
        configurations: &mut Configurations,
        nginx: &NginxEnd,
    ) -> bool {
        let began_ns =
            if nginx.exchange > 1 { nginx.first_sent_ns.max(nginx.connect_ns) } else { nginx.connect_ns };
        self.look(nginx.nginx.tgid, configurations);
        self.0.get(&nginx.nginx.tgid).is_some_and(|speaker| {
            speaker.says_errors == Some(true)
                && tracer.heard_since(speaker.binary).is_some_and(|since| since <= began_ns)
        })
    }

    /// Asks again for those whose configuration could not be read in time: once they have ended, nobody can say whose it was.
    pub(super) fn catch_up(&mut self, configurations: &mut Configurations) {
        let unknown = self.0.iter().filter(|(_, speaker)| speaker.says_errors.is_none());
        let unknown: Vec<u32> = unknown.map(|(pid, _)| *pid).collect();
        for pid in unknown {
            self.look(pid, configurations);
        }
    }

    /// The process runs another program from now on.
    pub(super) fn forget(&mut self, pid: u32) {
        self.0.remove(&pid);
    }

    /// Finds out about a process, and keeps it for when it has ended.
    pub(super) fn look(&mut self, pid: u32, configurations: &mut Configurations) {
        let now = monotonic_ns();
        let known = self.0.get(&pid).copied();
        if known.is_some_and(|known| now < known.looked_ns + nanoseconds(FRESH)) {
            return;
        }
        // What has ended was what it was.
        let (Some((started, parent)), Some(binary)) = (stat(pid), binary(pid)) else { return };
        let known = known.filter(|known| known.started == started && known.binary == binary);
        let says_errors = known.and_then(|known| known.says_errors).or_else(|| {
            // The master may be itself.
            let master = if self::binary(parent) == Some(binary) { parent } else { pid };
            configurations.ask(move |masters| masters.says_errors(master, started))
        });
        if self.0.len() >= budget::SPEAKERS {
            self.0.clear();
        }
        self.0.insert(pid, Speaker { started, binary, says_errors, looked_ns: now });
    }
}

/// When a process was started, in ticks since the host's start, and its parent; none if it has ended.
fn stat(pid: u32) -> Option<(u64, u32)> {
    let stat = Process::new(pid.cast_signed()).and_then(|process| process.stat()).ok()?;
    Some((stat.starttime, stat.ppid.cast_unsigned()))
}
