//! BPF programs that drop what goes to a port, as a container network's do: attached to the loopback device of a namespace by a link, and gone
//! with it.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use anyhow::{Context, Result};
use nix::libc;

use crate::Namespace;

/// Where a program meets packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hook {
    /// tc, on the way out (`BPF_TCX_EGRESS`, since 6.6).
    Egress,
    /// tc, on the way in.
    Ingress,
    /// XDP, before the kernel has made anything of the packet.
    Xdp,
}

/// An attached program.
#[derive(Debug)]
pub struct Program {
    _program: OwnedFd,
    _link: OwnedFd,
}

/// `BPF_PROG_LOAD` and `BPF_LINK_CREATE` (include/uapi/linux/bpf.h).
const LOAD: libc::c_long = 5;
const LINK: libc::c_long = 28;
/// The loopback device has this number in each namespace.
const LOOPBACK: u32 = 1;

/// `struct bpf_insn`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    registers: u8,
    offset: i16,
    immediate: i32,
}

/// What a hook's program is made of.
struct Kind {
    program_type: u32,
    attach_type: u32,
    /// Where `data` and `data_end` are in its context.
    data: [i16; 2],
    drop: i32,
    pass: i32,
}

impl Hook {
    fn kind(self) -> Kind {
        // BPF_PROG_TYPE_SCHED_CLS with TCX_DROP and TCX_NEXT; BPF_PROG_TYPE_XDP with XDP_DROP and XDP_PASS.
        let tc = |attach_type| Kind { program_type: 3, attach_type, data: [76, 80], drop: 2, pass: -1 };
        match self {
            Hook::Ingress => tc(46),
            Hook::Egress => tc(47),
            Hook::Xdp => Kind { program_type: 6, attach_type: 37, data: [0, 4], drop: 1, pass: 2 },
        }
    }
}

impl Program {
    /// Drops what goes to this TCP port over IPv4; none where this kernel attaches no such program by a link.
    pub fn drop_port(namespace: &Namespace, hook: Hook, port: u16) -> Result<Option<Program>> {
        let kind = hook.kind();
        let program = load(&kind, port).with_context(|| format!("loading a program for {hook:?}"))?;
        let link = namespace.run(|| Ok(link(&kind, &program)))?;
        match link {
            Ok(link) => Ok(Some(Program { _program: program, _link: link })),
            Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
            Err(error) => Err(error).with_context(|| format!("attaching to {hook:?}")),
        }
    }
}

fn load(kind: &Kind, port: u16) -> io::Result<OwnedFd> {
    // Ethernet, then IPv4 without options, then the destination's port.
    const PORT: i16 = 14 + 20 + 2;
    let is = |code, to: u8, from: u8, offset, immediate| Instruction {
        code,
        registers: from << 4 | to,
        offset,
        immediate,
    };
    let wanted = i32::from(port.to_be());
    let instructions = [
        is(0x61, 2, 1, kind.data[0], 0),
        is(0x61, 3, 1, kind.data[1], 0),
        is(0xbf, 4, 2, 0, 0),
        is(0x07, 4, 0, 0, i32::from(PORT) + 2),
        is(0x2d, 4, 3, 4, 0),
        is(0x69, 5, 2, PORT, 0),
        is(0x55, 5, 0, 2, wanted),
        is(0xb7, 0, 0, 0, kind.drop),
        is(0x95, 0, 0, 0, 0),
        is(0xb7, 0, 0, 0, kind.pass),
        is(0x95, 0, 0, 0, 0),
    ];
    let license = c"GPL";
    // The beginning of the load's part of `union bpf_attr`; what comes after it is zero.
    #[repr(C)]
    struct Load {
        program_type: u32,
        count: u32,
        instructions: u64,
        license: u64,
        rest: [u64; 12],
    }
    let mut load = Load {
        program_type: kind.program_type,
        count: instructions.len() as u32,
        instructions: instructions.as_ptr() as u64,
        license: license.as_ptr() as u64,
        rest: [0; 12],
    };
    if kind.program_type == 3 {
        // log_level, log_size; log_buf; kern_version, prog_flags; prog_name (16); prog_ifindex, expected_attach_type.
        load.rest[5] = u64::from(kind.attach_type) << 32;
    }
    bpf(LOAD, &load)
}

fn link(kind: &Kind, program: &OwnedFd) -> io::Result<OwnedFd> {
    #[repr(C)]
    struct Link {
        program: u32,
        device: u32,
        attach_type: u32,
        flags: u32,
        rest: [u64; 4],
    }
    let program = program.as_raw_fd().cast_unsigned();
    bpf(LINK, &Link { program, device: LOOPBACK, attach_type: kind.attach_type, flags: 0, rest: [0; 4] })
}

fn bpf<T>(command: libc::c_long, attributes: &T) -> io::Result<OwnedFd> {
    // SAFETY: the kernel reads as many bytes as the type has, and what they point to lives until it returns.
    let made = unsafe { libc::syscall(libc::SYS_bpf, command, &raw const *attributes, size_of::<T>()) };
    match i32::try_from(made) {
        // SAFETY: the kernel made this descriptor just now, for us alone.
        Ok(made) if made >= 0 => Ok(unsafe { OwnedFd::from_raw_fd(made) }),
        _ => Err(io::Error::last_os_error()),
    }
}
