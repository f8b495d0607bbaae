//! The BPF binary of `why502 backlog`: accept queues, read from the kernel's own structures at the events that change them, and the
//! connections that meet a full one.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

/// The running kernel, and what all binaries share: each names what it takes of that, for a map comes with each file that has one.
#[cfg(target_arch = "bpf")]
mod kernel {
    pub mod address;
    pub mod freestanding;
    pub mod function;
    #[expect(dead_code, reason = "the other binary clears addresses, too")]
    pub mod memory;
    #[expect(dead_code, reason = "another binary asks for the sockets of some processes only")]
    pub mod open_files;
    pub mod ports;
    pub mod preemption;
    pub mod put;
    pub mod read;
    #[expect(dead_code, reason = "the other binary changes what is there, too")]
    pub mod recent;
    #[expect(dead_code, reason = "the other binary reads more of a socket")]
    pub mod sock;
    #[expect(dead_code, reason = "the other binary reads more of a task")]
    pub mod task;
    #[expect(dead_code, reason = "the other binary reads headers in two ways")]
    pub mod tcp_header;
    pub mod trust;
    #[expect(dead_code, reason = "userspace finds out here which listeners are gone")]
    pub mod unix_place;
}

#[cfg(target_arch = "bpf")]
mod backlog;

/// What is shared counts into this binary's own maps.
#[cfg(target_arch = "bpf")]
use backlog::maps;

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
