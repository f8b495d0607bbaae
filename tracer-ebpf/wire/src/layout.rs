//! What userspace hands over before the programs are loaded: the running kernel's layout, and the filters.

use crate::COMM_LEN;

/// The value of an offset or a number that the running kernel does not have.
pub const MISSING: u32 = u32::MAX;

macro_rules! layout {
    ($($(#[$meta:meta])* $field:ident: $name:literal,)*) => {
        /// Byte offsets, argument positions and enum values of the running kernel, from its BTF.
        #[repr(C)]
        #[cfg_attr(feature = "user", derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout))]
        #[derive(Clone, Copy, Debug)]
        pub struct Layout {
            $($(#[$meta])* pub $field: u32,)*
        }

        impl Layout {
            /// Everything [`MISSING`].
            pub const EMPTY: Self = Self { $($field: MISSING,)* };

            /// Each field's name in the kernel, in the order of the fields: `struct.member.member`,
            /// `arg:tracepoint.number`, `args:function` (how many), `enum:type.value`, or `type:struct` (its number in the BTF). Of these the first must exist,
            /// unless a question mark stands before it.
            pub const NAMES: &'static [&'static str] = &[$($name,)*];

            /// The layout with its fields set in the order of [`Layout::NAMES`].
            pub fn from_values(values: &[u32]) -> Option<Self> {
                let mut values = values.iter().copied();
                let layout = Self { $($field: values.next()?,)* };
                values.next().is_none().then_some(layout)
            }
        }
    };
}

layout! {
    /// Remote IPv4 address.
    daddr: "sock_common.skc_daddr",
    /// Local IPv4 address.
    saddr: "sock_common.skc_rcv_saddr",
    /// Remote port in network order; the local one in host order follows.
    dport: "sock_common.skc_dport",
    /// Address family.
    family: "sock_common.skc_family",
    /// TCP state.
    state: "sock_common.skc_state",
    /// Network namespace.
    net: "sock_common.skc_net.net",
    /// Remote IPv6 address.
    v6_daddr: "sock_common.skc_v6_daddr",
    /// Local IPv6 address.
    v6_saddr: "sock_common.skc_v6_rcv_saddr",
    /// Pending error.
    sk_err: "sock.sk_err",
    /// A function's first argument on x86-64, where a kprobe finds it.
    register_0: "?pt_regs.di",
    /// The second.
    register_1: "?pt_regs.si",
    /// The third.
    register_2: "?pt_regs.dx",
    /// The fourth.
    register_3: "?pt_regs.cx",
    /// The fifth.
    register_4: "?pt_regs.r8",
    /// Whether a process has the socket locked (`sock_owned_by_user`).
    sk_owned: "sock.sk_lock.owned",
    /// Which directions are shut down.
    sk_shutdown: "sock.sk_shutdown",
    /// An error that does not end the connection by itself.
    sk_err_soft: "sock.sk_err_soft",
    /// Errors with their ICMP messages, the newest one.
    sk_error_queue: "sock.sk_error_queue.next",
    /// In a packet of that queue.
    skb_cb: "sk_buff.cb",
    /// In there, a `struct sock_extended_err`, which is part of the kernel's user interface.
    extended_err: "?sock_exterr_skb.ee",
    /// The file's side of the socket; NULL until accepted and once orphaned.
    sk_socket: "sock.sk_socket",
    /// Who waits for the socket.
    sk_wait_queue: "sock.sk_wq",
    /// The first of them.
    wait_queue_head: "socket_wq.wait.head",
    /// One of them that is epoll's.
    epoll_entry_wait: "?eppoll_entry.wait.entry",
    /// What was given to epoll there.
    epoll_entry_item: "?eppoll_entry.base",
    /// And with it, for itself.
    epoll_data: "?epitem.event.data",
    /// Connections waiting to be accepted.
    sk_ack_backlog: "sock.sk_ack_backlog",
    /// Effective backlog.
    sk_max_ack_backlog: "sock.sk_max_ack_backlog",
    /// Packets that a listener dropped.
    sk_drops: "sock.sk_drops",
    /// SOCK_STREAM and others.
    sk_type: "sock.sk_type",
    /// IPPROTO_TCP and others.
    sk_protocol: "sock.sk_protocol",
    /// Local port in network order; outlives `skc_num`.
    inet_sport: "inet_sock.inet_sport",
    /// First unacknowledged sequence number.
    snd_una: "tcp_sock.snd_una",
    /// Next sequence number to send.
    snd_nxt: "tcp_sock.snd_nxt",
    /// What follows the last byte that the process gave, sent or not.
    write_seq: "tcp_sock.write_seq",
    /// Next sequence number expected.
    rcv_nxt: "tcp_sock.rcv_nxt",
    /// First sequence number the process has not read.
    copied_seq: "tcp_sock.copied_seq",
    /// Data bytes sent, retransmissions included.
    bytes_sent: "tcp_sock.bytes_sent",
    /// Data bytes sent again.
    bytes_retrans: "tcp_sock.bytes_retrans",
    /// Bytes received in order.
    bytes_received: "tcp_sock.bytes_received",
    /// The root of the tree of packets that came before those they follow.
    out_of_order: "?tcp_sock.out_of_order_queue.rb_node",
    /// The last of them by its sequence number; it means nothing while the tree is empty.
    out_of_order_last: "?tcp_sock.ooo_last_skb",
    /// What follows the last byte of a packet, in [`Self::skb_cb`].
    skb_end_seq: "?tcp_skb_cb.end_seq",
    /// Retransmissions in total.
    total_retrans: "tcp_sock.total_retrans",
    /// Network namespace's inode number.
    net_inum: "net.ns.inum",
    /// The sysctl net.ipv4.tcp_syncookies, for IPv6 too.
    net_syncookies: "?net.ipv4.sysctl_tcp_syncookies",
    /// Process id.
    task_tgid: "task_struct.tgid",
    /// The process's first thread.
    task_leader: "task_struct.group_leader",
    /// When a thread began, by CLOCK_MONOTONIC.
    task_start_time: "task_struct.start_time",
    /// The same by the clock that counts while the machine sleeps: what /proc shows.
    task_start_boottime: "task_struct.start_boottime",
    /// Parent process.
    task_parent: "task_struct.real_parent",
    /// Whose rights a task has.
    task_cred: "task_struct.cred",
    /// Its real user, as the initial user namespace numbers him.
    cred_uid: "cred.uid",
    /// A task's memory.
    task_mm: "task_struct.mm",
    /// The executable in it.
    mm_exe: "mm_struct.exe_file",
    /// Where a process's arguments begin in it, which a process may write anew.
    mm_arg_start: "mm_struct.arg_start",
    /// How often a task has slept.
    task_nvcsw: "task_struct.nvcsw",
    /// Its stack in the kernel.
    task_stack: "task_struct.stack",
    /// PF_EXITING and others.
    task_flags: "task_struct.flags",
    /// What wait(2) will say.
    task_exit_code: "task_struct.exit_code",
    /// A signal's origin.
    si_code: "kernel_siginfo.si_code",
    /// Start of a packet's buffer.
    skb_head: "sk_buff.head",
    /// Offset of the transport header in it.
    skb_transport_header: "sk_buff.transport_header",
    /// Offset of the network header in a packet's buffer.
    skb_network_header: "sk_buff.network_header",
    /// Handshakes that are not over.
    syn_queue: "inet_connection_sock.icsk_accept_queue.qlen",
    /// A unix socket's peer.
    unix_peer: "unix_sock.peer",
    /// A unix socket's address.
    unix_addr: "unix_sock.addr",
    /// The listener whose queue a unix socket waits in (since 6.10).
    unix_listener: "?unix_sock.listener",
    /// The TCP socket under one of MPTCP's, of a listener the one that the kernel listens on (net/mptcp/protocol.h).
    mptcp_first: "?mptcp_sock.first",
    /// The file that a unix socket was bound to.
    unix_dentry: "?unix_sock.path.dentry",
    /// A file's inode.
    dentry_inode: "?dentry.d_inode",
    /// The path in a unix socket's address; the family comes before it.
    unix_address_name: "unix_address.name",
    /// Packets, and on a unix listener connections, that wait.
    receive_qlen: "sock.sk_receive_queue.qlen",
    /// A task's open files.
    task_files: "task_struct.files",
    /// Their table.
    files_fdt: "files_struct.fdt",
    /// Its entries.
    fdtable_fd: "fdtable.fd",
    /// A socket's file's socket.
    file_private: "file.private_data",
    /// A file's inode.
    file_inode: "file.f_inode",
    /// What kind of file it is.
    inode_mode: "inode.i_mode",
    /// A socket's file.
    socket_file: "socket.file",
    /// A task's name.
    task_comm: "task_struct.comm",
    /// What a task's paths begin at.
    task_fs: "task_struct.fs",
    /// The mount of its root.
    fs_root_mount: "fs_struct.root.mnt",
    /// Its root.
    fs_root: "fs_struct.root.dentry",
    /// How long a unix socket's address is, with its family.
    unix_address_len: "unix_address.len",
    /// The sockets that share an address (`SO_REUSEPORT`).
    sk_reuseport: "?sock.sk_reuseport_cb",
    /// How many of them listen.
    reuseport_count: "?sock_reuseport.num_socks",
    /// They themselves.
    reuseport_socks: "?sock_reuseport.socks",
    /// A socket's sock.
    socket_sk: "socket.sk",
    /// SOCK_NOSPACE and others.
    socket_flags: "socket.flags",
    /// Whether `kfree_skb` names its reason (since 5.17).
    drop_reason_arg: "arg:kfree_skb.2",
    /// A netfilter rule.
    drop_netfilter: "enum:skb_drop_reason.SKB_DROP_REASON_NETFILTER_DROP",
    /// Reverse path filtering.
    drop_rpfilter: "enum:skb_drop_reason.SKB_DROP_REASON_IP_RPFILTER",
    /// A neighbour that did not answer.
    drop_neighbour: "enum:skb_drop_reason.SKB_DROP_REASON_NEIGH_FAILED",
    /// A full accept queue at the end of the handshake (absent in 6.12, present in 6.18).
    drop_listen_overflow: "enum:skb_drop_reason.SKB_DROP_REASON_TCP_LISTEN_OVERFLOW",
    /// A tc filter, or a BPF program in its place, on an interface's way in.
    drop_tc_ingress: "enum:skb_drop_reason.SKB_DROP_REASON_TC_INGRESS",
    /// A tc filter, or a BPF program in its place, on an interface's way out.
    drop_tc_egress: "enum:skb_drop_reason.SKB_DROP_REASON_TC_EGRESS",
    /// An XDP program of an interface.
    drop_xdp: "enum:skb_drop_reason.SKB_DROP_REASON_XDP",
    /// The queueing discipline of an interface.
    drop_qdisc: "enum:skb_drop_reason.SKB_DROP_REASON_QDISC_DROP",
    /// The queueing discipline of an interface, whose queue was full.
    drop_qdisc_overlimit: "enum:skb_drop_reason.SKB_DROP_REASON_QDISC_OVERLIMIT",
    /// The queueing discipline of an interface, against congestion.
    drop_qdisc_congested: "enum:skb_drop_reason.SKB_DROP_REASON_QDISC_CONGESTED",
    /// A BPF program of a cgroup, on the way out.
    drop_cgroup_egress: "enum:skb_drop_reason.SKB_DROP_REASON_BPF_CGROUP_EGRESS",
    /// A socket's filter, or a BPF program of a cgroup on the way in.
    drop_socket_filter: "enum:skb_drop_reason.SKB_DROP_REASON_SOCKET_FILTER",
    /// A security module.
    drop_security_hook: "enum:skb_drop_reason.SKB_DROP_REASON_SECURITY_HOOK",
    /// A CPU's full backlog of packets.
    drop_cpu_backlog: "enum:skb_drop_reason.SKB_DROP_REASON_CPU_BACKLOG",
    /// An IPsec policy.
    drop_xfrm_policy: "enum:skb_drop_reason.SKB_DROP_REASON_XFRM_POLICY",
    /// The lack of a route for it when it came in.
    drop_in_no_routes: "enum:skb_drop_reason.SKB_DROP_REASON_IP_INNOROUTES",
    /// The lack of a route for it on the way out.
    drop_out_no_routes: "enum:skb_drop_reason.SKB_DROP_REASON_IP_OUTNOROUTES",
    /// The full queue of a neighbour whose link address is not known yet.
    drop_neighbour_queue: "enum:skb_drop_reason.SKB_DROP_REASON_NEIGH_QUEUEFULL",
    /// A neighbour's entry that was being removed.
    drop_neighbour_dead: "enum:skb_drop_reason.SKB_DROP_REASON_NEIGH_DEAD",
    /// TCP, for it lacks an MD5 signature that this host expects.
    drop_md5_not_found: "enum:skb_drop_reason.SKB_DROP_REASON_TCP_MD5NOTFOUND",
    /// TCP, for it has an MD5 signature that this host does not expect.
    drop_md5_unexpected: "enum:skb_drop_reason.SKB_DROP_REASON_TCP_MD5UNEXPECTED",
    /// TCP, for its checksum was wrong.
    drop_tcp_checksum: "enum:skb_drop_reason.SKB_DROP_REASON_TCP_CSUM",
    /// IP, for its checksum was wrong.
    drop_ip_checksum: "enum:skb_drop_reason.SKB_DROP_REASON_IP_CSUM",
    /// The lack of memory.
    drop_no_memory: "enum:skb_drop_reason.SKB_DROP_REASON_NOMEM",
    /// TCP's limit of memory.
    drop_protocol_memory: "enum:skb_drop_reason.SKB_DROP_REASON_PROTO_MEM",
    /// A virtual interface's full ring.
    drop_full_ring: "enum:skb_drop_reason.SKB_DROP_REASON_FULL_RING",
    /// IP, for it was larger than the MTU.
    drop_too_big: "enum:skb_drop_reason.SKB_DROP_REASON_PKT_TOO_BIG",
    /// IPv6, which is disabled on the interface.
    drop_ipv6_disabled: "enum:skb_drop_reason.SKB_DROP_REASON_IPV6DISABLED",
    /// IP, for it came from outside with an address of this host's own.
    drop_local_source: "enum:skb_drop_reason.SKB_DROP_REASON_IP_LOCAL_SOURCE",
    /// IP, for its source address is none.
    drop_invalid_source: "enum:skb_drop_reason.SKB_DROP_REASON_IP_INVALID_SOURCE",
    /// IP, for a loopback address came from outside.
    drop_localnet: "enum:skb_drop_reason.SKB_DROP_REASON_IP_LOCALNET",
    /// An interface that was not up.
    drop_device: "enum:skb_drop_reason.SKB_DROP_REASON_DEV_READY",
    /// How many arguments `tcp_recvmsg` has: 6 with `nonblock` (to 5.18), then 5.
    tcp_recvmsg_args: "args:tcp_recvmsg",
    /// How many arguments `tcp_v4_syn_recv_sock` and its IPv6 twin have: 6, or 7 with a later change that was backported.
    syn_recv_sock_args: "args:tcp_v4_syn_recv_sock",
    /// Whether `tcp_send_reset` names its reason (since 6.10).
    reset_reason_arg: "arg:tcp_send_reset.2",
    /// The newest request in a listener's accept queue.
    accept_tail: "?inet_connection_sock.icsk_accept_queue.rskq_accept_tail",
    /// The socket that waits behind a request.
    request_child: "?request_sock.sk",
    /// A socket's inode.
    socket_inode: "?socket_alloc.vfs_inode",
    /// An inode's number.
    inode_number: "?inode.i_ino",
    /// The socket a packet belongs to.
    skb_sk: "sk_buff.sk",
    /// A packet's route, with two flags in its lowest bits.
    skb_route: "?sk_buff._skb_refdst",
    /// A route's device.
    route_device: "?dst_entry.dev",
    /// A device's network namespace.
    device_net: "?net_device.nd_net.net",
    /// The sysctl net.ipv4.tcp_abort_on_overflow, for IPv6 too.
    net_abort_on_overflow: "?net.ipv4.sysctl_tcp_abort_on_overflow",
    /// A network namespace's counters, one copy for each processor.
    net_statistics: "?net.mib.net_statistics",
    /// Where an array map for each processor has its entries.
    array_pptrs: "?bpf_array.pptrs",
    /// Whether `consume_skb` names its caller (since 6.3).
    consume_caller_arg: "arg:consume_skb.1",
    /// Whether `kfree_skb` names the socket that would have received the packet (since 6.11).
    drop_socket_arg: "arg:kfree_skb.3",
    /// A type that begins with eight bytes of a number: what kernel memory is looked at as, where [`crate::READ_ONLY_CAST`] can be called;
    /// else missing.
    number_type: "type:timespec64",
}

/// Where in `struct pt_regs` the register lies that holds a function's argument, in bytes: `named` on x86-64, whose registers have names
/// ([`Layout::register_0`] and those after it); where that is [`MISSING`], they begin the struct in the arguments' order, as on arm64
/// (`regs[31]` in arch/arm64/include/asm/ptrace.h).
#[inline(always)]
pub const fn register_at(named: u32, position: u32) -> u64 {
    if named == MISSING { 8 * position as u64 } else { named as u64 }
}

/// How many bytes of a socket are read at once where several of its first fields are needed: all of those that
/// [`Layout::ends_of_common`] lists must lie within. A multiple of eight.
pub const COMMON_LEN: u32 = 96;

impl Layout {
    /// Where the fields end that are read together.
    pub const fn ends_of_common(&self) -> [u32; 8] {
        [
            self.daddr.saturating_add(4),
            self.saddr.saturating_add(4),
            self.dport.saturating_add(4),
            self.family.saturating_add(2),
            self.state.saturating_add(1),
            self.net.saturating_add(8),
            self.v6_daddr.saturating_add(16),
            self.v6_saddr.saturating_add(16),
        ]
    }
}

/// Which exchanges are ours.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Filters {
    /// The connecting task's name, or all zeroes for any.
    pub comm: [u8; COMM_LEN],
    /// The connecting process or its parent, or zero for any.
    pub pid: u32,
    /// One where only upstreams in the `WANTED` map count.
    pub upstreams: u32,
    /// The tracer's own process.
    pub own_pid: u32,
    /// How long after its last read a closed end still counts as plainly finished, in ms.
    pub settle_ms: u32,
    /// One where connections to the listeners in the `SERVED` map are emitted though nginx is on another host.
    pub listeners: u32,
    /// The inode number of the only network namespace whose sockets are of this host, or zero for all.
    pub netns: u32,
    /// One where exchanges are counted by upstream, too.
    pub counts_upstreams: u32,
    /// One where whoever has the name is watched, whoever runs him.
    pub trusts_all: u32,
    /// How large a task's stack in the kernel is at least, in bytes (`THREAD_SIZE`).
    pub stack_bytes: u32,
    /// One where nginx's memory may be read.
    pub reads_nginx: u32,
    /// How many rows the table of handshakes has whose worker's end is on another host, or late: a power of two.
    pub handshake_rows: u32,
}

/// What userspace knows only after it has attached the hooks.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Attached {
    /// One where `unix_release_sock` is hooked: a unix socket's end is seen when it happens.
    pub unix_release: u8,
    /// One where the functions that end handshakes are hooked: packet drops of the same reason would count twice.
    pub handshake_drops: u8,
    /// One where each reset that this host's TCP sends is seen, also those that no socket sends.
    pub own_resets: u8,
    /// One where the standby instances of programs are attached.
    pub standby: u8,
    /// One where system calls are traced.
    pub system_calls: u8,
    /// One where kretprobes show how sends end, which miss some ([`crate::Stats::returns_missed`]).
    pub sends_by_kprobe: u8,
    /// One where they show which connects fail at once.
    pub connects_by_kprobe: u8,
    /// Always zero.
    pub reserved: u8,
}

/// The numbers that nearly every event asks for, in the map `GATES`.
pub mod gate {
    /// Where [`crate::Attached`] is, which is as long as a number. What lies before it is left empty: kernels of today put the first entry at
    /// the end of a line of the cache, and the others on the next one.
    pub const ATTACHED: u32 = 1;
    /// How many entries there are.
    pub const LEN: u32 = 8;
}

/// How complete the known listeners are: the numbers in the map `SHOWN`, each only written by one side while the other looks.
pub mod shown {
    /// How often a listener found no room; more than none also where they could not all be shown.
    pub const LEFT_OUT: u32 = 0;
    /// How many times userspace began to show them.
    pub const BEGUN: u32 = 1;
    /// The number of the last time that all of them were shown.
    pub const DONE: u32 = 2;
    /// How many numbers there are.
    pub const LEN: u32 = 3;
}

/// Hashes of events that can be between their instances at a time; a power of two.
pub const SEEN_LEN: u32 = 4_096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_register_is_found_by_its_name_or_else_by_its_place() {
        // x86-64's first argument, rdi.
        assert_eq!(register_at(112, 0), 112);
        // arm64's x0 and x4.
        assert_eq!((register_at(MISSING, 0), register_at(MISSING, 4)), (0, 32));
    }

    #[test]
    fn no_register_is_asked_for_that_only_one_architecture_has() {
        let registers = Layout::NAMES.iter().filter(|name| name.contains("pt_regs."));
        assert!(registers.clone().count() == 5 && registers.clone().all(|name| name.starts_with('?')));
    }
}
