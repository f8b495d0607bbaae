//! Sockets among the open files of processes, by the kernel's own iterator over those (`bpf_iter__task_file`, since 5.8). It touches
//! no descriptor: nothing is duplicated, received or held open.

use aya_ebpf::helpers::{
    bpf_probe_read_kernel,
    generated::{bpf_probe_read_kernel as read_bytes, bpf_seq_write},
};
use wire::{Endpoint, FAMILY_UNIX, HeldSocket, MISSING, PATH_LEN, Task, tcp_state};

use crate::kernel::{
    memory,
    read::{layout, read},
    sock,
};

/// What an iterator's program is handed over (`struct bpf_iter__task_file`): task and file are NULL once all were visited.
#[repr(C)]
pub struct TaskFile {
    meta: *const Meta,
    task: u64,
    fd: u64,
    file: u64,
}

/// The beginning of `struct bpf_iter_meta`.
#[repr(C)]
struct Meta {
    seq: *mut aya_ebpf::bindings::seq_file,
}

/// A descriptor that is a socket.
#[derive(Clone, Copy)]
pub struct OpenSocket {
    task: u64,
    fd: u32,
    inode: u64,
    pub sk: u64,
}

/// A field of the context, as a plain number: the verifier would have its own ideas about what a pointer to a task may be used for.
#[inline(always)]
fn field(ctx: *const TaskFile, offset: usize) -> u64 {
    // SAFETY: the helper checks the address.
    unsafe { bpf_probe_read_kernel(ctx.byte_add(offset).cast::<u64>()) }.unwrap_or(0)
}

/// The process that the visited descriptor belongs to.
#[inline(always)]
pub fn process(ctx: *const TaskFile) -> u32 {
    match field(ctx, core::mem::offset_of!(TaskFile, task)) {
        0 => 0,
        task => read(task, layout!(task_tgid)),
    }
}

/// The visited descriptor, if it is a socket.
#[inline(always)]
pub fn socket(ctx: *const TaskFile) -> Option<OpenSocket> {
    const TYPE: u16 = 0o170_000;
    const SOCKET: u16 = 0o140_000;
    let task = field(ctx, core::mem::offset_of!(TaskFile, task));
    let file = field(ctx, core::mem::offset_of!(TaskFile, file));
    if task == 0 || file == 0 {
        return None;
    }
    let inode: u64 = read(file, layout!(file_inode));
    if read::<u16>(inode, layout!(inode_mode)) & TYPE != SOCKET {
        return None;
    }
    let socket: u64 = read(file, layout!(file_private));
    // A path to a unix socket can be opened, too (O_PATH), and that is none.
    if socket == 0 || read::<u64>(socket, layout!(socket_file)) != file {
        return None;
    }
    let sk = of_tcp(read(socket, layout!(socket_sk)));
    let fd = field(ctx, core::mem::offset_of!(TaskFile, fd)) as u32;
    (sk != 0).then(|| OpenSocket { task, fd, inode: read(inode, layout!(inode_number)), sk })
}

/// The TCP socket under one of MPTCP's, which no descriptor names: a plain TCP client is its listener's. Any other socket is itself.
#[inline(always)]
fn of_tcp(sk: u64) -> u64 {
    if layout!(mptcp_first) == MISSING || sk == 0 || !sock::is_mptcp(sk) {
        return sk;
    }
    match read(sk, layout!(mptcp_first)) {
        0 => sk,
        first => first,
    }
}

/// Whether this is a TCP or a unix stream listener.
#[inline(always)]
pub fn is_listener(sk: u64) -> bool {
    const IPPROTO_TCP: u16 = 6;
    let is_tcp = || sock::is_inet(sk) && read::<u16>(sk, layout!(sk_protocol)) == IPPROTO_TCP;
    let is_unix = || read::<u16>(sk, layout!(family)) == FAMILY_UNIX && sock::is_stream(sk);
    read::<u8>(sk, layout!(state)) == tcp_state::LISTEN && (is_tcp() || is_unix())
}

/// The name of the process that the descriptor belongs to.
#[inline(always)]
pub fn holder(socket: &OpenSocket) -> Task {
    let leader: u64 = read(socket.task, layout!(task_leader));
    let tgid: u32 = read(leader, layout!(task_tgid));
    Task { tgid, tid: tgid, comm: read(leader, layout!(task_comm)) }
}

/// Writes a unix socket's name down.
#[inline(always)]
fn name(held: &mut HeldSocket, sk: u64) {
    const FAMILY_LEN: u32 = 2;
    let address: u64 = read(sk, layout!(unix_addr));
    if address == 0 {
        return;
    }
    let len = read::<u32>(address, layout!(unix_address_len)).wrapping_sub(FAMILY_LEN);
    // A path has its closing zero, for which there is room without it.
    let len = if len > PATH_LEN as u32 { PATH_LEN as u32 } else { len };
    held.name_len = len;
    let from = address + u64::from(layout!(unix_address_name) + FAMILY_LEN);
    // SAFETY: the helper checks where it reads; all of the name is written, and what is behind it is cut off by its length.
    unsafe { read_bytes(held.name.as_mut_ptr().cast(), PATH_LEN as u32, from as *const _) };
}

/// Emits a socket to userspace.
#[inline(always)]
pub fn emit(ctx: *const TaskFile, socket: &OpenSocket) {
    let sk = socket.sk;
    let mut room = core::mem::MaybeUninit::<HeldSocket>::uninit();
    // SAFETY: all zeroes are a value of the type.
    let held = unsafe { memory::cleared(&mut room) };
    held.sock = sk;
    held.inode = socket.inode;
    held.fd = socket.fd;
    let Task { tgid, comm, .. } = holder(socket);
    (held.tgid, held.comm) = (tgid, comm);
    held.netns = read(sock::net(sk), layout!(net_inum));
    held.kind = read(sk, layout!(sk_type));
    held.state = read(sk, layout!(state));
    let family: u16 = read(sk, layout!(family));
    if family == FAMILY_UNIX {
        if held.state == tcp_state::LISTEN {
            held.waiting = read(sk, layout!(receive_qlen));
        }
        held.local = Endpoint { addr: [0; 4], port: 0, family };
        held.is_bound = u8::from(read::<u64>(sk, layout!(unix_addr)) != 0);
        let peer: u64 = read(sk, layout!(unix_peer));
        held.has_peer = u32::from(peer != 0);
        if peer != 0 {
            name(held, peer);
        } else {
            name(held, sk);
        }
        if layout!(unix_dentry) != MISSING
            && layout!(dentry_inode) != MISSING
            && layout!(inode_number) != MISSING
        {
            let dentry: u64 = read(sk, layout!(unix_dentry));
            let inode: u64 = if dentry != 0 { read(dentry, layout!(dentry_inode)) } else { 0 };
            held.place = if inode != 0 { read(inode, layout!(inode_number)) } else { 0 };
        }
    } else if sock::is_inet(sk) {
        if held.state == tcp_state::LISTEN {
            held.waiting = read(sk, layout!(sk_ack_backlog));
        }
        held.local = sock::local(sk);
        held.remote = sock::remote(sk);
    }
    // SAFETY: the context and what it points to are the iterator's own, and the entry is wholly written. What does not fit is
    // visited again.
    unsafe {
        let seq = (*(*ctx).meta).seq;
        bpf_seq_write(seq, room.as_ptr().cast(), size_of::<HeldSocket>() as u32);
    }
}
