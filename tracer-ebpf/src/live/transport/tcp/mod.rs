//! Exchanges over TCP: how they begin, whose queue they wait in, what the kernel kept of them, and how they end.

pub mod account;
pub mod begin;
pub mod end;
pub mod queue;
