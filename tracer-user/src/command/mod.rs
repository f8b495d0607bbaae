//! One module per command. Those that trace share a run ([`trace`]).

pub mod backlog;
pub mod doctor;
pub mod explain;
pub mod live;
pub mod record;
pub mod report;
pub mod trace;
