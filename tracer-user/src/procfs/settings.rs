//! The kernel's settings that decide between a delay, a 502 and a 504, and what their values mean.

use std::{fs, path::Path};

/// One setting of this network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Setting {
    /// As sysctl names it.
    pub name: &'static str,
    /// Its value; none where the kernel has no such setting.
    pub value: Option<u64>,
    /// What this value means for 502 and 504.
    pub meaning: String,
}

/// No wait between two packets of a handshake is longer (`TCP_RTO_MAX`), in s.
const LONGEST_WAIT: u64 = 120;

/// `uname -r`.
pub fn kernel() -> String {
    read("kernel.osrelease").unwrap_or_else(|| "unknown".to_owned())
}

/// A value of /proc/sys, without its line's end.
pub(super) fn read(name: &str) -> Option<String> {
    let value = fs::read_to_string(Path::new("/proc/sys").join(name.replace('.', "/"))).ok()?;
    Some(value.trim().to_owned())
}

fn number(name: &str) -> Option<u64> {
    read(name)?.parse().ok()
}

/// All of them, as they are now.
pub fn now() -> Vec<Setting> {
    // Since 6.5, so many further SYNs go out one second apart.
    let linear = number("net.ipv4.tcp_syn_linear_timeouts").unwrap_or(0);
    let settings: [(&'static str, &dyn Fn(u64) -> String); 7] = [
        ("net.core.somaxconn", &somaxconn),
        ("net.ipv4.tcp_abort_on_overflow", &abort_on_overflow),
        ("net.ipv4.tcp_syn_retries", &|retries| syn_retries(retries, linear)),
        ("net.ipv4.tcp_synack_retries", &synack_retries),
        ("net.ipv4.tcp_syncookies", &syncookies),
        ("net.ipv4.tcp_max_syn_backlog", &max_syn_backlog),
        ("net.ipv4.conf.all.rp_filter", &rp_filter),
    ];
    settings
        .into_iter()
        .map(|(name, means)| {
            let value = number(name);
            let meaning = value.map_or_else(|| "cannot be read here".to_owned(), means);
            Setting { name, value, meaning }
        })
        .collect()
}

fn somaxconn(limit: u64) -> String {
    format!(
        "no backlog is longer, whatever listen asks for; {} connections can wait for accept",
        limit.saturating_add(1)
    )
}

fn abort_on_overflow(value: u64) -> String {
    match value {
        0 => "a full accept queue lets connections wait and retry: late, or 504, but no 502 over TCP",
        _ => "a handshake that ends at a full accept queue is reset: 502 (errno 104) instead of a retry",
    }
    .to_owned()
}

fn syn_retries(retries: u64, linear: u64) -> String {
    format!(
        "the kernel gives up connecting after {} s (502, errno 110), unless nginx's connect timeout, 60 s by default, is over \
         before (504)",
        given_up_after(retries).saturating_add(linear)
    )
}

fn synack_retries(retries: u64) -> String {
    format!("a handshake that met a full accept queue is forgotten after {} s", given_up_after(retries))
}

/// The first packet and each one after it wait for an answer, 1 s and then twice as long as the one before.
fn given_up_after(retries: u64) -> u64 {
    (0..=retries.min(255))
        .map(|retry| 1_u64.checked_shl(retry as u32).unwrap_or(LONGEST_WAIT).min(LONGEST_WAIT))
        .sum()
}

fn syncookies(value: u64) -> String {
    match value {
        0 => "with too many unfinished handshakes, further SYNs are dropped: 504 while connecting",
        1 => "unfinished handshakes never keep others out; a full accept queue still drops SYNs",
        _ => "every SYN is answered with a cookie, a test setting; a full accept queue still drops SYNs",
    }
    .to_owned()
}

fn max_syn_backlog(limit: u64) -> String {
    format!(
        "without SYN cookies, unknown clients' SYNs are dropped beyond {} unfinished handshakes",
        limit - limit / 4
    )
}

fn rp_filter(value: u64) -> String {
    match value {
        0 => "no packet is dropped for the way it came, unless its interface's own rp_filter is larger",
        1 => "packets whose answer would leave by another interface are dropped: 504 while connecting on asymmetric routes",
        _ => "only packets from addresses without any route are dropped; asymmetric routes work",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_two_minutes() {
        // Linux's documentation of tcp_syn_retries and tcp_synack_retries.
        assert_eq!((given_up_after(6), given_up_after(5), given_up_after(0)), (127, 63, 1));
        assert_eq!(given_up_after(7), 127 + 120);
        assert!(syn_retries(6, 4).contains("131 s"), "{}", syn_retries(6, 4));
    }

    #[test]
    fn every_setting_has_a_value_and_a_meaning_here() {
        for setting in now() {
            assert!(setting.value.is_some() && !setting.meaning.is_empty(), "{setting:?}");
        }
    }
}
