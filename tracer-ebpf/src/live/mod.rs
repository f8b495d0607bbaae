//! Exchanges between nginx and its upstreams.
//!
//! Each of these leans on those before it only.

pub mod maps;

mod scope;
mod shared_stack;

mod entry;

mod explain;

mod fallback;

mod emit;

mod exchange;

mod starts;

mod transport;

mod hook;
