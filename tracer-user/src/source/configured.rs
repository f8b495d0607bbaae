//! Whether the nginx that is watched uses unix upstreams, before it does: as its configuration says.
//!
//! Where the kernel's functions cannot be hooked, unix sockets are seen by hooks on system calls only, which slow each of the host's a
//! little. So those wait until they are needed, and here is said when: at the start, when an nginx begins, and when one is told to read
//! its configuration again. Only masters that are root's own are believed.

use std::{
    collections::BTreeSet,
    io,
    sync::mpsc::{SyncSender, TrySendError, sync_channel},
    thread,
    time::Instant,
};

use tokio::sync::mpsc::{Receiver, channel};

use crate::{
    args::Trace,
    budget,
    host::{
        Master, Refusal,
        nginx::{configuration, master_of},
    },
    scope,
};

/// After all processes were looked through, so many times as long passes before the next look.
const SHARE: u32 = 20;

/// What the configurations of masters say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// This one's names unix upstreams.
    Unix(u32),
    /// None of them does, as far as all could be read.
    None,
    /// None does, but of one of them it is not known, as this says.
    Unknown(String),
}

/// Reads configurations in a thread of its own: however long that takes, tracing goes on.
#[derive(Debug)]
pub(super) struct Configurations {
    begun: SyncSender<u32>,
    answers: Receiver<Answer>,
}

impl Configurations {
    /// Reads those of nginx that begin from now on.
    ///
    /// # Errors
    /// If no thread can be started.
    pub(super) fn watch(args: &Trace) -> io::Result<Self> {
        let (begun, asked) = sync_channel(budget::BEGUN);
        let (answer, answers) = channel(1);
        let args = args.clone();
        thread::Builder::new().name("configurations".to_owned()).spawn(move || {
            for pid in asked {
                let began = Instant::now();
                let found = of_one(pid);
                let is_gone = found.is_none();
                let found = found.unwrap_or_else(|| of_all(&args));
                if answer.blocking_send(found).is_err() {
                    break;
                }
                if is_gone {
                    thread::sleep(began.elapsed() * SHARE);
                }
            }
        })?;
        Ok(Self { begun, answers })
    }

    /// A process has begun, or is to read its configuration again. Returns whether it is looked at: not if too many do so at a time.
    pub(super) fn begins(&self, pid: u32) -> bool {
        !matches!(self.begun.try_send(pid), Err(TrySendError::Full(_)))
    }

    /// The next answer.
    pub(super) async fn next(&mut self) -> Option<Answer> {
        self.answers.recv().await
    }
}

/// What the configuration of a process's master says; none if the process has gone: one that becomes a daemon leaves a child behind.
fn of_one(pid: u32) -> Option<Answer> {
    let answer = of([pid]);
    (answer != Answer::None || master_of(pid).is_some()).then_some(answer)
}

/// What the configurations of those say that run now.
fn of_all(args: &Trace) -> Answer {
    match scope::running(args) {
        Ok(pids) => of(pids),
        Err(error) => Answer::Unknown(format!("/proc cannot be listed: {error}")),
    }
}

/// What the configurations of these processes' masters say.
pub(super) fn of(pids: impl IntoIterator<Item = u32>) -> Answer {
    let masters: BTreeSet<u32> = pids.into_iter().filter_map(master_of).collect();
    let (mut answer, mut read) = (Answer::None, 0);
    for pid in masters {
        let found = Master::believe(pid).and_then(|master| {
            read += 1;
            if read <= budget::CONFIGURATIONS { names_unix(&master) } else { Ok(Err(beyond())) }
        });
        let unknown = match found {
            Ok(Ok(true)) => return Answer::Unix(pid),
            Ok(Ok(false)) | Err(Refusal::Changed) => continue,
            Ok(Err(gaps)) => gaps,
            Err(refusal) => refusal.to_string(),
        };
        if answer == Answer::None {
            answer = Answer::Unknown(format!("the configuration of nginx {pid}: {unknown}"));
        }
    }
    answer
}

fn beyond() -> String {
    format!("those of {} others were read", budget::CONFIGURATIONS)
}

/// Whether a configuration names unix upstreams, or what of it was not read.
fn names_unix(master: &Master) -> Result<Result<bool, String>, Refusal> {
    let configuration = configuration(master)?;
    if configuration.names_unix_upstreams() {
        return Ok(Ok(true));
    }
    Ok(configuration.gaps.told().map_or(Ok(false), |gaps| Err(format!("not all of it was read: {gaps}"))))
}
