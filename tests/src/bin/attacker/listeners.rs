//! Attacks with listeners, and with what sockets may be called.

use std::fs;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::Path;

use anyhow::{Context, Result, bail};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::socket::{Backlog, listen};

/// Says that the trap is laid, and waits for the end.
fn lie_in_wait() -> Result<()> {
    println!("ready");
    std::io::copy(&mut std::io::stdin(), &mut std::io::sink()).context("waiting for the end")?;
    Ok(())
}

/// As many descriptors as any user may have.
fn take_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).context("taking descriptors")
}

/// `names [INODE]...`: listens in the abstract namespace by names that are no text, and that make a row of /proc/net/unix of their own for
/// each of these inodes: a bound, unconnected stream socket, as listeners are. Without inodes the table is no text at all.
pub(crate) fn names(inodes: &[&str]) -> Result<()> {
    let row =
        |inode: &str| format!("x\n0000000000000000: 00000002 00000000 00010000 0001 01 {inode} /forged");
    let mut names: Vec<Vec<u8>> = inodes.iter().map(|inode| row(inode).into_bytes()).collect();
    if names.is_empty() {
        names = vec![b"\xff".to_vec(), b"a\nb\n".to_vec(), b"\n\n0000: zz".to_vec()];
    }
    let bind = |name: &Vec<u8>| Ok(UnixListener::bind_addr(&SocketAddr::from_abstract_name(name)?)?);
    let _listeners = names.iter().map(bind).collect::<Result<Vec<_>>>()?;
    lie_in_wait()
}

/// `listeners PORT COUNT`: listens on a port of so many addresses of the loopback.
pub(crate) fn flood(arguments: &[&str]) -> Result<()> {
    let [port, count] = arguments else { bail!("usage: listeners PORT COUNT") };
    let (port, count): (u16, u32) = (port.parse()?, count.parse()?);
    take_descriptors()?;
    let first = u32::from(Ipv4Addr::new(127, 77, 0, 1));
    let listen = |number| Ok(TcpListener::bind(SocketAddrV4::new(Ipv4Addr::from(first + number), port))?);
    let _listeners = (0..count).map(listen).collect::<Result<Vec<_>>>()?;
    lie_in_wait()
}

/// `path MOUNT PATH BACKLOG`: listens on a path that others use as well, in a file system of its own at `MOUNT`, a folder above it.
pub(crate) fn path(arguments: &[&str]) -> Result<()> {
    let [place, path, backlog] = arguments else { bail!("usage: path MOUNT PATH BACKLOG") };
    mount(Some("tmpfs"), *place, Some("tmpfs"), MsFlags::empty(), None::<&str>).context("mounting")?;
    fs::create_dir_all(Path::new(path).parent().context("a path without a folder")?)?;
    let listener = UnixListener::bind(path).context("listening")?;
    listen(&listener, Backlog::new(backlog.parse::<i32>()?)?)?;
    lie_in_wait()
}

/// `namespaces PORT COUNT`: makes so many network namespaces, and listens in each.
pub(crate) fn namespaces(arguments: &[&str]) -> Result<()> {
    let [port, count] = arguments else { bail!("usage: namespaces PORT COUNT") };
    let (port, count): (u16, u32) = (port.parse()?, count.parse()?);
    take_descriptors()?;
    let listen = |_| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        Ok(TcpListener::bind(SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port))?)
    };
    let _listeners = (0..count).map(listen).collect::<Result<Vec<_>>>()?;
    lie_in_wait()
}
