//! Netfilter's table of connections, in a process's network namespace.

use std::{fs, io};

use crate::model::inquiry::Conntrack;

/// How full it is, and how often that was too full. `drop` is counted for each CPU, `entries` is the same in each line
/// (`ct_cpu_seq_show`, net/netfilter/nf_conntrack_standalone.c).
///
/// # Errors
/// If there is none, or it cannot be read.
pub(crate) fn conntrack(pid: u32) -> io::Result<Conntrack> {
    let table = fs::read_to_string(format!("/proc/{pid}/net/stat/nf_conntrack"))?;
    let max = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_max")?;
    let max = max.trim().parse().map_err(io::Error::other)?;
    of_table(&table, max)
        .ok_or_else(|| io::Error::other("the table of netfilter's counters has another shape"))
}

fn of_table(table: &str, max: u64) -> Option<Conntrack> {
    let mut lines = table.lines();
    let names: Vec<&str> = lines.next()?.split_whitespace().collect();
    let at = |name: &str| names.iter().position(|one| *one == name);
    let (entries_at, drop_at) = (at("entries")?, at("drop")?);
    let mut found = Conntrack { entries: 0, max, drops: 0, risen: None };
    for line in lines {
        let figures: Vec<&str> = line.split_whitespace().collect();
        let figure = |at: usize| u64::from_str_radix(figures.get(at)?, 16).ok();
        found.entries = figure(entries_at)?;
        found.drops += figure(drop_at)?;
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_those_of_all_processors() {
        let table = "entries  clashres found new invalid ignore delete chainlength insert insert_failed drop early_drop icmp_error\n\
                     00000010  00000000 00000000 00000000 00000001 0 0 0 0 0 00000003 00000001 0\n\
                     00000010  00000000 00000000 00000000 00000001 0 0 0 0 0 0000000a 00000001 0\n";
        let found = of_table(table, 16).unwrap();
        assert_eq!((found.entries, found.drops), (16, 13));
        assert!(found.is_full() && !Conntrack { risen: Some(0), ..found }.is_full());
        assert!(!Conntrack { max: 17 * 20, ..found }.is_full());
        assert_eq!(of_table("entries found\n1 2\n", 16), None);
    }
}
