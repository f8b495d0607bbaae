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
    /// Takes the next record out of the ring buffer and puts what is to be handed on of it into the batch. Returns whether there was one.
    pub(super) fn take_record(&mut self) -> bool {
        let Some(bytes) = self.ring.take() else { return false };
        self.rate.records += 1;
        match decode(&bytes) {
            Ok(Event::Started(started)) => self.begins(started.task.tgid),
            Ok(Event::Record(mut record)) => {
                give_back(&mut record, self.own_pid);
                self.take_in(record);
            }
            Err(error) => {
                crate::notice!("a record was passed over: {error}");
                let loss = Loss { ns: monotonic_ns(), reason: LossReason::Undecoded, count: 1 };
                self.batch.push_back(What::Loss(loss));
            }
        }
        true
    }

    /// A record, and before it what is learnt from it; nothing of a word that was not asked for.
    fn take_in(&mut self, mut record: Record) {
        match &mut record {
            Record::Word(word) => {
                self.words_unread += u64::from(read_texts(word).is_err());
                self.hearing.heard(word);
                let said = Said::new(word);
                if !self.is_asked_for(&said) {
                    return;
                }
                if matches!(said.peer(), Some(Upstream::Unix(_))) {
                    self.unix.is_seen();
                }
                let learnt = self.ask(&said);
                self.batch.extend(learnt);
            }
            Record::Exchange(exchange) => {
                if self.audible.is(&self.tracer, &mut self.configurations, &exchange.nginx) {
                    exchange.nginx.flags |= nginx_flag::WORD_AUDIBLE;
                }
                let near = self.listeners.near(&mut self.tracer, exchange).map(What::Near);
                let inquiry = self.inquire(exchange).map(What::Inquiry);
                self.batch.extend(near.into_iter().chain(inquiry));
            }
            Record::WorkerGone(gone) => self.listeners.is_gone(gone.worker.sock),
            _ => {}
        }
        self.batch.extend(self.members.look(&record).into_iter().map(What::Member));
        let pressure = self.pressure(&record);
        self.batch.extend(pressure.map(What::Pressure));
        self.batch.push_back(What::Record(record));
    }

    /// What is short now, if this is the end of an exchange that nginx waited in.
    fn pressure(&mut self, record: &Record) -> Option<Reading> {
        let Record::Exchange(exchange) = record else { return None };
        let (nginx, worker) = (&exchange.nginx, &exchange.worker);
        let began_ns = nginx.first_sent_ns.max(nginx.connect_ns);
        let is_slow = nginx.ended_ns.saturating_sub(began_ns) >= sample::SLOW_NS;
        is_slow.then(|| self.meter.read_at_end(worker.worker.tgid)).flatten()
    }

    /// What there is to be looked up about an exchange.
    fn inquire(&mut self, exchange: &ExchangeRecord) -> Option<Inquiry> {
        let has_accepted = |pid| self.members.has_accepted(pid);
        let queue = self.listeners.queue(&mut self.tracer, exchange, &mut self.configurations, has_accepted);
        queue.or_else(|| self.inquiries.of_exchange(exchange, &mut self.configurations))
    }
}
