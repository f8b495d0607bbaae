//! What the kernel says of listeners and their accept queues, seen without touching them: a trial connection
//! would be one more in the queue.

use std::fs;
use std::net::TcpStream;

use anyhow::{Context, Result, bail, ensure};
use procfs::FromReadSI;
use procfs::net::{TcpNetEntries, TcpState};

use crate::{Endpoint, Namespace, process, wait};

impl Namespace {
    /// How many connections wait at a listener to be accepted, or at all that share its port; `None` if nobody listens there.
    pub fn accept_queue(&self, listener: &Endpoint) -> Result<Option<u32>> {
        match listener {
            Endpoint::Tcp(address) => {
                let table = if address.is_ipv4() { "tcp" } else { "tcp6" };
                let path = format!("/proc/thread-self/net/{table}");
                let entries = self.run(|| {
                    let machine = procfs::current_system_info();
                    TcpNetEntries::from_file(&path, machine).context("listing TCP sockets")
                })?;
                let listeners = entries.0.into_iter().filter(|entry| entry.state == TcpState::Listen);
                let queues = listeners.filter(|entry| entry.local_address == *address);
                Ok(queues.map(|entry| entry.rx_queue).reduce(|all, one| all + one))
            }
            Endpoint::Unix(path) => {
                let mut ss = self.command(process::find_program(&["ss"])?);
                ss.args(["--no-header", "--listening", "--unix"]);
                let listing = process::output(ss)?;
                let path = path.to_string_lossy();
                // Netid State Recv-Q Send-Q Local-Address:Port ...
                let rows = listing.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
                let mut rows = rows.filter(|row| row.get(4) == Some(&path.as_ref()));
                Ok(rows.find_map(|row| row.get(2)?.parse().ok()))
            }
        }
    }

    /// Waits until somebody listens.
    pub fn wait_for_listener(&self, listener: &Endpoint) -> Result<()> {
        wait::until_true(&format!("a listener on {listener}"), || Ok(self.accept_queue(listener)?.is_some()))
    }

    /// Waits until nobody listens.
    pub fn wait_for_no_listener(&self, listener: &Endpoint) -> Result<()> {
        wait::until_true(&format!("no listener on {listener}"), || Ok(self.accept_queue(listener)?.is_none()))
    }

    /// Waits until `length` connections are queued at a listener.
    pub fn wait_for_queue(&self, listener: &Endpoint, length: u32) -> Result<()> {
        let what = format!("{length} connections in the queue of {listener}");
        wait::until_true(&what, || Ok(self.accept_queue(listener)? == Some(length)))
    }

    /// How many handshakes with a listener have begun and are not over.
    pub fn half_open(&self, listener: &Endpoint) -> Result<usize> {
        let Endpoint::Tcp(address) = *listener else { bail!("{listener} is not TCP") };
        let table = if address.is_ipv4() { "tcp" } else { "tcp6" };
        let path = format!("/proc/thread-self/net/{table}");
        let entries = self.run(|| {
            let machine = procfs::current_system_info();
            TcpNetEntries::from_file(&path, machine).context("listing TCP sockets")
        })?;
        let unfinished = |state: &TcpState| matches!(state, TcpState::SynRecv | TcpState::NewSynRecv);
        let mut entries = entries.0;
        entries.retain(|entry| entry.local_address == address && unfinished(&entry.state));
        Ok(entries.len())
    }

    /// Waits until `count` handshakes with a listener have begun and are not over.
    pub fn wait_for_half_open(&self, listener: &Endpoint, count: usize) -> Result<()> {
        wait::until_true(&format!("{count} unfinished handshakes with {listener}"), || {
            Ok(self.half_open(listener)? == count)
        })
    }

    /// Fills an accept queue with connections of nobody in particular, and waits until `count` are in it.
    pub fn fill_queue(&self, listener: &Endpoint, count: u32) -> Result<Vec<TcpStream>> {
        ensure!(self.accept_queue(listener)? == Some(0), "the queue of {listener} is not empty");
        self.fill_queue_up_to(listener, count)
    }

    /// The same for one that has connections in it already.
    pub fn fill_queue_up_to(&self, listener: &Endpoint, length: u32) -> Result<Vec<TcpStream>> {
        let count = length - self.accept_queue(listener)?.unwrap_or(0);
        let Endpoint::Tcp(address) = *listener else { bail!("{listener} is not TCP") };
        let fillers = self.run(|| {
            let connect =
                |_| TcpStream::connect_timeout(&address, wait::bound()).context("filling an accept queue");
            (0..count).map(connect).collect()
        })?;
        self.wait_for_queue(listener, length)?;
        Ok(fillers)
    }

    /// A counter of the namespace's `TcpExt`, by its name in /proc/net/netstat: `ListenOverflows`.
    pub fn tcp_counter(&self, name: &str) -> Result<u64> {
        let netstat =
            self.run(|| fs::read_to_string("/proc/thread-self/net/netstat").context("reading netstat"))?;
        // Two lines: the names, then the figures.
        let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("TcpExt: "));
        let names = lines.next().unwrap_or_default().split_whitespace();
        let figures = lines.next().unwrap_or_default().split_whitespace();
        let figure = names.zip(figures).find(|(this, _)| *this == name).map(|(_, figure)| figure);
        figure.and_then(|figure| figure.parse().ok()).with_context(|| format!("the kernel counts no {name}"))
    }
}
