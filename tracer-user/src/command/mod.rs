//! One module per command. Those that trace share a run ([`trace`]) and what the user asked to trace ([`scope`]).

pub mod backlog;
pub mod doctor;
pub mod explain;
pub mod live;
pub mod record;
pub mod report;
pub mod scope;
pub mod trace;
