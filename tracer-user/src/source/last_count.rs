//! What has been counted by the very end, and a notice of each kind of thing that was not seen or not kept.

use std::time::Duration;

use super::Source;
use crate::{
    engine::SETTLING,
    model::{failure::Failure, stream::Entry, words},
};

impl Source {
    /// What has been counted since it was last looked at: to be taken in at the very end.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn recount(&mut self) -> Result<Vec<Entry>, Failure> {
        self.unix.give_up();
        self.counted_ns = 0;
        let mut news = Vec::new();
        for pause in [Duration::ZERO, SETTLING] {
            std::thread::sleep(pause);
            self.asks_programs = true;
            news.extend(self.counters()?);
        }
        if self.missed.emitted > 0 {
            let by_program: Vec<String> =
                self.tracer.missed()?.iter().map(|(program, count)| format!("{program} {count}")).collect();
            crate::notice!(
                "{} not seen because a program of why502 was busy with another on that CPU: {}",
                words::count(self.missed.emitted, "event"),
                by_program.join(", ")
            );
        }
        if self.stats.returns_missed > 0 {
            crate::notice!(
                "{} not seen to return, for kprobes have room for few calls at a time",
                words::count(self.stats.returns_missed, "call")
            );
        }
        for (count, what, why) in [
            (
                self.stats.afterwards_unkept,
                "connection",
                "that nginx gave up not followed to its end: its process has others",
            ),
            (
                self.stats.upstreams_unkept,
                "exchange",
                "not counted by upstream: there are more upstreams than fit",
            ),
            (
                self.stats.translations_unkept,
                "connection",
                "of which it is not remembered where address translation led: there are more such upstreams than fit, and a verdict that \
                 an unknown listener may touch is marked incomplete",
            ),
            (
                self.members.left_out(),
                "process",
                "whose unit or container is not told: failures named too many at a time",
            ),
            (
                self.members.unread() + self.stats.members_unkept,
                "process",
                "whose unit or container is not told: it could not be read, or kept until it was asked for",
            ),
            (
                self.words_unread,
                "word",
                "of nginx's known by level and errno alone, for its process ended before its text was read",
            ),
            (
                self.listeners.left_out(),
                "failure",
                "of which it was not looked who listens there or near: this host has too many open files for a look every second",
            ),
            (
                self.hearing.passed_over(),
                "line",
                "of nginx's error log passed over: too long, or cut off before it says what it is about",
            ),
        ] {
            if count > 0 {
                crate::notice!("{} {why}", words::count(count, what));
            }
        }
        Ok(news.into_iter().map(|what| self.entry(what)).collect())
    }
}
