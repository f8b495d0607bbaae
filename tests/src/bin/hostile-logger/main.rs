//! A program that exports nginx's logging function and calls it with all that must not be believed. See `rig::hostile`.
//!
//! Prints `ready`, makes its calls when a line comes on its standard input, prints `done`, and ends when its standard input ends.

use std::ffi::c_void;
use std::io;
use std::num::NonZero;
use std::ptr;

use anyhow::{Context, Result};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect};
use nix::sys::prctl;
use rig::hostile::{CLOSING, ENDLESS, GARBLED, LONG};

/// `ngx_log_t`, src/core/ngx_log.h, as far as it matters: the connection's number is its third word, and what is being done its ninth.
type Log = [u64; 16];

const PAGE: usize = 4_096;
const ERROR: u64 = 4;

/// What nginx's own is called and takes; there is nothing that it does.
#[unsafe(no_mangle)]
#[inline(never)]
extern "C" fn ngx_log_error_core(level: u64, log: u64, errno: u32, format: u64, first: u64, second: u64) {
    std::hint::black_box((level, log, errno, format, first, second));
}

fn main() -> Result<()> {
    prctl::set_name(c"nginx")?;
    let edge = edge_of_memory()?;
    println!("ready");
    for line in io::stdin().lines() {
        line?;
        speak(edge);
        println!("done");
    }
    Ok(())
}

/// The end of what can be read: a page of text that no zero closes, before one that nobody may read.
fn edge_of_memory() -> Result<u64> {
    let length = NonZero::new(2 * PAGE).context("two pages")?;
    // SAFETY: new memory, of nobody else's.
    let pages = unsafe {
        mmap_anonymous(None, length, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE)?
    };
    // SAFETY: within it; and what is taken away is used by nobody.
    unsafe {
        ptr::write_bytes(pages.cast::<u8>().as_ptr(), b'u', PAGE);
        mprotect(pages.byte_add(PAGE), PAGE, ProtFlags::PROT_NONE)?;
        Ok(address(pages.byte_add(PAGE - 8).as_ptr()))
    }
}

fn address(of: *const c_void) -> u64 {
    of.addr() as u64
}

fn text(bytes: &[u8]) -> u64 {
    address(bytes.as_ptr().cast())
}

fn speak(edge: u64) {
    let endless = ENDLESS.repeat(PAGE);
    let long = [LONG.repeat(500).as_bytes(), b"\0"].concat();
    let garbled = [GARBLED, b"\0"].concat();
    let wild =
        [0, 1, 8, edge, edge + 8, 0xdead_beef_0000, 1 << 47, 0xffff_8880_0000_0000, u64::MAX - 7, u64::MAX];
    let log = |action: u64| {
        let mut log: Log = [u64::MAX; 16];
        (log[2], log[8]) = (7, action);
        log
    };
    let connecting = text(b"connecting to upstream\0");
    let messages = [
        b"no live upstreams\0".as_slice(),
        b"%V could not be resolved (%i: %s)\0",
        b"connect() to %V failed\0",
        b"upstream SSL certificate verify error: (%l:%s)\0",
        b"upstream SSL certificate does not match \"%V\"\0",
        b"%*s\0",
        b"upstream sent invalid header\0",
    ];
    let call = |level: u64, log: u64, errno: u32, format: u64, first: u64, second: u64| {
        // As nginx calls it: through the symbol, whatever the compiler knows of it.
        std::hint::black_box(ngx_log_error_core as extern "C" fn(u64, u64, u32, u64, u64, u64))(
            level, log, errno, format, first, second,
        );
    };
    let good = log(connecting);
    let good = text(bytes_of(&good));
    // Whatever is a pointer, wild.
    for wild in wild {
        call(ERROR, wild, 0, text(b"upstream sent invalid header\0"), wild, wild);
        let doing = log(wild);
        call(ERROR, text(bytes_of(&doing)), 0x7fff_ffff, text(b"no live upstreams\0"), wild, wild);
        call(ERROR, good, 0, wild, wild, wild);
        for message in messages {
            call(ERROR, good, 111, text(message), wild, wild);
            // A text of any length, at any place.
            for length in [0, 1, 255, 256, 4_096, u64::MAX] {
                let string = [length, wild];
                call(ERROR, good, 0, text(message), text(bytes_of(&string)), length);
                call(ERROR, good, 0, text(message), length, wild);
            }
        }
    }
    // What can be read, and must not be written to a terminal, nor be taken whole.
    for subject in [&garbled, &long, &endless.as_bytes().to_vec()] {
        let string = [subject.len() as u64, text(subject)];
        for message in messages {
            let first = text(bytes_of(&string));
            call(ERROR, good, 0, text(message), first, text(subject));
            call(ERROR, good, 0, text(message), subject.len() as u64, text(subject));
        }
        let doing = log(text(subject));
        call(ERROR, text(bytes_of(&doing)), 0, text(b"upstream sent invalid header\0"), 0, 0);
        call(ERROR, good, 0, text(subject), 0, 0);
    }
    for level in [0, 5, 8, 1 << 40, u64::MAX] {
        call(level, good, 0, text(b"no live upstreams\0"), 0, 0);
    }
    // And one that is as nginx's are.
    let closing = [CLOSING.as_bytes(), b"\0"].concat();
    let string = [CLOSING.len() as u64, text(&closing)];
    call(ERROR, good, 0, text(b"%V could not be resolved (%i: %s)\0"), text(bytes_of(&string)), 3);
}

/// Numbers as they lie in memory.
fn bytes_of(numbers: &[u64]) -> &[u8] {
    // SAFETY: the same memory, whose bytes may be anything.
    unsafe { std::slice::from_raw_parts(numbers.as_ptr().cast(), size_of_val(numbers)) }
}
