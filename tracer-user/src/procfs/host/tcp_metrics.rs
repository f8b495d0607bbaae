//! When a TCP connection with an address last worked, as the kernel remembers it: `tcp_metrics` (net/ipv4/tcp_metrics.c), which each
//! connection that ends after its round trip was measured brings up to date (`tcp_update_metrics`). A connect that nothing answers leaves it
//! as it is. It forgets: that there is nothing says nothing.

use std::{
    fs::{self, File},
    io,
    net::{IpAddr, SocketAddr},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::fs::MetadataExt as _,
    },
};

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable as _, NetlinkDeserializable, NetlinkHeader, NetlinkPayload,
    NetlinkSerializable, Nla as _, NlasIterator, Parseable as _,
};
use nix::{
    sched::{CloneFlags, setns},
    sys::socket::SockProtocol,
};

use super::denial::apart;
use crate::procfs::netlink;

/// `GENL_ID_CTRL`, `CTRL_CMD_GETFAMILY`, `CTRL_ATTR_FAMILY_ID` and `CTRL_ATTR_FAMILY_NAME` (include/uapi/linux/genetlink.h).
const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

/// `TCP_METRICS_GENL_NAME`, `TCP_METRICS_CMD_GET`, and of its attributes the addresses and the age (include/uapi/linux/tcp_metrics.h).
const NAME: &[u8] = b"tcp_metrics\0";
const GET: u8 = 1;
const ADDR_IPV4: u16 = 1;
const ADDR_IPV6: u16 = 2;
const AGE: u16 = 3;

/// `struct genlmsghdr` (include/uapi/linux/genetlink.h), in bytes, and what stands in its second one.
const HEADER: usize = 4;
const VERSION: u8 = 1;

/// How long ago (ms) a TCP connection between this process's network namespace and that address was last known to work; none where the
/// kernel remembers none.
///
/// # Errors
/// If it cannot be asked.
pub(crate) fn last_worked_ms(pid: u32, address: SocketAddr) -> io::Result<Option<u64>> {
    let its = File::open(format!("/proc/{pid}/ns/net"))?;
    if its.metadata()?.ino() == fs::metadata("/proc/thread-self/ns/net")?.ino() {
        return age_ms(address.ip());
    }
    let entered = apart(|| {
        Some(
            setns(its.as_fd(), CloneFlags::CLONE_NEWNET)
                .map_err(io::Error::from)
                .and_then(|()| age_ms(address.ip())),
        )
    });
    entered.unwrap_or_else(|| Err(io::Error::other("the thread that was to ask has ended")))
}

fn age_ms(address: IpAddr) -> io::Result<Option<u64>> {
    let netlink = netlink::open(SockProtocol::NetlinkGeneric)?;
    let name = DefaultNla::new(FAMILY_NAME, NAME.to_vec());
    let family = answer(&netlink, Generic { family: CONTROL, command: GET_FAMILY, attributes: vec![name] })?;
    let Some(family) = family else { return Ok(None) };
    let family = family.number(FAMILY_ID, u16::from_ne_bytes)?;
    let address = match address.to_canonical() {
        IpAddr::V4(ip) => DefaultNla::new(ADDR_IPV4, ip.octets().to_vec()),
        IpAddr::V6(ip) => DefaultNla::new(ADDR_IPV6, ip.octets().to_vec()),
    };
    let metrics = answer(&netlink, Generic { family, command: GET, attributes: vec![address] })?;
    metrics.map(|metrics| metrics.number(AGE, u64::from_ne_bytes)).transpose()
}

/// Asks, and waits for the answer; none where the kernel has nothing under what was asked for.
fn answer(netlink: &OwnedFd, question: Generic) -> io::Result<Option<Generic>> {
    netlink::ask(netlink, 0, question)?;
    let mut buffer = vec![0; 16 << 10];
    let received = netlink::receive(netlink, &mut buffer)?;
    match netlink::messages(received).next().transpose()? {
        Some(NetlinkPayload::InnerMessage(answer)) => Ok(Some(answer)),
        Some(NetlinkPayload::Error(error)) if matches!(-error.raw_code(), libc::ESRCH | libc::ENOENT) => {
            Ok(None)
        }
        Some(NetlinkPayload::Error(error)) => Err(error.to_io()),
        _ => Err(io::Error::other("the kernel's answer has another shape")),
    }
}

/// A message of generic netlink.
#[derive(Debug)]
struct Generic {
    family: u16,
    command: u8,
    attributes: Vec<DefaultNla>,
}

impl Generic {
    fn number<T, const N: usize>(&self, wanted: u16, number: impl Fn([u8; N]) -> T) -> io::Result<T> {
        let found =
            self.attributes.iter().find(|attribute| attribute.kind() == wanted).and_then(|attribute| {
                let mut bytes = [0; N];
                (attribute.value_len() == N).then(|| {
                    attribute.emit_value(&mut bytes);
                    number(bytes)
                })
            });
        found.ok_or_else(|| io::Error::other("the kernel's answer lacks what was asked for"))
    }
}

impl NetlinkSerializable for Generic {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER + self.attributes.as_slice().buffer_len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let (header, attributes) = buffer.split_at_mut(HEADER);
        header.copy_from_slice(&[self.command, VERSION, 0, 0]);
        self.attributes.as_slice().emit(attributes);
    }
}

impl NetlinkDeserializable for Generic {
    type Error = DecodeError;

    fn deserialize(header: &NetlinkHeader, payload: &[u8]) -> Result<Self, DecodeError> {
        let (begins, attributes) = payload
            .split_at_checked(HEADER)
            .ok_or_else(|| DecodeError::buffer_too_small(payload.len(), HEADER))?;
        let attributes = NlasIterator::new(attributes).map(|attribute| DefaultNla::parse(&attribute?));
        let attributes = attributes.collect::<Result<_, _>>()?;
        Ok(Self { family: header.message_type, command: begins[0], attributes })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn a_connection_that_ended_is_remembered_and_an_address_that_never_answered_is_not() {
        let saves = fs::read_to_string("/proc/sys/net/ipv4/tcp_no_metrics_save").unwrap();
        let listener = TcpListener::bind("127.0.0.97:0").unwrap();
        let address = listener.local_addr().unwrap();
        let mut ours = TcpStream::connect(address).unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        ours.write_all(b"x").unwrap();
        theirs.read_exact(&mut [0]).unwrap();
        drop(theirs);
        assert_eq!(ours.read(&mut [0]).unwrap(), 0);
        drop(ours);
        let own = std::process::id();
        let age = last_worked_ms(own, address).unwrap();
        if saves.trim() == "0" {
            assert!(age.is_some_and(|ms| ms < 60_000), "{age:?}");
        }
        assert_eq!(last_worked_ms(own, "127.0.0.98:1".parse().unwrap()).unwrap(), None);
        assert_eq!(last_worked_ms(own, "[2001:db8::1]:1".parse().unwrap()).unwrap(), None);
        assert!(last_worked_ms(0, address).is_err());
    }
}
