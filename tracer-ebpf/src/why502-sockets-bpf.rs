//! The BPF binary that shows which sockets some processes hold. It hooks nothing: it runs while userspace reads.
#![cfg_attr(target_arch = "bpf", no_std, no_main, feature(asm_experimental_arch))]

/// The running kernel, and what all binaries share: each names what it takes of that, for a map comes with each file that has one.
#[cfg(target_arch = "bpf")]
mod kernel {
    pub mod freestanding;
    #[expect(dead_code, reason = "the other binaries write more")]
    pub mod memory;
    #[expect(dead_code, reason = "the other binaries look for listeners only")]
    pub mod open_files;
    pub mod read;
    #[expect(dead_code, reason = "the other binaries read more of a socket")]
    pub mod sock;
}

#[cfg(target_arch = "bpf")]
mod sockets {
    pub mod held;
}

/// This binary runs in the kernel only; on the host it exists so that the workspace builds as a whole.
#[cfg(not(target_arch = "bpf"))]
fn main() {}
