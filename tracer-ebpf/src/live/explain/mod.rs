//! What is known beyond an exchange itself when it fails, each thing noted where it happens and asked for at the end: listeners and their
//! queues, packets that were dropped, resets, ICMP, processes and what they were sent, and what nginx says and does.

pub mod closed_listener;
pub mod deaths;
pub mod doing;
pub mod drops;
pub mod hop;
pub mod icmp;
pub mod last_read;
pub mod listener;
pub mod members;
pub mod nginx_memory;
pub mod process;
pub mod resets;
pub mod signals;
pub mod unix_listener;
pub mod word;
pub mod workers;
