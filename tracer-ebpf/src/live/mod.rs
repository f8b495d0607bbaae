//! Exchanges between nginx and its upstreams.
//!
//! Each of these leans on those before it only.

pub mod maps;

mod scope;

mod entry;

mod explain;

mod exchange;

mod fallback;

mod emit;

mod starts;

mod transport;

mod hook;
