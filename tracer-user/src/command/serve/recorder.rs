//! The flight recorder of the service.

use super::hook::Hook;
use crate::{
    args::Serve,
    command::record::alarm::Alarm,
    evidence::{Encoder, Header, Names},
    model::{
        clock::monotonic_ns,
        stream::{Entry, Start},
        verdict::Verdict,
        words::span,
    },
    sink::evidence::{Naming, Window, Written},
};

/// What keeps the last minutes, and when it writes them.
pub(super) struct Recorder {
    window: Window,
    alarm: Alarm,
    /// None where the service was started without a hook.
    hook: Option<Hook>,
    words: Vec<String>,
}

impl Recorder {
    /// Begins, if the options ask for it; files are called so, and a hook runs in its thread.
    pub(super) fn begin(options: &Serve, naming: Naming, hook: Option<Hook>, start: &Start) -> Option<Self> {
        let last = options.record_last?;
        let names = Names::new(false);
        let header = Header::now(&options.trace, &[], start, &names);
        let encoder = Encoder::new(start.started_ns, names);
        crate::notice!(
            "keeping the last {} in memory: a trigger and SIGUSR1 write them to {}",
            span(u64::try_from(last.as_nanos()).unwrap_or(u64::MAX)),
            options.record_directory.display()
        );
        Some(Self {
            window: Window::new(naming, last, header, start.clock_offset, encoder),
            alarm: Alarm::new(&options.record_triggers, last),
            hook,
            words: options.record_hook.clone(),
        })
    }

    pub(super) fn entry(&mut self, entry: &Entry) {
        self.window.add(entry);
    }

    pub(super) fn verdict(&mut self, verdict: &Verdict) {
        self.alarm.failure(monotonic_ns(), verdict.cause);
    }

    pub(super) fn pause(&mut self) {
        let now = monotonic_ns();
        self.window.pause(now);
        if let Some(why) = self.alarm.rings(now) {
            self.write(&why);
        }
    }

    pub(super) fn wake_ns(&self) -> Option<u64> {
        [self.window.wake_ns(), self.alarm.wake_ns()].into_iter().flatten().min()
    }

    /// Writes what is kept, and has the hook run.
    pub(super) fn write(&mut self, why: &str) {
        match self.window.write(false) {
            Ok(Written::File(path)) => {
                crate::notice!("wrote {} ({why}); watching on", path.display());
                if let Some(hook) = &self.hook {
                    hook.run(&self.words, &path);
                }
            }
            Ok(Written::Nothing) => crate::notice!("nothing to be written yet ({why})"),
            // Dated names have no end.
            Ok(Written::Declined) => {}
            Err(error) => crate::notice!("{error:#} ({why}); it is kept in memory, and watching goes on"),
        }
    }

    /// Goes on as the new options say.
    pub(super) fn reload(&mut self, old: &Serve, new: &Serve) {
        if new.record_triggers != old.record_triggers
            && let Some(last) = old.record_last
        {
            self.alarm = Alarm::new(&new.record_triggers, last);
        }
        if (&new.record_directory, new.record_keep) != (&old.record_directory, old.record_keep) {
            match Naming::dated(&new.record_directory, new.record_keep) {
                Ok(naming) => self.window.rename(naming),
                Err(error) => {
                    crate::notice!("{error:#}: evidence goes on to {}", old.record_directory.display())
                }
            }
        }
        if self.hook.is_none() && !new.record_hook.is_empty() {
            crate::notice!(
                "the hook is not run before a new start: this one began without any, and has given up what it takes to run one"
            );
        }
        self.words.clone_from(&new.record_hook);
    }
}
