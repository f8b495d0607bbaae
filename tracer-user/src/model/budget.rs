//! How much of the outside is kept in memory at a time: the one place for it. Each figure is for all processes, pids, upstreams and
//! listeners together, whoever makes them; what comes beyond it is counted and reported, never kept.

use std::num::NonZeroUsize;

/// What an [`lru::LruCache`] holds at most, one at least.
const fn most(entries: usize) -> NonZeroUsize {
    match NonZeroUsize::new(entries) {
        Some(entries) => entries,
        None => NonZeroUsize::MIN,
    }
}

/// Processes that have nginx's name, are not believed to be nginx, and are named: in the summary and on standard error. Further ones
/// are only counted, by their connections.
pub const STRANGERS: usize = 32;

/// Letters of an executable's path that are kept.
pub const EXECUTABLE: usize = 256;

/// Upstreams whose exchanges are counted one by one (`record`). The one that was longest without an exchange is forgotten for a new
/// one; exchanges that it has afterwards count anew, and how many were forgotten is counted.
pub const UPSTREAMS: NonZeroUsize = most(2_048);

/// Upstreams that are taken up anew within a second: each is a line of evidence. Further ones are left out, and counted.
pub const NEW_UPSTREAMS: usize = 64;

/// Accept queues that are recorded once a second: each is a line of evidence. Of further listeners at the upstreams' addresses none
/// is looked at, which is reported.
pub const DEPTHS: usize = 512;

/// Questions about nginx's configuration that wait to be answered. Whether that of further processes that begin names unix upstreams shows
/// when the first is used, which is reported.
pub const BEGUN: usize = 64;

/// Masters whose configurations are read in one go, to know whether any names unix upstreams; of as many it is kept what theirs say. More
/// are not on a host that serves anybody; it is reported.
pub const CONFIGURATIONS: usize = 64;

/// Exchanges that wait for what follows them: more than the kernel side's maps let wait. The oldest then waits no longer, counts as lost,
/// and its verdict is incomplete.
pub const WAITING_EXCHANGES: usize = 32_768;

/// So many of them wait where records were lost since they began, and as many words: what follows may be what was lost. The oldest then waits no
/// longer; its verdict is incomplete in any case, and how often that was so is counted.
pub const WAITING_AFTER_LOSS: usize = 512;

/// Lines of nginx's error log that wait for the exchange that they are about. The oldest then waits no longer and is emitted alone.
pub const WAITING_LINES: usize = 16_384;

/// Error logs that are followed, of all masters together, where nginx's word is not heard. Further ones are left out, which is reported.
pub const HELD_LOGS: usize = 256;

/// Listeners of which it is kept who holds them, when somebody is looked for who listens near an upstream. With more, that there is none is
/// not said.
pub const LISTENERS_SEEN: usize = 16_384;

/// Of those that listen near an upstream so many are named.
pub const NEIGHBOURS: usize = 3;

/// Upstreams at which nobody listens and of which the neighbours are remembered; those seen longest ago are forgotten.
pub const NEARS: NonZeroUsize = most(256);

/// Upstreams of which it is remembered until when they were reached over TCP; the one that was reached longest ago is forgotten.
pub const REACHED: NonZeroUsize = most(1_024);

/// Upstreams of which it is remembered after how long they closed idle connections under a request; the one that closed none for
/// longest is forgotten.
pub const IDLE_CLOSERS: NonZeroUsize = most(1_024);

/// Such closes of each, the last ones.
pub const IDLE_CLOSES: usize = 64;

/// Answers to clients that wait for their verdict, and verdicts that are remembered for them. The oldest answer then waits no longer, and the
/// oldest verdict is tied to none any more.
pub const ANSWERED: usize = 16_384;

/// Letters of a request line that are shown.
pub const REQUEST_SHOWN: usize = 512;

/// Servers that one answer to a client may have been tried at. A line with more is none of nginx's.
pub const TRIES: usize = 64;

/// Lines of access logs with a status that is accounted for, within a second. Further ones are left out, and counted.
pub const ANSWERS: u64 = 20_000;

/// Bytes of an access log that are read within a second. Where it grows faster, the rest is passed over, which is counted and reported.
pub const ACCESS_LOG_BYTES: u64 = 32 << 20;

/// Exchanges that are remembered because their worker may go on, and retries that are foreseen, of each. The oldest is forgotten: what
/// its worker did afterwards is not emitted, which is counted; a retry that nginx takes very long for is emitted as a request of its own.
pub const REMEMBERED_EXCHANGES: usize = 16_384;

/// Slow exchanges whose workers' looks are kept; as many are watched at a time. Looks at further ones are only counted.
pub const SLOW_EXCHANGES: usize = 16_384;

/// Processes that are named as holding a connection. Further ones are not.
pub const HOLDERS: usize = 8;

/// Bytes of lines and of verdicts, of each, that wait for their match in the audit. The oldest beyond it are given up as unmatched,
/// and counted.
pub const AUDIT_BYTES: usize = 48 << 20;

/// The longest line of an error log that is taken for one of nginx's (which cuts at 2,048 bytes). Longer ones are passed over and
/// counted.
pub const LOG_LINE: usize = 4_096;

/// Upstreams that one line of the log may name before it counts as naming any.
pub const NAMED_UPSTREAMS: usize = 8;

/// Pids written in a log that are remembered, whether somebody has them or not. Those beyond are looked up anew.
pub const LOG_PIDS: usize = 16_384;

/// Lines that are remembered so that the same line in another log counts once. With more, the older half is forgotten early.
pub const REPEATED_LINES: usize = 131_072;

/// Listeners that were closed while `backlog` watches. The oldest is forgotten: emitted at once as it stood at its end (in JSON), counted
/// in its namespace's sum and in the summary.
pub const CLOSED_LISTENERS: usize = 4_096;

/// nginx processes of which it is kept whether they say each error. With more, all are found out about again.
pub const SPEAKERS: usize = 4_096;

/// Configurations of nginx that are remembered, each with the pids of its workers: those that were read last. A worker whose
/// configuration was forgotten has it read anew, but no more than so many are read within ten seconds.
pub const GROUPED_CONFIGURATIONS: usize = 64;

/// Servers of all groups of one configuration, and workers that run by it. Of a configuration with more, nothing is said.
pub const GROUP_SERVERS: usize = 1_024;

/// Bytes of the name of a group of upstreams.
pub const GROUP_NAME: usize = 256;

/// Servers whose last failure is remembered, by worker, and failures that came within the last seconds. The oldest is forgotten, which is
/// counted if it is younger than an hour; a group that it belongs to is then not named.
pub const FAILED_SERVERS: usize = 16_384;

/// Servers of a group that one verdict lists; how many more there are is said in its sentence.
pub const SERVERS_TOLD: usize = 32;

/// Network namespaces in which `backlog` holds what it sees against what the kernel counts, and of which it sums what was seen at listeners
/// that it has forgotten. Further ones are not looked into; how often that was so is counted.
pub const NAMESPACES: usize = 4_096;

/// Processes whose control groups are remembered: those that failures named last.
pub const CGROUPED: NonZeroUsize = most(1_024);
