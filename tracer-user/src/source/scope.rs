//! What the user asked to trace, as the kernel side takes it.

use std::{
    fs, io,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use procfs::process::{Process, Stat};
use wire::{Endpoint, Filters};

use crate::{
    args::Trace,
    load::Scope,
    model::{
        failure::Failure,
        from_wire::{comm_bytes, sun_path},
        upstream::UpstreamFilter,
    },
    procfs::processes,
};

/// How long after its last read a connection that nginx closes counts as plainly finished. nginx closes a finished
/// exchange in the very turn of its loop that read the end, and its own timeouts are seconds long.
const SETTLE: Duration = Duration::from_millis(500);

/// What some commands trace beyond what all do.
#[derive(Clone, Copy, Debug, Default)]
pub struct Extras<'a> {
    /// The listeners whose connections are emitted though nginx is on another host.
    pub listeners: &'a [UpstreamFilter],
    /// Whether exchanges are counted by upstream, too.
    pub counts_upstreams: bool,
    /// The error logs that the user names.
    pub error_logs: &'a [PathBuf],
    /// Whether the requests of clients are shown whose answers are accounted for.
    pub shows_requests: bool,
}

/// What the user asked for, as the kernel side takes it.
///
/// # Errors
/// If it asks for a process that does not exist.
pub fn of(args: &Trace, extras: Extras) -> Result<Scope, Failure> {
    if let Some(pid) = args.pid
        && !fs::exists(format!("/proc/{pid}")).unwrap_or(false)
    {
        return Err(Failure::Run(anyhow::anyhow!("no process has pid {pid}")));
    }
    let comm = comm_bytes(args.comm().unwrap_or_default());
    let (mut upstreams, mut paths) = (Vec::new(), Vec::new());
    for filter in &args.upstreams {
        match filter {
            UpstreamFilter::Address(address) => upstreams.push(endpoint(*address)),
            UpstreamFilter::Port(port) => upstreams.push(Endpoint { addr: [0; 4], port: *port, family: 0 }),
            UpstreamFilter::Unix(path) => paths.push(sun_path(path)),
        }
    }
    let port = |port: u16| Endpoint { addr: [0; 4], port, family: 0 };
    let listeners: Vec<_> = extras
        .listeners
        .iter()
        .filter_map(|listener| match listener {
            UpstreamFilter::Address(address) => Some(endpoint(*address)),
            UpstreamFilter::Port(number) => Some(port(*number)),
            UpstreamFilter::Unix(_) => None,
        })
        .collect();
    let filters = Filters {
        comm,
        pid: args.pid.unwrap_or(0),
        upstreams: u32::from(!args.upstreams.is_empty()),
        own_pid: std::process::id(),
        settle_ms: u32::try_from(SETTLE.as_millis()).unwrap_or(u32::MAX),
        listeners: u32::from(!listeners.is_empty()),
        netns: args.only_netns.unwrap_or(0),
        counts_upstreams: u32::from(extras.counts_upstreams),
        trusts_all: u32::from(args.trusts_all()),
        stack_bytes: stack_bytes(procfs::page_size()),
        reads_nginx: u32::from(!args.no_uprobe),
        ..Filters::default()
    };
    Ok(Scope {
        filters,
        upstreams,
        paths,
        listeners,
        connect_errors: args.connect_errors,
        words: !args.no_uprobe,
        standby: args.standby,
        only: args.hooks_only.clone(),
        max_open: args.max_open,
    })
}

/// How large a task's stack in the kernel is at least: 16 KiB on x86-64 and arm64, or a page where that is larger (`THREAD_SIZE`,
/// arch/x86/include/asm/page_64_types.h, arch/arm64/include/asm/memory.h; twice that in a kernel that watches its own memory, KASAN).
fn stack_bytes(page: u64) -> u32 {
    const THREAD_SIZE: u32 = 16 << 10;
    u32::try_from(page).unwrap_or(THREAD_SIZE).max(THREAD_SIZE)
}

/// An address as the kernel side takes it; IPv4 is mapped into IPv6.
fn endpoint(address: SocketAddr) -> Endpoint {
    let octets = match address.ip() {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    };
    let mut addr = [0; 4];
    for (word, bytes) in addr.iter_mut().zip(octets.chunks_exact(4)) {
        *word = u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
    }
    Endpoint { addr, port: address.port(), family: 0 }
}

/// Reports on standard error what is being traced; `running` of it runs already, if that is known.
pub fn greet(args: &Trace, running: Option<&[u32]>, listeners: usize) {
    let who = match (args.pid, args.comm()) {
        (Some(pid), _) => format!("process {pid} and its children"),
        (None, Some(name)) => {
            if running.is_some_and(<[u32]>::is_empty) {
                crate::notice!("no process named {name} runs so far; tracing anyway, for when one does");
            }
            format!("processes named {name}")
        }
        (None, None) => "every process".to_owned(),
    };
    crate::notice!("tracing {who}; {listeners} listening sockets known; Ctrl-C ends");
}

/// The processes whose exchanges are watched and that run already.
///
/// # Errors
/// If /proc cannot be listed.
pub fn running(args: &Trace) -> io::Result<Vec<u32>> {
    let name = args.comm().unwrap_or("nginx");
    let is_ours = |stat: &Stat| match args.pid.map(u32::cast_signed) {
        Some(pid) => stat.pid == pid || stat.ppid == pid,
        None => stat.comm == name,
    };
    // One that has ended meanwhile says nothing more.
    let stats =
        processes::pids()?.into_iter().filter_map(|pid| Process::new(pid).and_then(|one| one.stat()).ok());
    Ok(stats.filter(is_ours).map(|stat| stat.pid.cast_unsigned()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_is_as_large_as_the_largest_page() {
        // 4 and 16 KiB as on most machines, 64 KiB as arm64's kernels can be built.
        assert_eq!([4 << 10, 16 << 10, 64 << 10].map(stack_bytes), [16 << 10, 16 << 10, 64 << 10]);
    }
}
