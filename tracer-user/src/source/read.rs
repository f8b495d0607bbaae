//! Waits until there may be something to read, and hands on what there is: in turns, for others must have theirs.

use std::{future::pending, time::Duration};

use tokio::{task::yield_now, time::sleep};

use super::Source;
use crate::{
    engine::losses,
    ledger::Said,
    model::{
        clock::{changed_clock_offset, monotonic_ns, nanoseconds},
        failure::Failure,
        stream::{Entry, What},
    },
    sample::Round,
};

/// For how long records are read in one go.
const TURN: Duration = Duration::from_millis(50);

/// As many records are read, or a few things learnt from them more, before the first is handed on.
const BATCH: usize = 64;

/// In a storm the ring buffer is left alone for so long after it was read: whoever reads each record as it comes is woken for each, by nginx.
const REST: Duration = Duration::from_millis(1);

impl Source {
    /// Waits until there may be something to read. It can be dropped while it waits.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub async fn ready(&mut self) -> Result<(), Failure> {
        if self.gave_way() {
            // Only so does the event loop look for signals meanwhile.
            yield_now().await;
            return Ok(());
        }
        let logs = self.hearing.wake_ns();
        let (rest, ring) = (self.rate.is_storm.then(|| sleep(REST)), &mut self.ring);
        let records = async {
            if let Some(rest) = rest {
                rest.await;
            }
            ring.ready().await
        };
        tokio::select! {
            ready = records => ready?,
            Some(round) = self.looks.recv() => self.found.push(round),
            Some(found) = self.configurations.next_unix(), if self.unix.is_awaited() => self.found_unix = Some(found),
            _ = self.tick.tick() => {
                self.asks_programs = true;
                self.access_logs.hurry();
            }
            () = at(logs) => {}
        }
        Ok(())
    }

    /// Hands on what there is to be read, one after the other, until `take` says by `true` that it is enough, or others must have
    /// their turn. Returns the last moment at which nothing was left.
    ///
    /// # Errors
    /// Of `take`, or if the kernel refuses.
    pub fn read(&mut self, mut take: impl FnMut(Entry) -> Result<bool, Failure>) -> Result<u64, Failure> {
        if let Some(clock_offset) = changed_clock_offset(self.clock_offset) {
            self.clock_offset = clock_offset;
            take(self.entry(What::Clock(clock_offset)))?;
        }
        self.fill_batch();
        for what in self.counters()? {
            take(self.entry(what))?;
        }
        if let Some(following) = self.hearing.following() {
            take(self.entry(following))?;
        }
        while let Ok(round) = self.looks.try_recv() {
            self.found.push(round);
        }
        for Round { pressure, looks } in std::mem::take(&mut self.found) {
            for what in pressure.map(What::Pressure).into_iter().chain(looks.into_iter().map(What::Look)) {
                take(self.entry(what))?;
            }
        }
        let began_ns = monotonic_ns();
        self.rate.look(began_ns);
        let give_way_ns = began_ns.saturating_add(nanoseconds(TURN));
        loop {
            while let Some(what) = self.next()? {
                if take(self.entry(what))? {
                    return Ok(self.seen_ns);
                }
                // In a storm there is always more, and yet signals, frames and deadlines must have their turn.
                if monotonic_ns() >= give_way_ns {
                    self.has_more = true;
                    return Ok(self.seen_ns);
                }
            }
            // What came before this moment has been read if nothing is there after it.
            let now = monotonic_ns();
            let Some(what) = self.next()? else {
                self.seen_ns = now;
                for what in self.access_logs.read() {
                    take(self.entry(what))?;
                }
                for what in self.hearing.read(&self.tracer) {
                    if let What::Logged(line) = &what {
                        let said = Said::logged(line);
                        if !self.is_asked_for(&said) {
                            continue;
                        }
                        if let Some(learnt) = self.ask(&said) {
                            take(self.entry(learnt))?;
                        }
                    }
                    take(self.entry(what))?;
                }
                return Ok(now);
            };
            if take(self.entry(what))? {
                return Ok(self.seen_ns);
            }
        }
    }

    /// What is next to be handed on of the records, if there are any.
    fn next(&mut self) -> Result<Option<What>, Failure> {
        if self.batch.is_empty() {
            self.fill_batch();
            if !self.batch.is_empty() && losses(&self.tracer.stats()?) != losses(&self.stats) {
                let lost = self.counters()?;
                lost.into_iter().rev().for_each(|what| self.batch.push_front(what));
            }
        }
        Ok(self.batch.pop_front())
    }

    /// Reads records. What was lost before one of them may touch what it completes: so the counters are looked at after this, and before it is
    /// handed on.
    fn fill_batch(&mut self) {
        while self.batch.len() < BATCH && self.take_record() {}
    }

    /// What stands in nginx's logs by now is to be read the next time, for it is the last one.
    pub fn read_logs_now(&mut self) {
        self.hearing.hurry();
        self.access_logs.hurry();
    }

    /// Whether the last reading gave way to others before everything was read.
    pub fn gave_way(&mut self) -> bool {
        std::mem::take(&mut self.has_more)
    }
}

/// Waits for a moment (ns, monotonic), or for ever.
async fn at(moment: Option<u64>) {
    match moment {
        Some(ns) => sleep(Duration::from_nanos(ns.saturating_sub(monotonic_ns()))).await,
        None => pending().await,
    }
}
