//! Accept queues, and the connections that meet a full one.

mod arrival;
mod caller;
mod client;
mod clients;
mod counter;
mod hook;
mod listener;
pub mod maps;
mod packet;
mod unix;
mod victim;
mod waiting;
