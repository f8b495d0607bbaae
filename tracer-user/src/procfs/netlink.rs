//! Netlink as far as it is used here: a question to the kernel, and the messages that answer it (include/uapi/linux/netlink.h).

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// `NLMSG_ERROR` and `NLMSG_DONE`.
pub const ERROR: u16 = 2;
pub const DONE: u16 = 3;

/// `struct nlmsghdr`, in bytes.
const HEADER: usize = 16;
/// `struct nlattr`, in bytes.
const ATTRIBUTE: usize = 4;
/// The bits of an attribute's type that say what it is (`NLA_TYPE_MASK`).
const TYPE_MASK: u16 = 0x3fff;

/// A netlink socket of the network namespace in which the calling thread is.
///
/// # Errors
/// If the kernel refuses.
pub fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(netlink)
}

/// Sends one message of this kind; `flags` besides `NLM_F_REQUEST`.
///
/// # Errors
/// If the kernel refuses.
pub fn ask(netlink: &OwnedFd, kind: u16, flags: i32, payload: &[u8]) -> io::Result<()> {
    let len = u32::try_from(HEADER + payload.len()).map_err(io::Error::other)?;
    let mut request = Vec::with_capacity(HEADER + payload.len());
    request.extend(len.to_ne_bytes());
    request.extend(kind.to_ne_bytes());
    request.extend(((libc::NLM_F_REQUEST | flags) as u16).to_ne_bytes());
    // Its number and whom it is from: the kernel fills in the latter.
    request.extend([0; 8]);
    request.extend(payload);
    send(netlink.as_raw_fd(), &request, MsgFlags::empty())?;
    Ok(())
}

/// Waits for what the kernel has to say next.
///
/// # Errors
/// If the kernel refuses.
pub fn receive<'a>(netlink: &OwnedFd, buffer: &'a mut [u8]) -> io::Result<&'a [u8]> {
    let received = recv(netlink.as_raw_fd(), buffer, MsgFlags::empty())?;
    buffer.get(..received).ok_or_else(|| io::Error::other("a message is longer than what was read of it"))
}

/// The messages in what was received: the kind and what follows the header.
pub fn messages(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<4>()?;
        let len = usize::try_from(u32::from_ne_bytes(*len)).ok()?;
        let kind = u16::from_ne_bytes(*after.first_chunk()?);
        let payload = rest.get(HEADER..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, payload))
    })
}

/// The errno in a message of kind [`ERROR`]; zero is an acknowledgement.
pub fn errno(payload: &[u8]) -> Option<i32> {
    payload.first_chunk().map(|errno| -i32::from_ne_bytes(*errno))
}

/// One attribute of a question.
pub fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len = ATTRIBUTE + value.len();
    let mut bytes = Vec::with_capacity(len.next_multiple_of(4));
    bytes.extend((len as u16).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(len.next_multiple_of(4), 0);
    bytes
}

/// The attributes in a message's payload: the type and the value.
pub fn attributes(mut rest: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let (len, after) = rest.split_first_chunk::<2>()?;
        let len = usize::from(u16::from_ne_bytes(*len));
        let kind = u16::from_ne_bytes(*after.first_chunk()?) & TYPE_MASK;
        let value = rest.get(ATTRIBUTE..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_come_back_as_they_were_put_and_what_is_cut_off_is_none() {
        let both = [attribute(1, b"abc"), attribute(2, &[7; 8])].concat();
        assert_eq!(both.len(), 20);
        assert_eq!(attributes(&both).collect::<Vec<_>>(), [(1, &b"abc"[..]), (2, &[7; 8][..])]);
        assert_eq!(attributes(&both[..19]).count(), 1);
        assert_eq!(attributes(&[0; 8]).count(), 0);
    }

    #[test]
    fn messages_end_where_one_is_cut_off_or_has_no_length() {
        let message = |len: u32| [&len.to_ne_bytes()[..], &[9, 0], &[0; 10], &[5; 4]].concat();
        assert_eq!(messages(&message(20)).collect::<Vec<_>>(), [(9, &[5; 4][..])]);
        assert_eq!(messages(&[message(20), message(20)].concat()).count(), 2);
        assert_eq!(messages(&message(21)).count() + messages(&message(0)).count(), 0);
    }
}
