//! An upstream on "another host": its TCP is smoltcp's, in a thread of this process, behind a TUN device of
//! the namespace, so that the kernel has only nginx's end.

use std::collections::HashSet;
use std::ffi::CStr;
use std::fs::File;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::os::unix::fs::OpenOptionsExt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result, anyhow};
use nix::errno::Errno;
use nix::libc;
use smoltcp::iface::{Config, Interface, SocketHandle, SocketSet};
use smoltcp::phy::{self, Device, FaultInjector, Medium, TunTapInterface};
use smoltcp::socket::tcp;
use smoltcp::time::{Duration, Instant};
use smoltcp::wire::{HardwareAddress, IpCidr};

use crate::{Endpoint, Namespace};

const HERE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(10, 98, 0, 2);
const PORT: u16 = 80;
const SOCKETS: usize = 64;
/// How often to look up from the packets, to resend and to end.
const PAUSE: Duration = Duration::from_millis(10);
/// What the link on the way of [`Temper::Large`] takes: a handshake and a request, and no full packet.
const NARROW: usize = 1_000;
/// So much longer is that answer: two full packets and a short one.
const BODY: usize = 3_200;
const ANSWER: &[u8] = b"HTTP/1.0 200 OK\r\nContent-Length: 7\r\n\r\nremote\n";

const KEPT_ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok\n";

/// How the remote host behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Temper {
    /// A RST to each SYN: nobody listens.
    Refuse,
    /// Nothing at all, as a dead host.
    Silent,
    /// The connection is made; from then on nothing at all.
    Deaf,
    /// The connection is made and the request acknowledged; an answer never comes.
    Mute,
    /// The request is read, then a RST.
    Reset,
    /// The request is read, then a FIN.
    CloseUnanswered,
    /// A proper HTTP answer.
    Answer,
    /// An answer of several packets, of which only the last one, a short one, fits through a link on the way.
    Large,
    /// A proper HTTP answer, after which the connection is kept, and forgotten as soon as nginx has the answer.
    Forget,
}

/// A running remote host; it and its network are gone when dropped.
#[derive(Debug)]
pub struct Remote {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Remote {
    /// Brings it up, reachable from inside the namespace. One at a time in a namespace.
    pub fn start(namespace: &Namespace, temper: Temper) -> Result<Remote> {
        let stop = Arc::new(AtomicBool::new(false));
        let (ready, is_ready) = sync_channel(1);
        let (namespace, theirs) = (namespace.clone(), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            let inside = namespace.clone();
            let ended = namespace.run(|| host(&inside, temper, &theirs, &ready));
            if let Err(error) = ended {
                // Nobody waits any more if the host fails later on.
                let _ = ready.try_send(Err(error));
            }
        });
        let remote = Remote { stop, thread: Some(thread) };
        is_ready.recv().map_err(|_| anyhow!("the remote host's thread has ended"))??;
        Ok(remote)
    }

    /// Where it is to be reached.
    pub fn endpoint(&self) -> Endpoint {
        Endpoint::Tcp(SocketAddr::from((THERE, PORT)))
    }
}

impl Drop for Remote {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn host(
    namespace: &Namespace,
    temper: Temper,
    stop: &AtomicBool,
    ready: &SyncSender<Result<()>>,
) -> Result<()> {
    let device = tun(c"remote").context("making a TUN device")?;
    let readable = device.as_raw_fd();
    let mut device = FaultInjector::new(device, 1);
    if temper == Temper::Large {
        device.set_max_packet_size(NARROW);
    }
    namespace.ip(&format!("address add {HERE}/24 dev remote"))?;
    namespace.ip("link set remote up")?;

    let mut config = Config::new(HardwareAddress::Ip);
    // Sequence numbers that differ from run to run, as a real host's.
    config.random_seed = SystemTime::now().duration_since(UNIX_EPOCH)?.subsec_nanos().into();
    let mut interface = Interface::new(config, &mut device, Instant::now());
    interface.update_ip_addrs(|addresses| {
        // There is room for the first one.
        let _ = addresses.push(IpCidr::new(THERE.into(), 24));
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut answered = HashSet::new();
    if !matches!(temper, Temper::Refuse | Temper::Silent) {
        for _ in 0..SOCKETS {
            sockets.add(closed());
        }
        behave(&mut sockets, temper, &mut answered)?;
    }
    ready.send(Ok(())).context("the one who waited is gone")?;

    while !stop.load(Ordering::Relaxed) {
        if temper == Temper::Silent || temper == Temper::Deaf && has_connected(&sockets) {
            while device.receive(Instant::now()).is_some() {}
        } else {
            interface.poll(Instant::now(), &mut device, &mut sockets);
            behave(&mut sockets, temper, &mut answered)?;
            // What behaving has queued goes out at once.
            interface.poll(Instant::now(), &mut device, &mut sockets);
        }
        phy::wait(readable, Some(PAUSE)).context("waiting for packets")?;
    }
    Ok(())
}

fn closed() -> tcp::Socket<'static> {
    let buffer = || tcp::SocketBuffer::new(vec![0; 16 * 1024]);
    tcp::Socket::new(buffer(), buffer())
}

fn has_connected(sockets: &SocketSet<'_>) -> bool {
    sockets.iter().any(|(_, socket)| {
        let smoltcp::socket::Socket::Tcp(socket) = socket;
        socket.state() == tcp::State::Established
    })
}

/// Lets every socket do its next step.
fn behave(sockets: &mut SocketSet<'_>, temper: Temper, answered: &mut HashSet<SocketHandle>) -> Result<()> {
    for (handle, socket) in sockets.iter_mut() {
        let smoltcp::socket::Socket::Tcp(socket) = socket;
        if !socket.is_open() {
            socket.listen(PORT).map_err(|error| anyhow!("listening remotely: {error}"))?;
        }
        let asked = socket.can_recv() && request_is_whole(socket)?;
        match temper {
            Temper::Reset if asked => socket.abort(),
            Temper::CloseUnanswered if asked => {
                take_request(socket)?;
                socket.close();
            }
            Temper::Answer if asked => {
                take_request(socket)?;
                socket.send_slice(ANSWER).map_err(|error| anyhow!("answering remotely: {error}"))?;
                socket.close();
            }
            Temper::Large if asked => {
                take_request(socket)?;
                let head = format!("HTTP/1.0 200 OK\r\nContent-Length: {BODY}\r\n\r\n");
                let answer = [head.into_bytes(), vec![b'x'; BODY]].concat();
                socket.send_slice(&answer).map_err(|error| anyhow!("answering remotely: {error}"))?;
                socket.close();
            }
            Temper::Forget if asked => {
                take_request(socket)?;
                socket.send_slice(KEPT_ANSWER).map_err(|error| anyhow!("answering remotely: {error}"))?;
                answered.insert(handle);
            }
            // All of it is acknowledged.
            Temper::Forget if socket.send_queue() == 0 && answered.remove(&handle) => *socket = closed(),
            // nginx has gone: go too.
            _ if socket.state() == tcp::State::CloseWait => socket.close(),
            _ => {}
        }
    }
    Ok(())
}

fn request_is_whole(socket: &mut tcp::Socket<'_>) -> Result<bool> {
    let peeked = socket.peek(16 * 1024).map_err(|error| anyhow!("reading remotely: {error}"))?;
    Ok(peeked.windows(4).any(|window| window == b"\r\n\r\n"))
}

fn take_request(socket: &mut tcp::Socket<'_>) -> Result<()> {
    socket.recv(|data| (data.len(), ())).map_err(|error| anyhow!("reading remotely: {error}"))
}

/// As [`TunTapInterface::new`], which however lets every child of this process inherit the device, and keep
/// it alive.
fn tun(name: &CStr) -> Result<TunTapInterface> {
    const MTU: usize = 1500;
    let file = File::options().read(true).write(true).custom_flags(libc::O_NONBLOCK).open("/dev/net/tun")?;
    let mut names = [0; libc::IFNAMSIZ];
    for (to, from) in names.iter_mut().zip(name.to_bytes()) {
        *to = *from as libc::c_char;
    }
    let flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
    let request =
        libc::ifreq { ifr_name: names, ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: flags } };
    // SAFETY: TUNSETIFF reads and writes one ifreq, which outlives the call.
    Errno::result(unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &raw const request) })?;
    Ok(TunTapInterface::from_fd(file.into_raw_fd(), Medium::Ip, MTU)?)
}
