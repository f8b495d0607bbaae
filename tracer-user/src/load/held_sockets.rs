//! The sockets of some processes: whom they are connected to, and where they listen.

use std::{
    collections::HashSet,
    sync::{Mutex, PoisonError},
};

use anyhow::Context as _;
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, MapData},
};
use wire::HeldSocket;

use super::{
    btf,
    loader::{load, loader, prepare},
    maps::take,
    object::Object,
    open_files,
    refused::refused,
    types::Types,
};
use crate::model::failure::Failure;

/// The program that emits them.
const PROGRAM: &str = "sockets";

/// Loaded when it is needed first, and kept: reading the kernel's types takes more than a reading of the sockets.
static LOADED: Mutex<Option<Loaded>> = Mutex::new(None);

struct Loaded {
    object: Ebpf,
    pids: HashMap<MapData, u32, u32>,
}

/// The sockets that these processes hold, each descriptor by itself, and none twice. No descriptor is touched for that, and none of what
/// others may have written into the tables of /proc/net is read.
///
/// # Errors
/// Where this host cannot be traced, where too many processes are asked for, or if it takes too long.
pub(crate) fn held_sockets(pids: impl IntoIterator<Item = u32>) -> Result<Vec<HeldSocket>, Failure> {
    let mut loaded = LOADED.lock().unwrap_or_else(PoisonError::into_inner);
    let Loaded { object, pids: asked } = match &mut *loaded {
        Some(loaded) => loaded,
        none => {
            let (kernel, layout) = prepare()?;
            let object = object(&mut loader(&layout), &kernel)?;
            // Before they are read another time.
            drop(kernel);
            none.insert(Loaded::new(object, &mut Types::default())?)
        }
    };
    let before: Vec<u32> = asked.keys().collect::<Result<_, _>>().map_err(anyhow::Error::from)?;
    for pid in before {
        asked.remove(&pid).map_err(anyhow::Error::from)?;
    }
    for pid in pids {
        asked.insert(pid, 1, 0).context("too many processes are asked for their sockets")?;
    }
    let mut held = Vec::new();
    let mut descriptors = HashSet::new();
    open_files::read(object, PROGRAM, |socket| {
        if descriptors.insert((socket.tgid, socket.fd)) {
            held.push(*socket);
        }
    })
    .context("the sockets of processes cannot be read")?;
    Ok(held)
}

/// The object, whose program is to be loaded, by a loader that knows the kernel's layout.
///
/// # Errors
/// Where the kernel refuses its maps.
pub(super) fn object(loader: &mut EbpfLoader<'_>, kernel: &btf::Kernel) -> Result<Ebpf, Failure> {
    load(loader, Object::SOCKETS, kernel, &HashSet::new())
}

/// Loads its program now, with types that are there anyway: it will be needed after the first failures. Where this kernel refuses, whoever asks
/// then gets the reason.
pub(super) fn keep(object: Result<Ebpf, Failure>, types: &mut Types) {
    if let Ok(loaded) = object.and_then(|object| Loaded::new(object, types)) {
        *LOADED.lock().unwrap_or_else(PoisonError::into_inner) = Some(loaded);
    }
}

impl Loaded {
    fn new(mut object: Ebpf, types: &mut Types) -> Result<Self, Failure> {
        open_files::load(&mut object, PROGRAM, types).map_err(|error| {
            Failure::CannotTrace(format!("the sockets of processes cannot be read here: {}", refused(&error)))
        })?;
        let pids = HashMap::try_from(take(&mut object, "PIDS")?).map_err(anyhow::Error::from)?;
        Ok(Self { object, pids })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
        os::{
            fd::AsRawFd as _,
            linux::net::SocketAddrExt as _,
            unix::net::{SocketAddr, UnixListener, UnixStream},
        },
    };

    use wire::{FAMILY_UNIX, tcp_state};

    use super::*;
    use crate::model::from_wire::address;

    #[test]
    fn every_kind_of_socket_is_emitted_whatever_its_name() {
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let client = TcpStream::connect(tcp.local_addr().unwrap()).unwrap();
        let udp = UdpSocket::bind("[::1]:0").unwrap();
        // What breaks each table of /proc/net/unix.
        let name = format!("\n\u{ff} why502 {}\n", std::process::id());
        let unix = UnixListener::bind_addr(&SocketAddr::from_abstract_name(&name).unwrap()).unwrap();
        let peer = UnixStream::connect_addr(&unix.local_addr().unwrap()).unwrap();
        let held = match held_sockets([std::process::id()]) {
            Ok(held) => held,
            // Only root may ask.
            Err(Failure::CannotTrace(_)) => return,
            Err(error) => panic!("{error}"),
        };
        let of = |fd: i32| {
            let mut found = held.iter().filter(|socket| socket.fd.cast_signed() == fd);
            let one = *found.next().unwrap();
            assert!(found.next().is_none() && one.inode != 0 && one.netns != 0);
            one
        };
        let listener = of(tcp.as_raw_fd());
        assert_eq!(
            (listener.state, address(&listener.local)),
            (tcp_state::LISTEN, tcp.local_addr().unwrap())
        );
        let client_of_it = of(client.as_raw_fd());
        assert_eq!(address(&client_of_it.remote), tcp.local_addr().unwrap());
        assert_eq!(address(&client_of_it.local), client.local_addr().unwrap());
        assert_eq!(address(&of(udp.as_raw_fd()).local), udp.local_addr().unwrap());
        let hidden = format!("\0{name}");
        for socket in [of(unix.as_raw_fd()), of(peer.as_raw_fd())] {
            assert_eq!(socket.local.family, FAMILY_UNIX);
            assert_eq!(socket.name(), Some(hidden.as_bytes()));
        }
        assert_eq!(of(unix.as_raw_fd()).state, tcp_state::LISTEN);
        assert_eq!((of(peer.as_raw_fd()).has_peer, of(peer.as_raw_fd()).is_bound), (1, 0));
    }
}
