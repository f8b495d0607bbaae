//! One module per command. Those that trace share a run ([`trace`]).

pub mod backlog;
pub mod completions;
pub mod doctor;
pub mod explain;
pub mod live;
pub mod man;
pub mod record;
pub mod report;
pub mod serve;
pub mod top;
pub mod trace;
