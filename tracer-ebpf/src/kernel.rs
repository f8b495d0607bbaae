//! Reading the running kernel's structures, at the offsets that userspace found in its BTF.

use core::mem::MaybeUninit;

use aya_ebpf::helpers::{
    bpf_get_current_pid_tgid, bpf_get_current_task,
    generated::{bpf_get_current_comm, bpf_probe_read_kernel},
};
use wire::{
    COMM_LEN, COMMON_LEN, Endpoint, FAMILY_INET, FAMILY_INET6, Filters, Layout, MISSING, READ_ONLY_CAST, Task,
};

/// Set by userspace before loading; read-only, so the verifier knows the values.
#[unsafe(no_mangle)]
pub static LAYOUT: Layout = Layout::EMPTY;

/// Set by userspace before loading; read-only, so the verifier knows the values.
#[unsafe(no_mangle)]
pub static FILTERS: Filters = Filters {
    comm: [0; 16],
    pid: 0,
    upstreams: 0,
    own_pid: 0,
    settle_ms: 0,
    listeners: 0,
    netns: 0,
    counts_upstreams: 0,
    trusts_all: 0,
    stack_bytes: 0,
    reads_nginx: 0,
    handshake_rows: 0,
};

/// `PF_EXITING`, include/linux/sched.h.
const PF_EXITING: u32 = 4;

/// One field of [`LAYOUT`].
macro_rules! layout {
    ($field:ident) => {
        // SAFETY: a static of this program; volatile because userspace replaces its bytes before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::LAYOUT.$field) }
    };
}
pub(crate) use layout;

/// One field of [`FILTERS`].
macro_rules! filter {
    ($field:ident) => {
        // SAFETY: a static of this program; volatile because userspace replaces its bytes before loading.
        unsafe { core::ptr::read_volatile(&raw const $crate::kernel::FILTERS.$field) }
    };
}
pub(crate) use filter;

/// Types that are plain memory: every value of every byte is one of theirs.
pub trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for i32 {}
impl Plain for u64 {}
impl<T: Plain, const N: usize> Plain for [T; N] {}

/// Reads a value at `base + offset`; all zeroes where the kernel refuses: the helper clears what it cannot fill, and an instruction that
/// faults reads as zero.
#[inline(always)]
pub fn read<T: Plain>(base: u64, offset: u32) -> T {
    let from = base.wrapping_add(u64::from(offset));
    let mut value = MaybeUninit::<T>::uninit();
    if layout!(number_type) == MISSING {
        // SAFETY: bpf_probe_read_kernel checks the address itself and writes the whole value, whatever comes of it.
        unsafe { fill(value.as_mut_ptr(), from as *const T) };
    } else {
        let to = value.as_mut_ptr();
        // SAFETY: pieces that the value is made of, all of them: an array, or a struct that is as aligned as its largest member.
        unsafe {
            match (size_of::<T>(), align_of::<T>()) {
                (1, _) | (_, 1) => look::<u8>(to.cast(), from, size_of::<T>()),
                (2, _) | (_, 2) => look::<u16>(to.cast(), from, size_of::<T>()),
                (4, _) | (_, 4) => look::<u32>(to.cast(), from, size_of::<T>()),
                _ => look::<u64>(to.cast(), from, size_of::<T>()),
            }
        }
    }
    // SAFETY: all of it was written.
    unsafe { value.assume_init() }
}

/// Looks at kernel memory piece by piece, each by one instruction, where [`READ_ONLY_CAST`] can be called.
///
/// # Safety
/// There is room for as many bytes, a multiple of a piece.
#[inline(always)]
unsafe fn look<P: Plain>(to: *mut P, from: u64, bytes: usize) {
    // SAFETY: to this target, a call of a constant address is one of the function of that number.
    let cast: unsafe extern "C" fn(u64, u32) -> *const P =
        unsafe { core::mem::transmute(u64::from(READ_ONLY_CAST.mark)) };
    for number in 0..bytes / size_of::<P>() {
        // Each call asks anew: to the verifier, the number must be a constant.
        let number_type = layout!(number_type);
        let place = from.wrapping_add((number * size_of::<P>()) as u64);
        // SAFETY: the caller answers for the room; what cannot be read reads as zero.
        unsafe { to.add(number).write_volatile(cast(place, number_type).read_volatile()) };
    }
}

/// Copies a value in one call. For what is larger than a few words the compiler would call its own copying loop, which takes a
/// byte at a time, in the kernel and before that in the verifier.
///
/// # Safety
/// `to` is a value's memory: the map's, the ring buffer's or the stack's.
#[inline(always)]
pub unsafe fn fill<T>(to: *mut T, from: *const T) {
    // SAFETY: the helper checks where it reads; the caller answers for where it writes.
    let _cleared = unsafe { bpf_probe_read_kernel(to.cast(), size_of::<T>() as u32, from.cast()) };
}

/// Clears a value in one call, for the same reason: there is nothing to read at address zero.
///
/// # Safety
/// As [`fill`]'s; all zeroes must be a value of the type.
#[inline(always)]
pub unsafe fn clear<T>(to: *mut T) {
    // SAFETY: the same.
    unsafe { fill(to, core::ptr::null()) }
}

/// A value of all zeroes in that room: what is too large to be written word by word belongs on the stack, for a map's entry for each CPU
/// is another task's as well where the kernel preempts programs.
///
/// # Safety
/// All zeroes must be a value of the type.
#[inline(always)]
pub unsafe fn cleared<T>(room: &mut MaybeUninit<T>) -> &mut T {
    // SAFETY: the caller answers for the value.
    unsafe {
        clear(room.as_mut_ptr());
        room.assume_init_mut()
    }
}

/// Whether two addresses are the same, word by word: written as one, the compiler calls its loop, which takes a byte at a time. Without a
/// branch for each word, which verifiers would follow each.
#[inline(always)]
pub fn is_same(one: &[u32; 4], other: &[u32; 4]) -> bool {
    (one[0] ^ other[0]) | (one[1] ^ other[1]) | (one[2] ^ other[2]) | (one[3] ^ other[3]) == 0
}

/// Whether a task has this name, word by word for the same reason.
#[inline(always)]
pub fn is_named(task: &Task, name: &[u8; COMM_LEN]) -> bool {
    let word = |name: &[u8; COMM_LEN], number: usize| {
        // SAFETY: within; both names lie where a u32 may: behind others, or at the start of a struct that has some.
        unsafe { name.as_ptr().cast::<u32>().add(number).read_volatile() }
    };
    word(&task.comm, 0) == word(name, 0)
        && word(&task.comm, 1) == word(name, 1)
        && word(&task.comm, 2) == word(name, 2)
        && word(&task.comm, 3) == word(name, 3)
}

/// Clears an address, word by word: written as one, the compiler calls its loop.
#[inline(always)]
pub fn unspecify(addr: &mut [u32; 4]) {
    for word in addr {
        // SAFETY: a reference.
        unsafe { core::ptr::write_volatile(word, 0) };
    }
}

/// An index whose bounds every verifier knows: it has no other bits than `MASK`. To those before 7.0 a byte swap, of whatever width,
/// yields any number; and the compiler knows better than they do and would leave a mask or a comparison out.
#[inline(always)]
pub fn bounded<const MASK: u64>(mut index: u64) -> usize {
    // SAFETY: a mask, and nothing else.
    unsafe {
        core::arch::asm!("{index} &= {mask}", index = inout(reg) index, mask = const MASK, options(pure, nomem, nostack));
    }
    index as usize
}

/// Adds to a counter in a map, atomically.
///
/// # Safety
/// The counter is in a map's memory and aligned.
#[inline(always)]
pub unsafe fn add(counter: *mut u64, by: u64) {
    // SAFETY: as the caller says. Inline because core has no atomic addition for this target; this is the instruction every
    // kernel with BPF knows (BPF_ATOMIC | BPF_ADD).
    unsafe {
        core::arch::asm!(
            "lock *(u64 *)({counter} + 0) += {by}",
            counter = in(reg) counter,
            by = in(reg) by,
            options(nostack),
        );
    }
}

/// The remote and the local port, host order. The local one is 0 once the port was given back.
#[inline(always)]
pub fn ports(sk: u64) -> (u16, u16) {
    let [remote, local] = read::<[u16; 2]>(sk, layout!(dport));
    (u16::from_be(remote), local)
}

/// The local port, host order, also after the port was given back.
#[inline(always)]
pub fn lasting_local_port(sk: u64) -> u16 {
    u16::from_be(read(sk, layout!(inet_sport)))
}

/// An IPv4 address in network order, mapped into IPv6.
#[inline(always)]
pub fn mapped(addr: u32) -> [u32; 4] {
    [0, 0, 0xffff_u32.to_be(), addr]
}

/// What nearly everything about a socket is found in, read in one call: each call costs more than the bytes do.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Common([u64; COMMON_LEN as usize / size_of::<u64>()]);

impl Plain for Common {}

impl Common {
    /// The start of this socket as it is now.
    #[inline(always)]
    pub fn of(sk: u64) -> Self {
        read(sk, 0)
    }

    /// Userspace has made sure that these offsets lie within, and they are those of fields of this type.
    #[inline(always)]
    fn at<T: Plain>(&self, offset: u32) -> T {
        // SAFETY: within, and aligned as the kernel's own compiler has done it; the type is plain.
        unsafe { (&raw const self.0).cast::<u8>().add(offset as usize).cast::<T>().read_volatile() }
    }

    #[inline(always)]
    fn words(&self, offset: u32) -> [u32; 4] {
        [self.at(offset), self.at(offset + 4), self.at(offset + 8), self.at(offset + 12)]
    }

    /// The address family.
    #[inline(always)]
    pub fn family(&self) -> u16 {
        self.at(layout!(family))
    }

    /// Whether this is an IPv4 or IPv6 socket.
    #[inline(always)]
    pub fn is_inet(&self) -> bool {
        let family = self.family();
        family == FAMILY_INET || family == FAMILY_INET6
    }

    /// `struct net` of the socket.
    #[inline(always)]
    pub fn net(&self) -> u64 {
        self.at(layout!(net))
    }

    /// The TCP state.
    #[inline(always)]
    pub fn state(&self) -> u8 {
        self.at(layout!(state))
    }

    /// The socket's peer.
    #[inline(always)]
    pub fn remote(&self) -> Endpoint {
        let family = self.family();
        let addr = if family == FAMILY_INET {
            mapped(self.at(layout!(daddr)))
        } else {
            self.words(layout!(v6_daddr))
        };
        Endpoint { addr, port: u16::from_be(self.at(layout!(dport))), family }
    }

    /// The peer's port, host order.
    #[inline(always)]
    pub fn remote_port(&self) -> u16 {
        u16::from_be(self.at(layout!(dport)))
    }

    /// The socket's own address; its port is 0 once it was given back.
    #[inline(always)]
    pub fn local(&self) -> Endpoint {
        let family = self.family();
        let addr = if family == FAMILY_INET {
            mapped(self.at(layout!(saddr)))
        } else {
            self.words(layout!(v6_saddr))
        };
        Endpoint { addr, port: self.at(layout!(dport) + 2), family }
    }
}

/// The socket's peer.
#[inline(always)]
pub fn remote(sk: u64) -> Endpoint {
    let family: u16 = read(sk, layout!(family));
    let addr =
        if family == FAMILY_INET { mapped(read(sk, layout!(daddr))) } else { read(sk, layout!(v6_daddr)) };
    Endpoint { addr, port: ports(sk).0, family }
}

/// The socket's own address.
#[inline(always)]
pub fn local(sk: u64) -> Endpoint {
    let family: u16 = read(sk, layout!(family));
    let addr =
        if family == FAMILY_INET { mapped(read(sk, layout!(saddr))) } else { read(sk, layout!(v6_saddr)) };
    Endpoint { addr, port: lasting_local_port(sk), family }
}

/// Writes the socket's own address there, piece by piece: nothing of it takes room on the stack.
///
/// # Safety
/// As [`fill`]'s.
#[inline(always)]
pub unsafe fn fill_local(to: *mut Endpoint, sk: u64) {
    let family: u16 = read(sk, layout!(family));
    let v6_addr = sk.wrapping_add(u64::from(layout!(v6_saddr)));
    if family == FAMILY_INET {
        let addr = mapped(read(sk, layout!(saddr)));
        // SAFETY: the caller answers for it.
        unsafe { (&raw mut (*to).addr).write(addr) };
    } else {
        // SAFETY: the same.
        unsafe { fill(&raw mut (*to).addr, v6_addr as *const _) };
    }
    let port = lasting_local_port(sk);
    // SAFETY: the same.
    unsafe {
        (&raw mut (*to).family).write(family);
        (&raw mut (*to).port).write(port);
    }
}

/// Whether this is an IPv4 or IPv6 socket.
#[inline(always)]
pub fn is_inet(sk: u64) -> bool {
    let family: u16 = read(sk, layout!(family));
    family == FAMILY_INET || family == FAMILY_INET6
}

/// Whether this is a socket of MPTCP's: not the one that the kernel listens on or sends by, but what a process has in its place.
#[inline(always)]
pub fn is_mptcp(sk: u64) -> bool {
    const IPPROTO_MPTCP: u16 = 262;
    is_inet(sk) && read::<u16>(sk, layout!(sk_protocol)) == IPPROTO_MPTCP
}

/// `struct net` of the socket.
#[inline(always)]
pub fn net(sk: u64) -> u64 {
    read(sk, layout!(net))
}

/// Whether the socket counts as one of this host.
#[inline(always)]
pub fn is_here(sk: u64) -> bool {
    let netns = filter!(netns);
    netns == 0 || read::<u32>(net(sk), layout!(net_inum)) == netns
}

/// Whether `sk_socket` is set: a process holds the socket.
#[inline(always)]
pub fn has_socket(sk: u64) -> bool {
    read::<u64>(sk, layout!(sk_socket)) != 0
}

/// The number of the socket's inode; zero while no process has it, or where the kernel does not show it.
#[inline(always)]
pub fn inode(sk: u64) -> u64 {
    if layout!(socket_inode) == MISSING || layout!(inode_number) == MISSING {
        return 0;
    }
    let socket: u64 = read(sk, layout!(sk_socket));
    if socket == 0 { 0 } else { read(socket, layout!(socket_inode) + layout!(inode_number)) }
}

/// Whether the peer has closed (`RCV_SHUTDOWN`, include/net/sock.h).
#[inline(always)]
pub fn has_peer_closed(sk: u64) -> bool {
    const RCV_SHUTDOWN: u8 = 1;
    read::<u8>(sk, layout!(sk_shutdown)) & RCV_SHUTDOWN != 0
}

/// Whether this end, and this alone, has ended its side and would still receive (`shutdown(SHUT_WR)`): close ends both at once
/// (`__tcp_close`, net/ipv4/tcp.c).
#[inline(always)]
pub fn is_half_closed(sk: u64) -> bool {
    const SEND_SHUTDOWN: u8 = 2;
    const SHUTDOWN_MASK: u8 = 3;
    read::<u8>(sk, layout!(sk_shutdown)) & SHUTDOWN_MASK == SEND_SHUTDOWN
}

/// Whether a process is inside a call on the socket; false while the network works on it.
#[inline(always)]
pub fn is_owned(sk: u64) -> bool {
    read::<u32>(sk, layout!(sk_owned)) != 0
}

/// Whether the last send found no room in the socket's buffer (`SOCK_NOSPACE`, include/linux/net.h).
#[inline(always)]
pub fn wants_room(sk: u64) -> bool {
    const SOCK_NOSPACE: u64 = 2;
    let socket: u64 = read(sk, layout!(sk_socket));
    socket != 0 && read::<u64>(socket, layout!(socket_flags)) & (1 << SOCK_NOSPACE) != 0
}

/// Data bytes sent, those sent again not counted twice.
#[inline(always)]
pub fn bytes_sent(sk: u64) -> u64 {
    read::<u64>(sk, layout!(bytes_sent)).saturating_sub(read(sk, layout!(bytes_retrans)))
}

/// Bytes in the receive queue; a FIN counts as one.
#[inline(always)]
pub fn unread(sk: u64) -> u32 {
    read::<u32>(sk, layout!(rcv_nxt)).wrapping_sub(read(sk, layout!(copied_seq)))
}

/// The running task. Only meaningful in process context.
#[inline(always)]
pub fn current() -> Task {
    let pid_tgid = bpf_get_current_pid_tgid();
    Task { tgid: (pid_tgid >> 32) as u32, tid: pid_tgid as u32, comm: current_comm() }
}

/// The running thread's name.
#[inline(always)]
fn current_comm() -> [u8; COMM_LEN] {
    const WORDS: usize = COMM_LEN / size_of::<u64>();
    let mut name = MaybeUninit::<[u64; WORDS]>::uninit();
    let words = name.as_mut_ptr().cast::<u64>();
    // SAFETY: all of the array is written here. Cleared word by word, for the compiler's loop takes a byte at a time; and cleared
    // first, for from 5.19 to 6.1 the helper leaves what follows a short name as it was (strscpy).
    let name = unsafe {
        for word in 0..WORDS {
            words.add(word).write_volatile(0);
        }
        bpf_get_current_comm(words.cast(), COMM_LEN as u32);
        name.assume_init()
    };
    // SAFETY: as many bytes, and any are a name.
    unsafe { core::mem::transmute::<[u64; WORDS], [u8; COMM_LEN]>(name) }
}

/// The address of the running task.
#[inline(always)]
pub fn current_task() -> u64 {
    // SAFETY: the helper takes nothing.
    unsafe { bpf_get_current_task() }
}

/// The exit code of the running task, if it is exiting (`do_exit` sets both before it closes files).
#[inline(always)]
pub fn current_exit() -> Option<u32> {
    let task = current_task();
    let flags: u32 = read(task, layout!(task_flags));
    (flags & PF_EXITING != 0).then(|| read(task, layout!(task_exit_code)))
}

/// When the process that `task` is a thread of began.
#[inline(always)]
pub fn began(task: u64) -> u64 {
    read(read(task, layout!(task_leader)), layout!(task_start_time))
}

/// Whether an address lies on the running task's own stack in the kernel: a system call of that task has put there what it points to, or a
/// fault has. Interrupts have stacks of their own.
#[inline(always)]
pub fn is_on_stack(address: u64) -> bool {
    let task = current_task();
    let stack: u64 = read(task, layout!(task_stack));
    stack != 0 && address.wrapping_sub(stack) < u64::from(filter!(stack_bytes))
}

/// The running thread, as userspace numbers it.
#[inline(always)]
pub fn thread() -> u32 {
    bpf_get_current_pid_tgid() as u32
}

/// The running task's process.
#[inline(always)]
pub fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}

/// The process id of the running task's parent.
#[inline(always)]
pub fn current_parent() -> u32 {
    let task = current_task();
    read(read(task, layout!(task_parent)), layout!(task_tgid))
}

/// Whether a socket is a stream: TCP or one of unix's. Datagrams are no exchange.
#[inline(always)]
pub fn is_stream(sk: u64) -> bool {
    const SOCK_STREAM: u16 = 1;
    read::<u16>(sk, layout!(sk_type)) == SOCK_STREAM
}

/// The sock behind a descriptor of the running process; zero, or an address that no map knows, for anything else.
#[inline(always)]
pub fn sock_of(fd: u64) -> u64 {
    let task = current_task();
    let files: u64 = read(task, layout!(task_files));
    let table: u64 = read(files, layout!(files_fdt));
    let entries: u64 = read(table, layout!(fdtable_fd));
    let file: u64 = read(entries.wrapping_add(u64::from(fd as u32) * 8), 0);
    let socket: u64 = read(file, layout!(file_private));
    read(socket, layout!(socket_sk))
}
