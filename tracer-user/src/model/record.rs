//! What the kernel side sends.

use wire::{Action, ExchangeRecord, Hop, NextAction, Served, WordOf, WorkerGone};

/// One record of the kernel side.
#[derive(Clone, Debug)]
pub enum Record {
    /// nginx's end of an exchange has ended.
    Exchange(Box<ExchangeRecord>),
    /// What nginx did next.
    NextAction(Box<NextAction>, Action),
    /// What nginx does next, it does for another nginx.
    Hop(Box<Hop>),
    /// The worker's end of a failed exchange has ended, after nginx's.
    WorkerGone(Box<WorkerGone>),
    /// A connection that a listener of this host took up has ended, and nginx is on another host.
    Served(Box<Served>),
    /// nginx said something of an upstream.
    Word(Box<WordOf>),
}
