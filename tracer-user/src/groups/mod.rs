//! Groups of upstreams, as nginx's configuration has them, and the failures that take their servers out: together they say which group
//! nginx means when it finds none of its servers alive. Pure.

use std::collections::{BTreeMap, HashMap, VecDeque};

use crate::{
    ledger::{PATIENCE_NS, Said},
    model::{
        budget,
        cause::Cause,
        groups::{Configured, DEFAULT_FAIL_TIMEOUT_S, Group, Outage, Place, Server, Unnamed},
        upstream::Upstream,
        verdict::{Failed, Limits, OutOfUse, Verdict},
    },
};

const SECOND: u64 = 1_000_000_000;

/// The last failure of a server, as one worker counts it.
#[derive(Clone, Copy, Debug)]
struct Failure {
    ns: u64,
    cause: Cause,
    /// The client's connection; zero where nginx's word was not heard.
    connection: u64,
    /// Its place in the order of time.
    place: u64,
}

/// What is remembered.
#[derive(Debug, Default)]
pub struct Groups {
    configured: VecDeque<Configured>,
    /// By when they were, those that a word yet to come may be older than.
    pending: BTreeMap<(u64, u64), (u32, Upstream, Failure)>,
    /// By worker and upstream.
    last: HashMap<u32, BTreeMap<Upstream, Failure>>,
    order: BTreeMap<u64, (u32, Upstream)>,
    came: u64,
    forgotten: u64,
    /// Failures may have gone unseen up to this moment (ns, monotonic).
    blind_ns: u64,
}

impl Groups {
    /// Takes in what a configuration says.
    pub fn learn(&mut self, configured: Configured) {
        // Each file of a recording says it anew.
        self.configured.retain(|known| *known != configured);
        if self.configured.len() >= budget::GROUPED_CONFIGURATIONS {
            self.configured.pop_front();
        }
        self.configured.push_back(configured);
    }

    /// A failure may have gone unseen at this moment (ns, monotonic), or before.
    pub fn was_blind(&mut self, ns: u64) {
        self.blind_ns = self.blind_ns.max(ns);
    }

    /// How many failures were forgotten for want of room.
    pub fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Takes in a verdict on what failed at `ns` (monotonic). nginx counts against a server what goes wrong before it has a header to
    /// pass on, be it tried anew or not (`ngx_http_upstream_next`), and nothing else.
    pub fn failed(&mut self, verdict: &Verdict, ns: u64) {
        if matches!(verdict.upstream, Upstream::Named(_)) {
            return;
        }
        if verdict.cause.cause() == "unknown" {
            self.was_blind(ns);
        }
        if !matches!(verdict.status, Some(502 | 504)) {
            return;
        }
        self.came += 1;
        let connection = verdict.word.as_ref().map_or(0, |word| word.connection);
        let failure = Failure { ns, cause: verdict.cause, connection, place: self.came };
        self.pending.insert((ns, self.came), (verdict.nginx.pid, verdict.upstream.clone(), failure));
        if self.pending.len() > budget::FAILED_SERVERS
            && let Some((_, (pid, upstream, failure))) = self.pending.pop_first()
        {
            self.note(pid, upstream, failure);
        }
    }

    /// What was before this moment (ns, monotonic) comes before every word yet to come.
    pub fn settle(&mut self, ns: u64) {
        while let Some(first) = self.pending.first_entry().filter(|first| first.key().0 <= ns) {
            let (pid, upstream, failure) = first.remove();
            self.note(pid, upstream, failure);
        }
    }

    fn note(&mut self, pid: u32, upstream: Upstream, failure: Failure) {
        self.order.insert(failure.place, (pid, upstream.clone()));
        if let Some(before) = self.last.entry(pid).or_default().insert(upstream, failure) {
            self.order.remove(&before.place);
        }
        while self.order.len() > budget::FAILED_SERVERS {
            let Some((_, (pid, upstream))) = self.order.pop_first() else { break };
            if let Some(its) = self.last.get_mut(&pid) {
                let forgotten = its.remove(&upstream);
                self.forgotten += u64::from(forgotten.is_some_and(|old| failure.ns < old.ns + HOUR));
                if its.is_empty() {
                    self.last.remove(&pid);
                }
            }
        }
    }

    /// Whether what nginx said, that it found no server alive, may be about a group of which a server is watched: its line says which group
    /// it is; else all those that are watched have failed.
    pub fn may_concern(&mut self, said: &Said) -> bool {
        self.settle(said.ns);
        let is_its = |configured: &&Configured| configured.workers.contains(&said.nginx.pid);
        let Some(configured) = self.configured.iter().rev().find(is_its).filter(|one| one.is_narrowed) else {
            return true;
        };
        match said.group() {
            Some(name) => {
                let mut its = configured.groups.iter().filter(|group| group.name == name);
                its.any(|group| group.servers.iter().any(|server| server.is_watched))
            }
            None => matches!(self.group(said), Ok(_) | Err(Unnamed::SeveralFit)),
        }
    }

    /// What is known of why nginx found no server alive when it said so.
    pub fn outage(&mut self, said: &Said) -> Outage {
        // Every verdict on what failed before it has come: both wait equally long.
        self.settle(said.ns);
        let (group, is_sure, mut servers) = match self.group(said) {
            Ok((group, servers, is_sure)) => (Ok(group), is_sure, servers),
            Err(why) => (Err(why), false, self.failed_lately(said)),
        };
        let more = servers.len().saturating_sub(budget::SERVERS_TOLD);
        servers.truncate(budget::SERVERS_TOLD);
        Outage { group, is_sure, servers, more }
    }

    fn group(&self, said: &Said) -> Result<(String, Vec<OutOfUse>, bool), Unnamed> {
        let unread = || Unnamed::Unread("it was not asked for".to_owned());
        let mut all = self.configured.iter().rev();
        let configured =
            all.find(|configured| configured.workers.contains(&said.nginx.pid)).ok_or_else(unread)?;
        if let (true, Some(gaps)) = (configured.groups.is_empty(), &configured.gaps) {
            return Err(Unnamed::Unread(gaps.clone()));
        }
        let mut fitting = configured
            .groups
            .iter()
            .filter(|group| said.group().is_none_or(|name| name == group.name))
            .filter_map(|group| Some((group, self.out_of_use(group, &configured.workers, said)?)));
        let (group, servers) = fitting.next().ok_or(Unnamed::NoneFits)?;
        if fitting.next().is_some() {
            return Err(Unnamed::SeveralFit);
        }
        let others = configured.groups.iter().filter(|other| !std::ptr::eq(*other, group));
        let longest = others.flat_map(|other| &other.servers).map(|server| server.limits.window_ns()).max();
        // Where there is no other group, what was not seen does not matter.
        let sees_all = |longest| {
            let is_blind = configured.counts_statuses || configured.is_narrowed;
            !is_blind && said.ns.saturating_sub(self.blind_ns) > longest
        };
        let is_sure = configured.gaps.is_none() && longest.is_none_or(sees_all);
        Ok((group.name.clone(), servers, is_sure))
    }

    /// The group's servers, if nginx may leave each of them alone; none if it has one that it must ask.
    fn out_of_use(&self, group: &Group, workers: &[u32], said: &Said) -> Option<Vec<OutOfUse>> {
        // A group of one server never leaves it alone for its failures (`peers->single`, src/http/ngx_http_upstream_round_robin.c).
        let may_be_alone = |server: &Server| {
            server.is_down || server.has_max_conns || matches!(server.place, Place::Named(_))
        };
        if let [only] = &group.servers[..]
            && !may_be_alone(only)
        {
            return None;
        }
        if group.servers.iter().all(|server| !server.is_watched) {
            return None;
        }
        let own = [said.nginx.pid];
        let pids = if group.is_shared { workers } else { &own };
        let mut all = Vec::new();
        for server in &group.servers {
            if let (true, Place::At(upstream)) = (server.is_down, &server.place) {
                all.push(OutOfUse {
                    upstream: upstream.clone(),
                    failed: None,
                    limits: Some(server.limits),
                    is_down: true,
                });
                continue;
            }
            if server.is_down {
                continue;
            }
            if !server.is_watched {
                if let Place::At(upstream) = &server.place {
                    all.push(OutOfUse {
                        upstream: upstream.clone(),
                        failed: None,
                        limits: None,
                        is_down: false,
                    });
                }
                continue;
            }
            let is_out = |failure: &&Failure| {
                let is_of_this_request = failure.connection != 0 && failure.connection == said.connection;
                failure.ns.saturating_add(server.limits.window_ns()) >= said.ns
                    && (server.limits.max_fails > 0 || is_of_this_request)
            };
            let failures = |upstream: &Upstream| {
                let its = pids.iter().filter_map(|pid| self.last.get(pid)?.get(upstream)).filter(is_out);
                its.max_by_key(|failure| failure.ns)
            };
            let found: BTreeMap<&Upstream, &Failure> = match &server.place {
                Place::At(upstream) => {
                    failures(upstream).map(|failure| (upstream, failure)).into_iter().collect()
                }
                Place::Named(port) => {
                    let has_port = |upstream: &Upstream| matches!(upstream, Upstream::Inet(address) if address.port() == *port);
                    let its = pids.iter().filter_map(|pid| self.last.get(pid)).flatten();
                    its.filter(|(upstream, failure)| has_port(upstream) && is_out(failure)).collect()
                }
            };
            match (&server.place, found.is_empty()) {
                (_, false) => {}
                (Place::At(upstream), true) if server.has_max_conns => {
                    let limits = Some(server.limits);
                    all.push(OutOfUse { upstream: upstream.clone(), failed: None, limits, is_down: false });
                }
                (Place::Named(_), true) if server.has_max_conns => {}
                (_, true) => return None,
            }
            for (upstream, failure) in found {
                // Names with the same port may have the same addresses.
                if !all.iter().any(|one: &OutOfUse| one.upstream == *upstream) {
                    all.push(out_of_use(upstream, failure, Some(server.limits), said));
                }
            }
        }
        Some(all)
    }

    /// Whom this worker failed with lately.
    fn failed_lately(&self, said: &Said) -> Vec<OutOfUse> {
        let window_ns = Limits { max_fails: 1, fail_timeout_s: DEFAULT_FAIL_TIMEOUT_S }.window_ns();
        let its = self.last.get(&said.nginx.pid).into_iter().flatten();
        its.filter(|(_, failure)| failure.ns.saturating_add(window_ns) >= said.ns)
            .map(|(upstream, failure)| out_of_use(upstream, failure, None, said))
            .collect()
    }
}

/// No `fail_timeout` that anybody sets is longer.
const HOUR: u64 = 3_600 * SECOND;

/// For how long what is pending may still be followed by a word that is older.
pub const SETTLING_NS: u64 = PATIENCE_NS + SECOND;

fn out_of_use(upstream: &Upstream, failure: &Failure, limits: Option<Limits>, said: &Said) -> OutOfUse {
    let failed = Some(Failed { cause: failure.cause, ago_ns: said.ns.saturating_sub(failure.ns) });
    OutOfUse { upstream: upstream.clone(), failed, limits, is_down: false }
}

impl Limits {
    /// For how long at most nginx leaves a server alone after a failure: it counts whole seconds (`now - peer->checked <=
    /// peer->fail_timeout`).
    fn window_ns(self) -> u64 {
        (u64::from(self.fail_timeout_s) + 1) * SECOND
    }
}

#[cfg(test)]
mod tests;
