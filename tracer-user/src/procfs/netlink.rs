//! Netlink: a question to the kernel, and the messages that answer it.

use std::{
    io,
    os::fd::{AsRawFd as _, OwnedFd},
};

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, socket,
};

/// Messages begin where a `u32` may (`NLMSG_ALIGNTO`, include/uapi/linux/netlink.h).
const ALIGN: usize = 4;

/// A netlink socket of the network namespace in which the calling thread is.
///
/// # Errors
/// If the kernel refuses.
pub fn open(protocol: SockProtocol) -> io::Result<OwnedFd> {
    let netlink = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol)?;
    bind(netlink.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
    Ok(netlink)
}

/// Sends one message; `flags` besides `NLM_F_REQUEST`.
///
/// # Errors
/// If the kernel refuses.
pub fn ask(netlink: &OwnedFd, flags: u16, message: impl NetlinkSerializable) -> io::Result<()> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | flags;
    let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
    message.finalize();
    let mut request = vec![0; message.buffer_len()];
    message.serialize(&mut request);
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

/// The messages in what was received; an error for the first one that cannot be understood, after which there is none.
pub fn messages<T: NetlinkDeserializable>(
    mut rest: &[u8],
) -> impl Iterator<Item = io::Result<NetlinkPayload<T>>> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let whole = std::mem::take(&mut rest);
        let read = NetlinkBuffer::new_checked(whole).and_then(|message| {
            let len = message.length() as usize;
            rest = whole.get(len.next_multiple_of(ALIGN)..).unwrap_or(&[]);
            NetlinkMessage::deserialize(whole)
        });
        Some(read.map(|message| message.payload).map_err(io::Error::other))
    })
}

#[cfg(test)]
mod tests {
    use netlink_packet_core::DecodeError;

    use super::*;

    struct Length(usize);

    impl NetlinkDeserializable for Length {
        type Error = DecodeError;

        fn deserialize(_: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
            Ok(Self(payload.len()))
        }
    }

    #[test]
    fn messages_end_where_one_is_cut_off_or_has_no_length() {
        let message = |len: u32| [&len.to_ne_bytes()[..], &[9, 0], &[0; 10], &[5; 4]].concat();
        let read = |bytes: &[u8]| {
            let lengths = messages::<Length>(bytes).map(|message| match message {
                Ok(NetlinkPayload::InnerMessage(Length(len))) => Some(len),
                _ => None,
            });
            lengths.collect::<Vec<_>>()
        };
        assert_eq!(read(&message(20)), [Some(4)]);
        assert_eq!(read(&[message(20), message(19), message(21)].concat()), [Some(4), Some(3), None]);
        assert_eq!(read(&message(0)), [None]);
        assert_eq!(read(&[]), []);
    }
}
