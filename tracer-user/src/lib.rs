//! why502 names, with proof from the kernel, why an exchange between nginx and an upstream failed.
//!
//! The modules stand in the order in which data flows: the kernel side is loaded, its records are decoded, the ledger
//! joins them into exchanges, each exchange gets its cause, the verdict is held against nginx's own log, and goes out.

pub mod args;
pub mod backlog;
pub mod completions;
pub mod doctor;
pub mod explain;
pub mod live;
pub mod man;
pub mod record;
pub mod report;

pub mod scope;

mod host;
mod netlink;
mod processes;

pub mod load;

pub mod source;
pub mod trace;
pub mod trust;

pub mod cgroup;
pub mod pressure;
pub mod sample;

pub mod decode;

pub mod inquiry;

pub mod stream;

pub mod evidence;

pub mod pipeline;

pub mod ledger;

pub mod cause;
pub mod groups;
pub mod near;

pub mod verdict;

pub mod answers;
pub mod audit;

pub mod output;

pub mod budget;
pub mod clock;
pub mod facts;
pub mod failure;
pub mod memory;
pub mod version;
pub mod words;

#[global_allocator]
static ALLOCATOR: memory::Counted = memory::Counted;
