//! A socket that a process holds, as the iterators over open files emit it.

use crate::{COMM_LEN, Endpoint, PATH_LEN};

/// One descriptor of a process that is a socket. A descriptor may be emitted twice, for the kernel begins anew with what did not fit.
#[repr(C)]
#[cfg_attr(
    feature = "user",
    derive(zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::Immutable, zerocopy::KnownLayout)
)]
#[derive(Clone, Copy, Debug)]
pub struct HeldSocket {
    /// The socket.
    pub sock: u64,
    /// Its inode's number.
    pub inode: u64,
    /// The process.
    pub tgid: u32,
    /// The descriptor.
    pub fd: u32,
    /// The inode number of the socket's network namespace.
    pub netns: u32,
    /// `SOCK_STREAM` and others.
    pub kind: u16,
    /// As TCP numbers its states; unix sockets use some of them.
    pub state: u8,
    /// One for a unix socket that has a name of its own, which it was bound to or has from its listener.
    pub is_bound: u8,
    /// Its own address; of a unix socket only the family.
    pub local: Endpoint,
    /// The other end's address; all zeroes on a unix socket.
    pub remote: Endpoint,
    /// The process's name.
    pub comm: [u8; COMM_LEN],
    /// How many bytes of `name` there are; none where there is no such name.
    pub name_len: u32,
    /// Of a unix socket the name of its peer or, if it has none, its own. One in the abstract namespace begins with a zero. Any bytes.
    pub name: [u8; PATH_LEN],
    /// One for a unix socket that has a peer.
    pub has_peer: u32,
    /// Connections that wait in a listener's accept queue; else zero.
    pub waiting: u32,
    /// The inode's number of the file that a unix socket was bound to; zero for none, and where this kernel's types do not say.
    pub place: u64,
}

impl HeldSocket {
    /// The name, if there is one.
    pub fn name(&self) -> Option<&[u8]> {
        let len = (self.name_len as usize).min(self.name.len());
        if len == 0 { None } else { self.name.get(..len) }
    }
}
