//! Errors by name, and the lines nginx makes of them.

use nix::errno::Errno;

use crate::{ledger::Joined, verdict::Upstream};

fn known(number: u32) -> Errno {
    Errno::from_raw(i32::try_from(number).unwrap_or_default())
}

/// An errno's name, as in `ECONNREFUSED`.
pub(super) fn name(number: u32) -> String {
    format!("{:?}", known(number))
}

/// The C library's text for an errno, as nginx logs it.
fn text(number: u32) -> &'static str {
    match known(number) {
        // nix words some of them on its own.
        Errno::EADDRNOTAVAIL => "Cannot assign requested address",
        Errno::EAGAIN => "Resource temporarily unavailable",
        other => other.desc(),
    }
}

/// What nginx logs of a connect that failed.
pub(super) fn connect_line(exchange: &Joined) -> String {
    let error = exchange.nginx.error;
    let target = match exchange.upstream() {
        Upstream::Unix(path) => format!("connect() to unix:{} failed", path.display()),
        Upstream::Inet(address) if exchange.failed_at_once() => format!("connect() to {address} failed"),
        Upstream::Inet(_) => "connect() failed".to_owned(),
    };
    format!("{target} ({error}: {}) while connecting to upstream", text(error))
}
