//! Errors by name, and the lines nginx makes of them.

use nix::errno::Errno;
use wire::Icmp;

use crate::{ledger::Exchange, model::upstream::Upstream};

fn known(number: u32) -> Errno {
    Errno::from_raw(i32::try_from(number).unwrap_or_default())
}

/// An errno's name, as in `ECONNREFUSED`.
pub(super) fn name(number: u32) -> String {
    format!("{:?}", known(number))
}

/// The C library's text for an errno, as nginx logs it.
pub(super) fn text(number: u32) -> &'static str {
    match known(number) {
        // nix words some of them on its own.
        Errno::EADDRNOTAVAIL => "Cannot assign requested address",
        Errno::EAGAIN => "Resource temporarily unavailable",
        other => other.desc(),
    }
}

/// What an ICMP message says, as the protocols name it.
pub(super) fn icmp(icmp: &Icmp) -> &'static str {
    const UNREACHABLE: u8 = 3;
    const UNREACHABLE_V6: u8 = 1;
    match (icmp.is_v6 != 0, icmp.kind, icmp.code) {
        (false, UNREACHABLE, 0) => "network unreachable",
        (false, UNREACHABLE, 1) | (true, UNREACHABLE_V6, 3) => "host unreachable",
        (false, UNREACHABLE, 3) | (true, UNREACHABLE_V6, 4) => "port unreachable",
        (false, UNREACHABLE, 9 | 10 | 13) | (true, UNREACHABLE_V6, 1 | 5) => "administratively prohibited",
        (true, UNREACHABLE_V6, 0) => "no route to destination",
        (true, UNREACHABLE_V6, 6) => "rejected route",
        _ => "an error",
    }
}

/// Whether an ICMP message is one that only a firewall sends in answer to a SYN.
pub(super) fn is_rejection(icmp: &Icmp) -> bool {
    icmp.ns != 0 && matches!(self::icmp(icmp), "port unreachable" | "administratively prohibited")
}

/// What nginx logs of a connect that failed.
pub(super) fn connect_line(exchange: &Exchange) -> String {
    let error = exchange.nginx.error;
    let target = match exchange.upstream() {
        Upstream::Unix(path) => format!("connect() to unix:{} failed", path.display()),
        Upstream::Inet(address) if exchange.failed_at_once() => format!("connect() to {address} failed"),
        Upstream::Inet(_) | Upstream::Named(_) => "connect() failed".to_owned(),
    };
    format!("{target} ({error}: {}) while connecting to upstream", text(error))
}
