//! What keeps a process from connecting, though owner and mode, or routes, would allow it.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::Command;

use nix::libc;

/// What does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Confinement {
    /// A Landlock domain that allows no TCP connect: EACCES (since 6.7, `hook_socket_connect` in security/landlock/net.c).
    Landlock,
    /// A seccomp filter that answers each connect with EACCES.
    Seccomp,
}

/// `LANDLOCK_CREATE_RULESET_VERSION`, and what this kernel must know at least: rules about TCP.
const VERSION: libc::c_ulong = 1;
const WITH_TCP: libc::c_long = 4;
/// `LANDLOCK_ACCESS_NET_CONNECT_TCP` (include/uapi/linux/landlock.h).
const CONNECT_TCP: u64 = 1 << 1;

/// `struct landlock_ruleset_attr`, as far as version 4 has it.
#[repr(C)]
struct Ruleset {
    handled_access_fs: u64,
    handled_access_net: u64,
}

/// `SECCOMP_RET_ALLOW`, and `SECCOMP_RET_ERRNO` with EACCES in it (include/uapi/linux/seccomp.h).
const ALLOW: u32 = 0x7fff_0000;
const DENY: u32 = 0x0005_0000 | libc::EACCES as u32;

impl Confinement {
    /// Whether this kernel has it.
    pub fn is_here(self) -> bool {
        // SAFETY: asks for a version; takes no memory.
        let landlock = || unsafe {
            libc::syscall(libc::SYS_landlock_create_ruleset, std::ptr::null::<Ruleset>(), 0_usize, VERSION)
        };
        self == Confinement::Seccomp || landlock() >= WITH_TCP
    }

    /// Confines what this command will become, and all that it starts.
    pub fn put_on(self, command: &mut Command) {
        // SAFETY: only system calls, which are async-signal-safe, and nothing here allocates.
        unsafe { command.pre_exec(move || self.enter()) };
    }

    fn enter(self) -> io::Result<()> {
        // SAFETY: takes integers.
        check(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) }.into())?;
        match self {
            Confinement::Landlock => {
                let rules = Ruleset { handled_access_fs: 0, handled_access_net: CONNECT_TCP };
                // SAFETY: the kernel reads as many bytes as the type has.
                let made = unsafe {
                    libc::syscall(
                        libc::SYS_landlock_create_ruleset,
                        &raw const rules,
                        size_of::<Ruleset>(),
                        0,
                    )
                };
                // SAFETY: the kernel made this descriptor just now, for us alone.
                let _rules = unsafe { OwnedFd::from_raw_fd(check(made)? as i32) };
                // SAFETY: takes integers.
                check(unsafe { libc::syscall(libc::SYS_landlock_restrict_self, made, 0) })?;
            }
            Confinement::Seccomp => {
                let is = |code: u32, jump_false: u8, k: u32| libc::sock_filter {
                    code: code as u16,
                    jt: 0,
                    jf: jump_false,
                    k,
                };
                let connect = libc::SYS_connect as u32;
                // `seccomp_data.nr` is its first member.
                let mut filter = [
                    is(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
                    is(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, connect),
                    is(libc::BPF_RET | libc::BPF_K, 0, DENY),
                    is(libc::BPF_RET | libc::BPF_K, 0, ALLOW),
                ];
                let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
                let (set, mode) = (libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER);
                // SAFETY: the kernel reads as many instructions as there are.
                let answer = unsafe { libc::prctl(set, mode, &raw const program) };
                check(answer.into())?;
            }
        }
        Ok(())
    }
}

fn check(answer: libc::c_long) -> io::Result<libc::c_long> {
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}
