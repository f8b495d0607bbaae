//! why502 names, with proof from the kernel, why an exchange between nginx and an upstream failed.
//!
//! The modules stand in the order in which data flows: the kernel side is loaded, its records are decoded, the ledger
//! joins them into exchanges, each exchange gets its cause, the verdict is held against nginx's own log, and goes out.

pub mod model;

pub mod args;

pub mod load;

pub mod procfs;

pub mod engine;

pub mod sample;

pub mod decode;

pub mod ledger;

pub mod evidence;

pub mod cause;

pub mod answers;
pub mod groups;
pub mod near;
pub mod pressure;

pub mod audit;

pub mod source;

pub mod pipeline;

pub mod sink;

pub mod command;

pub mod file;
pub mod memory;
pub mod terminal;

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;
