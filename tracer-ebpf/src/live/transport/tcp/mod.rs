//! Exchanges over TCP.

pub mod account;
pub mod begin;
pub mod end;
pub mod queue;
