//! The sums of what was seen, held against what the kernel itself counts in each network namespace.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    time::{Duration, Instant},
};

use super::{
    netns::{Counters, Netns, Way, ways},
    queue::Queue,
};
use crate::{model::budget, queues::Holder};

/// What was seen and what the kernel counted in one network namespace, over the same time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balance {
    /// The namespace's inode number.
    pub netns: u32,
    /// Packets seen to meet a full queue of a listener that is emitted.
    pub seen: u64,
    /// The same for the namespace's other listeners.
    pub elsewhere: u64,
    /// What the kernel counted, or why that cannot be read.
    pub kernel: Result<Counters, String>,
}

impl Balance {
    /// What the kernel counted, if it can be read.
    pub fn kernel(&self) -> Option<&Counters> {
        self.kernel.as_ref().ok()
    }

    /// What the kernel counted beyond what was seen; negative if less.
    pub fn difference(&self) -> Option<i64> {
        let seen = self.seen + self.elsewhere;
        self.kernel().map(|kernel| kernel.overflows.cast_signed().wrapping_sub(seen.cast_signed()))
    }

    /// The difference explained, or why there is none.
    pub fn explanation(&self) -> String {
        let kernel = match &self.kernel {
            Ok(kernel) => kernel,
            Err(reason) => {
                return format!(
                    "this network namespace cannot be looked into ({reason}), so nothing can be compared"
                );
            }
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
    namespaces: HashMap<u32, Result<Account, String>>,
    /// Ways to namespaces to which no listener's owner leads any more, and when they were looked for.
    ways: HashMap<u32, Way>,
    looked: Option<Instant>,
    /// Whether it was reported that not all could be looked at.
    has_complained: bool,
    /// How many times one found no room.
    left_out: u64,
}

/// Why a namespace cannot be looked into to which nothing leads.
const NO_WAY: &str = "no process, mount or descriptor leads there";

/// Why one is not looked into that found no room.
const NO_ROOM: &str = "listeners are in more network namespaces than are looked into";

/// How often it is looked for them.
const LOOKED: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct Account {
    netns: Netns,
    before: Counters,
    /// What had been seen when the counters were read.
    seen_before: u64,
    somaxconn: Result<u32, String>,
}

impl Books {
    /// Opens a namespace's account, unless that was done or tried before. `seen` is what the kernel side has seen there so far; the
    /// counters are read again until they stand still meanwhile.
    pub fn open(&mut self, netns: u32, inode: u64, holder: Option<&Holder>, mut seen: impl FnMut() -> u64) {
        const TRIES: usize = 5;
        if matches!(self.namespaces.get(&netns), Some(Ok(_))) {
            return;
        }
        if self.is_full() && !self.namespaces.contains_key(&netns) {
            if self.left_out == 0 {
                crate::notice!(
                    "{NO_ROOM}, which are {}: nothing is compared in the others",
                    budget::NAMESPACES
                );
            }
            self.left_out += 1;
            return;
        }
        let found = match holder.map(|holder| Netns::of(netns, holder, inode)) {
            Some(Ok(found)) => Ok(found),
            Some(Err(reason)) => self.other_way(netns).unwrap_or(Err(reason)),
            None => self.other_way(netns).unwrap_or_else(|| Err(io::Error::other(NO_WAY))),
        };
        let account = || -> io::Result<Account> {
            let netns = found?;
            let somaxconn = netns.setting("net.core.somaxconn").map_err(|error| error.to_string());
            let (mut seen_before, mut before) = (seen(), netns.counters()?);
            for _ in 0..TRIES {
                let (seen_now, now) = (seen(), netns.counters()?);
                if (seen_now, now) == (seen_before, before) {
                    break;
                }
                (seen_before, before) = (seen_now, now);
            }
            Ok(Account { netns, before, seen_before, somaxconn })
        };
        let account = account().map_err(|error| error.to_string());
        self.namespaces.insert(netns, account);
    }

    /// Another way to a namespace, if there is one, and what is wrong with it.
    fn other_way(&mut self, netns: u32) -> Option<io::Result<Netns>> {
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOKED) {
            let (ways, unseen) = ways();
            if let Some(unseen) = unseen.filter(|_| !std::mem::replace(&mut self.has_complained, true)) {
                crate::notice!("{unseen}");
            }
            (self.ways, self.looked) = (ways, Some(Instant::now()));
        }
        Some(Netns::by(netns, self.ways.get(&netns)?.clone()))
    }

    /// A namespace, if it could be opened.
    pub fn netns(&self, netns: u32) -> Option<&Netns> {
        Some(&self.account(netns)?.netns)
    }

    /// A namespace's net.core.somaxconn when it was seen first.
    pub fn somaxconn(&self, netns: u32) -> Option<u32> {
        self.account(netns)?.somaxconn.as_ref().ok().copied()
    }

    fn is_full(&self) -> bool {
        self.namespaces.len() >= budget::NAMESPACES
    }

    /// Why a namespace has no account.
    fn why_none(&self) -> String {
        if self.is_full() { NO_ROOM } else { NO_WAY }.to_owned()
    }

    /// How many times a listener's namespace was not looked into for want of room.
    pub fn left_out(&self) -> u64 {
        self.left_out
    }

    fn account(&self, netns: u32) -> Option<&Account> {
        self.namespaces.get(&netns)?.as_ref().ok()
    }

    /// Holds what was seen against the kernel's counters, for each namespace of a listener that is emitted; `forgotten` is what was seen at
    /// others, that are emitted and that are not, by namespace.
    pub fn close<'a>(
        &mut self,
        queues: impl Iterator<Item = (&'a Queue, bool)>,
        forgotten: &HashMap<u32, (u64, u64)>,
    ) -> Vec<Balance> {
        let forgotten =
            forgotten.iter().map(|(netns, (seen, elsewhere))| (*netns, (*seen, *elsewhere, *seen > 0)));
        let mut sums: BTreeMap<u32, (u64, u64, bool)> = forgotten.collect();
        for (queue, is_emitted) in queues {
            let (seen, elsewhere, any) = sums.entry(queue.netns).or_default();
            *if is_emitted { seen } else { elsewhere } += queue.syn_drops + queue.ack_drops;
            *any |= is_emitted;
        }
        let emitted = sums.into_iter().filter(|(_, (.., any))| *any);
        emitted
            .map(|(netns, (seen, elsewhere, _))| {
                let first = match self.namespaces.get(&netns) {
                    Some(Ok(account)) => account.netns.counters().map_err(|error| error.to_string()),
                    Some(Err(reason)) => Err(reason.clone()),
                    None => Err(self.why_none()),
                };
                let now = first.or_else(|reason| {
                    let other = self.other_way(netns).ok_or(reason)?;
                    other.and_then(|netns| netns.counters()).map_err(|error| error.to_string())
                });
                let kernel = match self.namespaces.get(&netns) {
                    Some(Ok(account)) => now.map(|now| now.since(&account.before)),
                    Some(Err(reason)) => Err(reason.clone()),
                    None => Err(self.why_none()),
                };
                // What was seen before the counters were read is not in their rise.
                let before = self.account(netns).map_or(0, |account| account.seen_before);
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
        let kernel = Ok(Counters { overflows, drops, ..Counters::default() });
        Balance { netns: 1, seen, elsewhere: 0, kernel }
    }

    #[test]
    fn namespaces_beyond_the_budget_are_counted_and_not_looked_into() {
        let mut books = Books::default();
        let most = u32::try_from(budget::NAMESPACES).unwrap();
        books.namespaces.extend((0..most).map(|netns| (netns, Err(NO_WAY.to_owned()))));
        books.open(most, 1, None, || 0);
        assert_eq!((books.namespaces.len(), books.left_out()), (budget::NAMESPACES, 1));
        assert_eq!(books.why_none(), NO_ROOM);
    }

    #[test]
    fn a_difference_is_reported_and_never_hidden() {
        assert_eq!(balance(5, 5, 5).difference(), Some(0));
        assert!(balance(5, 5, 5).explanation().contains("the same"));
        let more = balance(5, 7, 9);
        assert_eq!(more.difference(), Some(2));
        assert!(more.explanation().contains("2 more") && more.explanation().contains("other reasons"));
        assert!(balance(5, 4, 4).explanation().contains("1 fewer"));
        let closed = Balance { kernel: Err(NO_WAY.to_owned()), ..balance(5, 0, 0) };
        assert!(closed.difference().is_none() && closed.explanation().contains("looked into"));
    }
}
