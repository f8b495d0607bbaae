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

/// `struct genlmsghdr`, in bytes.
const GENERIC: usize = 4;

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
    let Some(family) = family(&netlink)? else { return Ok(None) };
    let address = match address.to_canonical() {
        IpAddr::V4(ip) => netlink::attribute(ADDR_IPV4, &ip.octets()),
        IpAddr::V6(ip) => netlink::attribute(ADDR_IPV6, &ip.octets()),
    };
    let age =
        answer(&netlink, family, GET, &address, AGE, |age| Some(u64::from_ne_bytes(*age.first_chunk()?)))?;
    Ok(age)
}

/// The number under which the kernel has it; none of a kernel that has none.
fn family(netlink: &OwnedFd) -> io::Result<Option<u16>> {
    let name = netlink::attribute(FAMILY_NAME, NAME);
    answer(netlink, CONTROL, GET_FAMILY, &name, FAMILY_ID, |id| Some(u16::from_ne_bytes(*id.first_chunk()?)))
}

/// Asks, and takes that attribute of the answer; none where the kernel has nothing under what was asked for.
fn answer<T>(
    netlink: &OwnedFd,
    family: u16,
    command: u8,
    attributes: &[u8],
    wanted: u16,
    take: impl Fn(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let payload = [&[command, 1, 0, 0], attributes].concat();
    netlink::ask(netlink, family, 0, &payload)?;
    let mut buffer = vec![0; 16 << 10];
    let received = netlink::receive(netlink, &mut buffer)?;
    let Some((kind, payload)) = netlink::messages(received).next() else {
        return Err(io::Error::other("the kernel's answer has another shape"));
    };
    if kind == netlink::ERROR {
        return match netlink::errno(payload) {
            Some(libc::ESRCH | libc::ENOENT) => Ok(None),
            errno => Err(errno
                .map_or_else(|| io::Error::other("an error without a number"), io::Error::from_raw_os_error)),
        };
    }
    let payload = payload.get(GENERIC..).unwrap_or(&[]);
    let found = netlink::attributes(payload).find(|(kind, _)| *kind == wanted);
    found
        .and_then(|(_, value)| take(value))
        .map(Some)
        .ok_or_else(|| io::Error::other("the kernel's answer lacks what was asked for"))
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
