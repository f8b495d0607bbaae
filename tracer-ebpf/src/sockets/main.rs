//! The BPF binary that tells which sockets some processes hold. It hooks nothing: it runs while userspace reads.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

#[cfg(target_arch = "bpf")]
#[path = "../freestanding.rs"]
mod freestanding;
#[cfg(target_arch = "bpf")]
mod held;
#[cfg(target_arch = "bpf")]
#[path = "../kernel.rs"]
#[expect(dead_code, unused_imports, reason = "the other binaries read more of the kernel")]
mod kernel;
#[cfg(target_arch = "bpf")]
#[path = "../open_files.rs"]
#[expect(dead_code, reason = "the other binaries look for listeners only")]
mod open_files;

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
