//! The BPF binary: hooks write facts onto sockets' stories; ends that are not plainly clean become records.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

/// The running kernel, and what all binaries share: each names what it takes of that, for a map comes with each file that has one.
#[cfg(target_arch = "bpf")]
mod kernel {
    pub mod address;
    pub mod freestanding;
    pub mod function;
    pub mod memory;
    #[expect(dead_code, reason = "another binary asks for the sockets of some processes only")]
    pub mod open_files;
    pub mod ports;
    pub mod preemption;
    pub mod put;
    pub mod read;
    #[expect(dead_code, reason = "the other binary forgets what is there, too")]
    pub mod recent;
    pub mod sock;
    pub mod standby;
    pub mod task;
    pub mod tcp_header;
    pub mod trust;
    pub mod unix_place;
    pub mod verified_once;
}

#[cfg(target_arch = "bpf")]
mod live;

/// What is shared counts into this binary's own maps.
#[cfg(target_arch = "bpf")]
use live::maps;

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
