//! Gives up waiting for what has not come in time, or for which there is no room any more.

use super::{Exchange, Ledger, Whole, lines::Found};
use crate::model::budget;

impl Ledger {
    /// The oldest exchange, if there is no room for it any more.
    pub(super) fn crowded_out(&mut self) -> Option<Exchange> {
        if self.waiting.len() <= budget::WAITING_AFTER_LOSS {
            return None;
        }
        let oldest = *self.by_deadline.first_key_value()?.1;
        if self.waiting.get(&oldest)?.joined.nginx.connect_ns <= self.loss_ns {
            self.cut_short += 1;
        } else if self.waiting.len() > budget::WAITING_EXCHANGES {
            self.hurried += 1;
        } else {
            return None;
        }
        self.stop_waiting(oldest)
    }

    /// Gives up waiting for what has not come by `now` (ns, monotonic): the oldest first.
    pub fn overdue(&mut self, now: u64) -> Vec<Whole> {
        let mut whole = Vec::new();
        // Each at its own moment, however late it is asked for: a replay is not asked at the same ones.
        while let Some(deadline) = self.next_deadline().filter(|deadline| *deadline < now) {
            let at = deadline + 1;
            whole.extend(self.join_lines(at));
            while let Some((&(deadline, _), &name)) = self.by_deadline.first_key_value()
                && deadline < at
                && let Some(joined) = self.stop_waiting(name)
            {
                whole.push(self.complete(joined));
                whole.append(&mut self.freed);
            }
            whole.extend(self.words.overdue(at).into_iter().map(|said| Whole::Said(Box::new(said))));
        }
        whole
    }

    /// Joins the lines that have waited for long enough at `now` to what they are about.
    fn join_lines(&mut self, now: u64) -> Vec<Whole> {
        let mut whole = Vec::new();
        for found in self.lines.overdue(now) {
            match found {
                Found::Alone(said) => whole.push(Whole::Said(said)),
                Found::About(name, said) => {
                    let Some(waiting) = self.waiting.get_mut(&name) else { continue };
                    waiting.joined.said.extend(said);
                    whole.extend(self.complete_if_whole(name));
                    whole.append(&mut self.freed);
                }
            }
        }
        whole
    }

    /// Gives up waiting for anything: the oldest first.
    pub fn drain(&mut self) -> Vec<Whole> {
        self.overdue(u64::MAX)
    }

    /// How many exchanges had to do without what follows them since this was asked last, because too many waited.
    pub fn hurried(&mut self) -> u64 {
        std::mem::take(&mut self.hurried)
    }

    /// How many exchanges were forgotten whose worker may have gone on, and how many did not wait on for what may have been lost. Of forgotten
    /// retries most have succeeded, which no record shows.
    pub fn forgotten(&self) -> u64 {
        self.abandoned.forgotten + self.cut_short
    }

    /// When [`Ledger::overdue`] next has something (ns, monotonic).
    pub fn next_deadline(&self) -> Option<u64> {
        let exchange = self.by_deadline.first_key_value().map(|((deadline, _), _)| *deadline);
        [exchange, self.words.next_deadline(), self.lines.next_deadline()].into_iter().flatten().min()
    }
}
