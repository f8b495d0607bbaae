//! What else is known when an exchange fails.

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
