//! The hooks, one file for each kernel subsystem. They are thin: what they learn is written down elsewhere, once,
//! whatever kind of hook it came from.

mod function;
mod inet_sock;
mod oom;
mod sched;
mod signal;
mod skb;
mod socket;
mod syscall;
mod task_file;
mod tcp;
mod waiting;
mod word;
