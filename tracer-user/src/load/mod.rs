//! Getting the kernel side to run: privileges, the kernel's layout, the hooks, the listeners that exist already.

mod backlog;
mod btf;
#[cfg(test)]
mod call_chains;
mod callable;
mod closed;
pub(crate) mod fdinfo;
mod functions;
mod given;
mod held_sockets;
mod hooks;
mod kernel_functions;
mod lean;
mod left_out;
mod listeners;
mod loader;
mod lockdown;
mod map_sizes;
mod maps;
mod misses;
mod missing;
mod object;
mod open;
mod open_files;
mod privileges;
mod refused;
mod scope;
mod shares;
mod tracefs;
mod tracer;
mod types;
mod wanted;
mod words;

pub use backlog::{Backlog, Clients, Source as BacklogSource, Symbols};
pub use given::{PATH as BTF_PATH, WHERE_TO_GET as WHERE_TO_GET_BTF, given_types, take_types, types_in_use};
pub(crate) use held_sockets::held_sockets;
pub use hooks::HookPlan;
pub use lockdown::Lockdown;
pub use open::Open;
pub use privileges::{missing_capabilities, names as names_of_capabilities};
pub use scope::Scope;
pub use tracefs::is_mounted as tracefs_is_mounted;
pub use tracer::Tracer;
pub use words::{Binary, binary};
