//! The BPF binary: hooks write facts onto sockets' stories; ends that are not plainly clean become records.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
mod address;
#[cfg(target_arch = "bpf")]
mod aftermath;
#[cfg(target_arch = "bpf")]
mod closed_listener;
#[cfg(target_arch = "bpf")]
mod connect_call;
#[cfg(target_arch = "bpf")]
mod copies;
#[cfg(target_arch = "bpf")]
mod doing;
#[cfg(target_arch = "bpf")]
mod freestanding;
#[cfg(target_arch = "bpf")]
mod function;
#[cfg(target_arch = "bpf")]
mod handshake;
#[cfg(target_arch = "bpf")]
mod hook;
#[cfg(target_arch = "bpf")]
mod hop;
#[cfg(target_arch = "bpf")]
mod joined;
#[cfg(target_arch = "bpf")]
mod kernel;
#[cfg(target_arch = "bpf")]
mod last_read;
#[cfg(target_arch = "bpf")]
mod listener;
#[cfg(target_arch = "bpf")]
mod maps;
#[cfg(target_arch = "bpf")]
mod members;
#[cfg(target_arch = "bpf")]
mod nginx_end;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "another binary asks for the sockets of some processes only")]
mod open_files;
#[cfg(target_arch = "bpf")]
mod packet_drop;
#[cfg(target_arch = "bpf")]
mod ports;
#[cfg(target_arch = "bpf")]
mod preemption;
#[cfg(target_arch = "bpf")]
mod process;
#[cfg(target_arch = "bpf")]
mod put;
#[cfg(target_arch = "bpf")]
#[expect(dead_code, reason = "the other binary forgets what is there, too")]
mod recent;
#[cfg(target_arch = "bpf")]
mod reset;
#[cfg(target_arch = "bpf")]
mod served;
#[cfg(target_arch = "bpf")]
mod share;
#[cfg(target_arch = "bpf")]
mod signal;
#[cfg(target_arch = "bpf")]
mod starts;
#[cfg(target_arch = "bpf")]
mod tcp_header;
#[cfg(target_arch = "bpf")]
mod tell;
#[cfg(target_arch = "bpf")]
mod transfer;
#[cfg(target_arch = "bpf")]
mod trust;
#[cfg(target_arch = "bpf")]
mod unix_end;
#[cfg(target_arch = "bpf")]
mod unix_listener;
#[cfg(target_arch = "bpf")]
mod unix_path;
#[cfg(target_arch = "bpf")]
mod unix_place;
#[cfg(target_arch = "bpf")]
mod verified_once;
#[cfg(target_arch = "bpf")]
mod word;
#[cfg(target_arch = "bpf")]
mod worker_end;

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
