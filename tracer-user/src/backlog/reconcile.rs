//! The sums of what was seen, held against what the kernel itself counts in each network namespace.

use std::{
    collections::{BTreeMap, HashMap},
    time::{Duration, Instant},
};

use super::{
    netns::{Counters, Netns, Way, ways},
    owners::Holder,
    queue::Queue,
};

/// What was seen and what the kernel counted in one network namespace, over the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The namespace's inode number.
    pub netns: u32,
    /// Packets seen to meet a full queue of a listener that is told.
    pub seen: u64,
    /// The same for the namespace's other listeners.
    pub elsewhere: u64,
    /// What the kernel counted; none where the namespace cannot be looked into.
    pub kernel: Option<Counters>,
}

impl Balance {
    /// What the kernel counted beyond what was seen; negative if less.
    pub fn difference(&self) -> Option<i64> {
        let seen = self.seen + self.elsewhere;
        self.kernel.map(|kernel| kernel.overflows.cast_signed().wrapping_sub(seen.cast_signed()))
    }

    /// The difference explained, or why there is none.
    pub fn explanation(&self) -> String {
        let Some(kernel) = self.kernel else {
            return "no process here lets this network namespace be looked into, so nothing can be compared"
                .to_owned();
        };
        let mut text = match self.difference().unwrap_or(0) {
            0 => "the kernel's own count of overflows is the same".to_owned(),
            more if more > 0 => format!(
                "the kernel counted {more} more, by packets that it does not let why502 see here or at a listener that is not known"
            ),
            less => {
                format!("the kernel counted {} fewer: it was looked at while counting went on", less.abs())
            }
        };
        if self.elsewhere > 0 {
            text += &format!("; {} of them at listeners that are not told here", self.elsewhere);
        }
        let beyond = kernel.drops.saturating_sub(kernel.overflows);
        if beyond > 0 {
            text += &format!(
                "; it dropped {beyond} more packets of handshakes for other reasons ({} of them because too many handshakes were \
                 unfinished)",
                kernel.syn_queue_drops
            );
        }
        if kernel.cookies > 0 {
            text += &format!("; {} SYNs were answered by a cookie", kernel.cookies);
        }
        text
    }
}

/// The kernel's counters of each namespace as they were when it was seen first.
#[derive(Debug, Default)]
pub(super) struct Books {
    namespaces: HashMap<u32, Option<Account>>,
    /// Ways to namespaces to which no listener's owner leads any more, and when they were looked for.
    ways: HashMap<u32, Way>,
    looked: Option<Instant>,
}

/// How often it is looked for them.
const LOOKED: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Account {
    netns: Netns,
    before: Counters,
    /// What had been seen when the counters were read.
    seen_before: u64,
    somaxconn: Option<u32>,
}

impl Books {
    /// Opens a namespace's account, unless that was done or tried before. `seen` is what the kernel side has seen there so far; the
    /// counters are read again until they stand still meanwhile.
    pub fn open(&mut self, netns: u32, inode: u64, holder: Option<&Holder>, mut seen: impl FnMut() -> u64) {
        const TRIES: usize = 5;
        if matches!(self.namespaces.get(&netns), Some(Some(_))) {
            return;
        }
        let found = holder.and_then(|holder| Netns::of(netns, holder, inode));
        let found = found.or_else(|| self.other_way(netns));
        let account = || {
            let netns = found?;
            let somaxconn = netns.setting("net.core.somaxconn");
            let (mut seen_before, mut before) = (seen(), netns.counters()?);
            for _ in 0..TRIES {
                let (seen_now, now) = (seen(), netns.counters()?);
                if (seen_now, now) == (seen_before, before) {
                    break;
                }
                (seen_before, before) = (seen_now, now);
            }
            Some(Account { netns, before, seen_before, somaxconn })
        };
        let account = account();
        self.namespaces.insert(netns, account);
    }

    /// Another way to a namespace, if there is one.
    fn other_way(&mut self, netns: u32) -> Option<Netns> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOKED) {
            (self.ways, self.looked) = (ways(), Some(Instant::now()));
        }
        Netns::by(netns, self.ways.get(&netns)?.clone())
    }

    /// A namespace, if it could be opened.
    pub fn netns(&self, netns: u32) -> Option<&Netns> {
        Some(&self.namespaces.get(&netns)?.as_ref()?.netns)
    }

    /// A namespace's net.core.somaxconn when it was seen first.
    pub fn somaxconn(&self, netns: u32) -> Option<u32> {
        self.namespaces.get(&netns)?.as_ref()?.somaxconn
    }

    /// Holds what was seen against the kernel's counters, for each namespace of a listener that is told; `forgotten` is what was seen at
    /// others, that are told and that are not, by namespace.
    pub fn close<'a>(
        &mut self,
        queues: impl Iterator<Item = (&'a Queue, bool)>,
        forgotten: &HashMap<u32, (u64, u64)>,
    ) -> Vec<Balance> {
        let forgotten =
            forgotten.iter().map(|(netns, (seen, elsewhere))| (*netns, (*seen, *elsewhere, *seen > 0)));
        let mut sums: BTreeMap<u32, (u64, u64, bool)> = forgotten.collect();
        for (queue, is_told) in queues {
            let (seen, elsewhere, any) = sums.entry(queue.netns).or_default();
            *if is_told { seen } else { elsewhere } += queue.syn_drops + queue.ack_drops;
            *any |= is_told;
        }
        let told = sums.into_iter().filter(|(_, (.., any))| *any);
        told.map(|(netns, (seen, elsewhere, _))| {
            let now = self.namespaces.get(&netns).and_then(|account| account.as_ref()?.netns.counters());
            let now = now.or_else(|| self.other_way(netns)?.counters());
            let account = self.namespaces.get(&netns).and_then(Option::as_ref);
            let kernel = account.zip(now).map(|(account, now)| now.since(&account.before));
            // What was seen before the counters were read is not in their rise.
            let before = account.map_or(0, |account| account.seen_before);
            let taken = before.min(seen);
            Balance {
                netns,
                seen: seen - taken,
                elsewhere: elsewhere - (before - taken).min(elsewhere),
                kernel,
            }
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn balance(seen: u64, overflows: u64, drops: u64) -> Balance {
        let kernel = Some(Counters { overflows, drops, ..Counters::default() });
        Balance { netns: 1, seen, elsewhere: 0, kernel }
    }

    #[test]
    fn a_difference_is_told_and_never_hidden() {
        assert_eq!(balance(5, 5, 5).difference(), Some(0));
        assert!(balance(5, 5, 5).explanation().contains("the same"));
        let more = balance(5, 7, 9);
        assert_eq!(more.difference(), Some(2));
        assert!(more.explanation().contains("2 more") && more.explanation().contains("other reasons"));
        assert!(balance(5, 4, 4).explanation().contains("1 fewer"));
        let closed = Balance { kernel: None, ..balance(5, 0, 0) };
        assert!(closed.difference().is_none() && closed.explanation().contains("looked into"));
    }
}
