//! The records as the kernel side has them, each with what is learnt before it.

use wire::{ExchangeRecord, nginx_flag};

use super::{Source, let_go::give_back, words::read_texts};
use crate::{
    decode::{Event, decode},
    ledger::Said,
    model::{
        clock::monotonic_ns,
        inquiry::Inquiry,
        pressure::Reading,
        record::Record,
        stream::{Loss, LossReason, What},
        upstream::Upstream,
    },
    sample,
};

impl Source {
    /// The next record, if there is one; who is named in it comes first.
    pub(super) fn record(&mut self) -> Option<What> {
        if self.ahead.is_empty() {
            let what = self.decoded()?;
            if let What::Record(record) = &what {
                self.ahead.extend(self.members.look(record).into_iter().map(What::Member));
                let pressure = self.pressure(record);
                self.ahead.extend(pressure.map(What::Pressure));
            }
            self.ahead.push_back(what);
        }
        self.ahead.pop_front()
    }

    /// What is short now, if this is the end of an exchange that nginx waited in.
    fn pressure(&mut self, record: &Record) -> Option<Reading> {
        let Record::Exchange(exchange) = record else { return None };
        let (nginx, worker) = (&exchange.nginx, &exchange.worker);
        let began_ns = nginx.first_sent_ns.max(nginx.connect_ns);
        let is_slow = nginx.ended_ns.saturating_sub(began_ns) >= sample::SLOW_NS;
        is_slow.then(|| self.meter.read_at_end(worker.worker.tgid)).flatten()
    }

    /// The next record as the kernel side has it.
    fn decoded(&mut self) -> Option<What> {
        if let Some(held) = self.held.pop_front() {
            return Some(held);
        }
        loop {
            let bytes = self.ring.take()?;
            self.rate.records += 1;
            match decode(&bytes) {
                Ok(Event::Started(started)) => self.begins(started.task.tgid),
                Ok(Event::Record(mut record)) => {
                    give_back(&mut record, self.own_pid);
                    if let Some(what) = self.taken_in(record) {
                        return Some(what);
                    }
                }
                Err(error) => {
                    crate::notice!("a record was passed over: {error}");
                    let loss = Loss { ns: monotonic_ns(), reason: LossReason::Undecoded, count: 1 };
                    return Some(What::Loss(loss));
                }
            }
        }
    }

    /// What is handed on first of a record and of what is learnt before it, and the rest held; none of a word that was not asked for.
    fn taken_in(&mut self, record: Record) -> Option<What> {
        match record {
            Record::Word(mut word) => {
                self.words_unread += u64::from(read_texts(&mut word).is_err());
                self.hearing.heard(&word);
                let said = Said::new(&word);
                if !self.is_asked_for(&said) {
                    return None;
                }
                if matches!(said.peer(), Some(Upstream::Unix(_))) {
                    self.unix.is_seen();
                }
                let learnt = self.ask(&said);
                self.held.extend(learnt.into_iter().chain([What::Record(Record::Word(word))]));
                self.held.pop_front()
            }
            Record::Exchange(mut exchange) => {
                if self.audible.is(&self.tracer, &mut self.configurations, &exchange.nginx) {
                    exchange.nginx.flags |= nginx_flag::WORD_AUDIBLE;
                }
                let near = self.listeners.near(&mut self.tracer, &exchange).map(What::Near);
                let inquiry = self.inquire(&exchange).map(What::Inquiry);
                let record = What::Record(Record::Exchange(exchange));
                self.held.extend(near.into_iter().chain(inquiry).chain([record]));
                self.held.pop_front()
            }
            record => {
                if let Record::WorkerGone(gone) = &record {
                    self.listeners.is_gone(gone.worker.sock);
                }
                Some(What::Record(record))
            }
        }
    }

    /// What there is to be looked up about an exchange.
    fn inquire(&mut self, exchange: &ExchangeRecord) -> Option<Inquiry> {
        let has_accepted = |pid| self.members.has_accepted(pid);
        let queue = self.listeners.queue(&mut self.tracer, exchange, &mut self.configurations, has_accepted);
        queue.or_else(|| self.inquiries.of_exchange(exchange, &mut self.configurations))
    }
}
