//! The BPF binary of `why502 backlog`: accept queues, read from the kernel's own structures at the events that change them, and the
//! connections that meet a full one.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[path = "../address.rs"]
mod address;
#[cfg(target_arch = "bpf")]
mod client;
#[cfg(target_arch = "bpf")]
mod counter;
#[cfg(target_arch = "bpf")]
#[path = "../freestanding.rs"]
mod freestanding;
#[cfg(target_arch = "bpf")]
#[path = "../function.rs"]
mod function;
#[cfg(target_arch = "bpf")]
mod hook;
#[cfg(target_arch = "bpf")]
#[path = "../kernel.rs"]
#[expect(dead_code, reason = "the other binary reads more of the kernel")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod listener;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
#[path = "../open_files.rs"]
#[expect(dead_code, reason = "another binary asks for the sockets of some processes only")]
mod open_files;
#[cfg(target_arch = "bpf")]
mod packet;
#[cfg(target_arch = "bpf")]
#[path = "../ports.rs"]
mod ports;
#[cfg(target_arch = "bpf")]
#[path = "../preemption.rs"]
mod preemption;
#[cfg(target_arch = "bpf")]
#[path = "../put.rs"]
mod put;
#[cfg(target_arch = "bpf")]
#[path = "../recent.rs"]
#[expect(dead_code, reason = "the other binary changes what is there, too")]
mod recent;
#[cfg(target_arch = "bpf")]
#[path = "../tcp_header.rs"]
#[expect(dead_code, reason = "the other binary reads headers in two ways")]
mod tcp_header;
#[cfg(target_arch = "bpf")]
#[path = "../trust.rs"]
mod trust;
#[cfg(target_arch = "bpf")]
mod unix;
#[cfg(target_arch = "bpf")]
#[path = "../unix_place.rs"]
#[expect(dead_code, reason = "userspace finds out here which listeners are gone")]
mod unix_place;
#[cfg(target_arch = "bpf")]
mod victim;
#[cfg(target_arch = "bpf")]
mod waiting;

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
