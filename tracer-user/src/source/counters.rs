//! The kernel side's counters, and what follows from each that has risen.

use wire::Stats;

use super::{Source, TICK, upstreams::Upstreams};
use crate::{
    engine::losses,
    model::{
        clock::{monotonic_ns, nanoseconds},
        failure::Failure,
        stream::{Counts, Loss, LossReason, UpstreamCounts, What},
    },
};

impl Source {
    /// What the kernel side's counters say that they did not say before, losses first; and what follows from it.
    pub(super) fn counters(&mut self) -> Result<Vec<What>, Failure> {
        // Before the count of those that were seen after all.
        let missed =
            if std::mem::take(&mut self.asks_programs) { Some(self.programs_missed()?) } else { None };
        let stats = self.tracer.stats()?;
        let Stats {
            exchanges, connections, untracked, unix_seen, stood_in, strangers, unix_strangers, ..
        } = stats;
        self.tracer.show_listeners(stats.listeners_sought)?;
        if stats.listeners_untracked > 0 && self.stats.listeners_untracked == 0 {
            crate::notice!(
                "this host has more listeners than are kept in sight: those of upstreams are looked up when they are needed, and a \
                 verdict that came before is marked incomplete"
            );
        }
        if untracked > 0 && self.stats.untracked == 0 {
            crate::notice!(
                "more exchanges are open than the {} that are watched at a time (--max-open): those beyond are counted, \
                 not explained",
                self.max_open
            );
        }
        self.hearing.weigh(&mut self.tracer, stats.foreign_words);
        self.audible.catch_up(&mut self.configurations);
        let missed = missed.map_or(0, |missed| self.missed.look(missed.saturating_sub(stood_in)));
        let before = self.stats;
        self.stats = stats;
        self.has_strangers |= strangers > before.strangers || unix_strangers > before.unix_strangers;
        let found = self.look_at_strangers();
        let mut news: Vec<_> = self.strangers.drain(..).chain(found).map(What::Stranger).collect();
        let kept = losses(&stats).into_iter().zip(losses(&before));
        let unkept = kept.map(|((reason, count), (_, before))| (reason, count.saturating_sub(before)));
        if stats.afterwards_unkept > before.afterwards_unkept {
            self.listeners.forget_queues();
        }
        for (reason, count) in unkept.chain([(LossReason::Missed, missed)]) {
            if count > 0 {
                self.listeners.forget_queues();
                news.push(What::Loss(Loss { ns: monotonic_ns(), reason, count }));
            }
        }
        news.extend(self.upstreams());
        let upstreams_left_out = self.upstreams.as_ref().map_or(0, Upstreams::left_out);
        let words_left_out = self.words_left_out;
        let counts =
            Counts { exchanges, connections, untracked, strangers, upstreams_left_out, words_left_out };
        if counts != self.counts {
            self.counts = counts;
            news.push(What::Counts(counts));
        }
        if let Some(depths) = &self.depths {
            news.extend(depths.found().map(What::Depth));
        }
        if let Some(found) = self.found_unix.take() {
            self.unix.learn(found);
        }
        if unix_seen > 0 {
            self.unix.is_seen();
        }
        if self.unix.watch(&mut self.tracer) {
            news.push(What::Sources(self.sources().clone()));
        }
        Ok(news)
    }

    /// Events that programs missed so far. From the first one on, standby instances see them.
    fn programs_missed(&mut self) -> Result<u64, Failure> {
        let missed = self.tracer.missed_at_first()?;
        if missed > 0 && self.tracer.attach_standby()? && self.is_verbose {
            crate::notice!(
                "this kernel interrupts the programs that watch it; from now on, standby instances of them see what they miss"
            );
        }
        Ok(missed)
    }

    fn upstreams(&mut self) -> Vec<What> {
        let ns = monotonic_ns();
        let Some(upstreams) = &mut self.upstreams else { return Vec::new() };
        if ns < self.counted_ns.saturating_add(nanoseconds(TICK)) {
            return Vec::new();
        }
        self.counted_ns = ns;
        let counted = self.tracer.upstreams();
        if let Some(depths) = &self.depths {
            depths.watch(counted.iter().map(|(upstream, _)| upstream));
        }
        let news = upstreams.look(counted).into_iter();
        news.map(|(upstream, exchanges)| What::Upstream(UpstreamCounts { ns, upstream, exchanges })).collect()
    }
}
