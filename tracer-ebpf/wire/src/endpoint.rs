//! Addresses, and what listens at one.

/// `AF_INET`.
pub const FAMILY_INET: u16 = 2;
/// `AF_INET6`.
pub const FAMILY_INET6: u16 = 10;
/// `AF_UNIX`.
pub const FAMILY_UNIX: u16 = 1;
/// `sizeof(sockaddr_un.sun_path)`, in bytes.
pub const PATH_LEN: usize = 108;

/// An address and a port.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// The address in network order; IPv4 is mapped into IPv6 (`::ffff:a.b.c.d`).
    pub addr: [u32; 4],
    /// The port in host order.
    pub port: u16,
    /// [`FAMILY_INET`] or [`FAMILY_INET6`], as the socket was made.
    pub family: u16,
}

/// What one look at a listener's `struct sock` said. "Full" is `sk_acceptq_is_full`: depth > limit.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug, Default)]
pub struct ListenerView {
    /// The listener, or zero where none is known for this address; with a moment where there may be one nonetheless.
    pub sock: u64,
    /// When these figures were read.
    pub ns: u64,
    /// `sk_ack_backlog`: connections that wait to be accepted.
    pub depth: u32,
    /// `sk_max_ack_backlog`: the effective backlog; one connection more than this fits.
    pub limit: u32,
    /// `sk_drops`: what this listener has dropped since it was made.
    pub drops: u32,
    /// How many listeners share the address (`SO_REUSEPORT`); the figures are of the newest one.
    pub shared: u32,
    /// Handshakes that are not over (`icsk_accept_queue.qlen`).
    pub syn_queue: u32,
    /// One where the listener is in another network namespace than the connection, or its address was translated.
    pub elsewhere: u32,
}
