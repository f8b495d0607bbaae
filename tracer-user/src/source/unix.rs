//! When unix sockets are watched, where that takes hooks on system calls: they slow each of the host's a little, so they wait until they
//! are needed. nginx's configuration says so before it uses one; where it says nothing, its use does.

use procfs::process::Process;

use super::{configurations::Configurations, masters::UnixUpstreams};
use crate::{args::Trace, load::Tracer, model::upstream::UpstreamFilter, procfs::trust};

/// How it is known that unix sockets are in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Use {
    /// This nginx is configured so.
    Configured(u32),
    /// This one held a connection when the tracer started.
    Connected(u32),
    /// One has sent on such a connection, or has failed to make one.
    Seen,
}

/// Begins to watch unix sockets once it is known that they are in use.
#[derive(Debug)]
pub(super) struct Unix {
    /// They are to be watched, and are not yet.
    is_awaited: bool,
    /// How it is known that they are in use.
    by: Option<Use>,
    is_verbose: bool,
    /// Whether it was reported that it cannot be known before they are seen in use.
    has_reported_unknown: bool,
}

impl Unix {
    /// Nothing is known yet.
    pub(super) fn new(tracer: &Tracer, args: &Trace, is_verbose: bool) -> Self {
        let is_asked_for = args.upstreams.is_empty()
            || args.upstreams.iter().any(|upstream| matches!(upstream, UpstreamFilter::Unix(_)));
        let is_awaited = is_asked_for && tracer.may_trace_system_calls();
        Self { is_awaited, by: None, is_verbose, has_reported_unknown: false }
    }

    /// Watches them from the start if an open connection or the configuration of one of those that run says that they are in use.
    /// `name` is whose processes are believed only if they are trusted; none where the user has said whom to trace.
    pub(super) fn foresee(
        &mut self,
        tracer: &mut Tracer,
        configurations: &mut Configurations,
        args: &Trace,
        running: &[u32],
        name: Option<&str>,
    ) {
        if !self.is_awaited {
            return;
        }
        let is_believed = |pid: &u32| {
            let process = Process::new(pid.cast_signed());
            name.is_none_or(|name| process.is_ok_and(|process| trust::is_believed(&process, name)))
        };
        let is_ours = |pid: &u32| args.all && args.pid.is_none() || running.contains(pid);
        let client = tracer.unix_clients().find(|pid| is_ours(pid) && is_believed(pid));
        if let Some(pid) = client {
            self.by = Some(Use::Connected(pid));
        } else {
            let pids = running.to_vec();
            match configurations.ask(move |masters| masters.unix_upstreams(pids)) {
                Some(found) => self.learn(found),
                None if configurations.look_later(running.to_vec()) => {
                    self.report_unknown("configurations take long to read");
                }
                None => self.report_unknown("configurations take too long to read"),
            }
        }
        self.watch(tracer);
    }

    /// Whether it is still to be learnt whether they are in use.
    pub(super) fn is_awaited(&self) -> bool {
        self.is_awaited
    }

    /// They are not to be watched any more: the run ends.
    pub(super) fn give_up(&mut self) {
        self.is_awaited = false;
    }

    /// One has been seen in use.
    pub(super) fn is_seen(&mut self) {
        self.by.get_or_insert(Use::Seen);
    }

    /// Takes in what configurations say.
    pub(super) fn learn(&mut self, found: UnixUpstreams) {
        match found {
            UnixUpstreams::Of(pid) => {
                self.by.get_or_insert(Use::Configured(pid));
            }
            UnixUpstreams::None => {}
            UnixUpstreams::Unknown(why) => self.report_unknown(&why),
        }
    }

    /// A process of ours has begun, or is to read its configuration again.
    pub(super) fn begins(&mut self, pid: u32, configurations: &mut Configurations) {
        if self.is_awaited && !configurations.begins(pid) {
            self.report_unknown("more processes begin than can be looked at");
        }
    }

    /// Says once, to who wants to know, that unix sockets may be in use before that is known.
    fn report_unknown(&mut self, why: &str) {
        if self.is_verbose && !std::mem::replace(&mut self.has_reported_unknown, true) {
            crate::notice!(
                "whether nginx uses unix sockets as upstreams is not known before it does, so that the first exchanges on them may be \
                 missed ({why})"
            );
        }
    }

    /// Watches unix sockets from when it is known that they are in use. Returns whether that began now. A kernel that refuses is reported
    /// once, and tracing goes on without.
    pub(super) fn watch(&mut self, tracer: &mut Tracer) -> bool {
        let Some(by) = self.by.filter(|_| std::mem::take(&mut self.is_awaited)) else { return false };
        match tracer.trace_system_calls() {
            Ok(begins) => {
                if begins {
                    let by = match by {
                        Use::Configured(pid) => format!(", as the configuration of nginx {pid} says"),
                        Use::Connected(pid) => format!(", to which nginx {pid} is connected"),
                        Use::Seen => String::new(),
                    };
                    crate::notice!(
                        "unix-socket upstreams are in use{by}: watching connect and close, which slows every system call of this \
                         host a little"
                    );
                }
                begins
            }
            Err(failure) => {
                crate::notice!("unix-socket upstreams are in use and cannot be watched here: {failure}");
                false
            }
        }
    }
}
