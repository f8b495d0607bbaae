//! Words that are known from nginx's error log only, until it is known which exchange each is about.
//!
//! nginx writes its line before it closes the exchange, so once the log has been read, the line of whatever nginx had ended of its own
//! accord by then has been read, too. A line bears a pid and names an upstream, and its worker writes its lines in the order in which it
//! ends exchanges.

use std::collections::{BTreeMap, HashMap};

use wire::nginx_flag;

use super::{Exchange, Name, Said};
use crate::model::{budget, upstream::Upstream};

/// How long after the log was read (ns) an exchange that nginx had closed by then may come to be known.
const SETTLING_NS: u64 = 200_000_000;

/// How long it may take (ns) to read the logs, or nginx to come from its line to its close.
const READING_NS: u64 = 50_000_000;

/// How long a line waits whose exchange is not known: none may ever be, for the kernel calls it a success.
const WAITING_NS: u64 = 1_000_000_000;

/// How long before the log was read (ns) an exchange may have ended that a line is about.
const BEFORE_NS: u64 = 1_500_000_000;

/// The lines that wait for their exchange, and the exchanges that wait for their line.
#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Whether there are any to come.
    is_followed: bool,
    /// By deadline, and at the same one in their order.
    lines: BTreeMap<(u64, u64), Said>,
    came: u64,
    /// By process, and by their ends.
    exchanges: HashMap<u32, BTreeMap<Place, Candidate>>,
}

/// When an exchange ended, and its name.
type Place = (u64, Name);

/// What is known of an exchange that a line may be about.
#[derive(Clone, Debug)]
struct Candidate {
    upstream: Upstream,
    error: u32,
    was_connecting: bool,
    had_closed: bool,
    has_received: bool,
    /// Its client had left, so that nginx has nothing to say of it.
    client_had_left: bool,
    /// nginx answered its client or tried the next upstream right after.
    gave_up: bool,
}

/// How well a line fits an exchange: the better is the smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fit {
    /// The kernel's account says the same.
    Agrees,
    /// It does not contradict.
    Possible,
}

/// What a line that has waited for long enough came to.
#[derive(Debug)]
pub(super) enum Found {
    /// These words are about this exchange.
    About(Name, Vec<Said>),
    /// It is about none that is known.
    Alone(Box<Said>),
}

impl Lines {
    /// Whether lines are to come from now on.
    pub(super) fn follow(&mut self, is_followed: bool) {
        self.is_followed = is_followed;
    }

    /// Whether an exchange that failed has its line still to come.
    pub(super) fn are_awaited(&self, exchange: &Exchange) -> bool {
        self.is_followed && exchange.said.is_empty() && !exchange.has(nginx_flag::WORD_AUDIBLE)
    }

    /// An exchange waits for its line.
    pub(super) fn wait(&mut self, exchange: &Exchange) {
        let nginx = &exchange.nginx;
        let candidate = Candidate {
            upstream: exchange.upstream(),
            error: nginx.error,
            was_connecting: exchange.was_connecting(),
            had_closed: !exchange.nginx_closed_first(),
            has_received: nginx.received > 0,
            client_had_left: false,
            gave_up: false,
        };
        let of = self.exchanges.entry(nginx.nginx.tgid).or_default();
        of.insert((nginx.ended_ns, exchange.name()), candidate);
    }

    /// What nginx did after an exchange is known.
    pub(super) fn learn(&mut self, exchange: &Exchange) {
        let place = (exchange.nginx.ended_ns, exchange.name());
        if let Some(candidate) =
            self.exchanges.get_mut(&exchange.nginx.nginx.tgid).and_then(|of| of.get_mut(&place))
        {
            candidate.client_had_left = exchange.client_had_left().is_some();
            candidate.gave_up = exchange.nginx_gave_up();
        }
    }

    /// An exchange waits no longer.
    pub(super) fn stop(&mut self, exchange: &Exchange) {
        let pid = exchange.nginx.nginx.tgid;
        if let Some(of) = self.exchanges.get_mut(&pid) {
            of.remove(&(exchange.nginx.ended_ns, exchange.name()));
            if of.is_empty() {
                self.exchanges.remove(&pid);
            }
        }
    }

    /// One more line waits; gives back the one for which there is no room.
    pub(super) fn put(&mut self, said: Said) -> Option<Said> {
        self.until(said.ns.saturating_add(SETTLING_NS), said);
        if self.lines.len() > budget::WAITING_LINES {
            return self.lines.pop_first().map(|(_, said)| said);
        }
        None
    }

    fn until(&mut self, deadline: u64, said: Said) {
        self.came += 1;
        self.lines.insert((deadline, self.came), said);
    }

    /// When [`Lines::overdue`] next has something (ns, monotonic).
    pub(super) fn next_deadline(&self) -> Option<u64> {
        self.lines.first_key_value().map(|((deadline, _), _)| *deadline)
    }

    /// What the lines that have waited for long enough at `now` (ns, monotonic) are about, in order.
    pub(super) fn overdue(&mut self, now: u64) -> Vec<Found> {
        let later = self.lines.split_off(&(now, 0));
        let due = std::mem::replace(&mut self.lines, later);
        let mut groups = Vec::<Vec<Said>>::new();
        let mut places = HashMap::new();
        for (_, said) in due {
            let group = (said.ns, said.nginx.pid, said.named().cloned());
            let place = *places.entry(group).or_insert(groups.len());
            if place == groups.len() {
                groups.push(Vec::new());
            }
            groups[place].push(said);
        }
        let mut found = Vec::new();
        for group in groups {
            for kind in kinds(group) {
                self.join(kind, now, &mut found);
            }
        }
        found
    }

    /// Joins lines of one kind, of one look at what one process said of one upstream. Each line is about one exchange and each exchange has
    /// one line at most. Where more exchanges fit than there are lines, those that the kernel's account agrees with come first, then those
    /// that ended first: of those that are alike any may take it.
    fn join(&mut self, kind: Vec<Words>, now: u64, found: &mut Vec<Found>) {
        let Some(pid) = kind.first().map(|words| words.last.nginx.pid) else { return };
        let of = self.exchanges.remove(&pid).unwrap_or_default();
        let mut fitting: Vec<(Fit, Place)> = of
            .iter()
            .filter_map(|(place, exchange)| Some((exchange.fits(place, &kind[0].last)?, *place)))
            .collect();
        fitting.sort_unstable();
        fitting.truncate(kind.len());
        // Lines come in the order in which nginx ended what they are about.
        let mut free: Vec<Place> = fitting.into_iter().map(|(_, place)| place).collect();
        free.sort_unstable();
        let mut free = free.into_iter();
        for Words { before, last } in kind {
            if let Some((_, name)) = free.next() {
                let words = before.into_iter().chain([last]).collect();
                found.push(Found::About(name, words));
            } else if last.ns.saturating_add(WAITING_NS) <= now {
                found.push(Found::Alone(Box::new(last)));
            } else {
                for said in before.into_iter().chain([last]) {
                    self.until(said.ns.saturating_add(WAITING_NS), said);
                }
            }
        }
        if !of.is_empty() {
            self.exchanges.insert(pid, of);
        }
    }
}

/// What nginx says of one exchange: the details of the last word come before it.
struct Words {
    before: Vec<Said>,
    last: Said,
}

/// By what lines say: those of one kind are about exchanges of one kind.
fn kinds(group: Vec<Said>) -> Vec<Vec<Words>> {
    let mut kinds = Vec::<Vec<Words>>::new();
    let mut details = Vec::<Said>::new();
    let mut lines = group.into_iter().peekable();
    while let Some(said) = lines.next() {
        if lines.peek().is_some_and(|next| is_detail(&said, next)) {
            details.push(said);
            continue;
        }
        let words = Words { before: std::mem::take(&mut details), last: said };
        match kinds.iter_mut().find(|kind| is_alike(&kind[0].last, &words.last)) {
            Some(kind) => kind.push(words),
            None => kinds.push(vec![words]),
        }
    }
    kinds
}

/// `upstream sent invalid header: "..."`, and then `upstream sent invalid header`.
fn is_detail(said: &Said, next: &Said) -> bool {
    said.connection == next.connection
        && said.format.starts_with("upstream sent")
        && next.format == "upstream sent invalid header"
}

fn is_alike(one: &Said, other: &Said) -> bool {
    (&one.format, one.errno, &one.doing) == (&other.format, other.errno, &other.doing)
}

impl Candidate {
    /// How well a line fits it; none if it cannot be about it.
    fn fits(&self, (ended_ns, _): &Place, said: &Said) -> Option<Fit> {
        let is_in_time =
            *ended_ns >= said.ns.saturating_sub(BEFORE_NS) && *ended_ns <= said.ns.saturating_add(READING_NS);
        let is_its = said.named().is_none_or(|named| is_named(named, &self.upstream));
        if !is_in_time || !is_its || self.client_had_left {
            return None;
        }
        let begins = |beginnings: &[&str]| beginnings.iter().any(|one| said.format.starts_with(one));
        let (is_possible, agrees) = if begins(&["connect() "]) {
            let is_same = self.error == said.errno;
            (self.was_connecting && (is_same || self.error == 0), is_same)
        } else if begins(&["upstream timed out"]) {
            let is_connecting = said.doing == "connecting to upstream";
            (!self.had_closed && self.was_connecting == is_connecting, self.gave_up)
        } else if said.is_of_no_connection() {
            (false, false)
        } else if said.errno != 0 && begins(&["recv()", "readv()", "send", "writev()", "SSL_"]) {
            (!self.was_connecting && self.error != 0, self.error == said.errno)
        } else if begins(&["upstream prematurely closed"]) {
            (!self.was_connecting, self.had_closed)
        } else {
            (!self.was_connecting, self.has_received)
        };
        is_possible.then_some(if agrees { Fit::Agrees } else { Fit::Possible })
    }
}

/// Whether this is how the log names an upstream; behind a path it may have a URI without a seam.
fn is_named(named: &Upstream, upstream: &Upstream) -> bool {
    match (named, upstream) {
        (Upstream::Inet(named), Upstream::Inet(address)) => {
            (named.ip().to_canonical(), named.port()) == (address.ip().to_canonical(), address.port())
        }
        (Upstream::Unix(named), Upstream::Unix(path)) => named.starts_with(path),
        _ => false,
    }
}
