//! The table of facts: what is seen, by which hooks, and which hook sees it on the running kernel. What is loaded and attached, the doctor's
//! text, the standby instances and the table in docs/how-it-works.md come from it.

use std::collections::BTreeMap;

use super::hook_kind::HookKind;

/// What a source hooks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A tracepoint.
    Tracepoint(&'static str),
    /// A function's return.
    Return(&'static str),
    /// A function's start.
    Entry(&'static str),
}

use Point::{Entry, Return, Tracepoint};

/// What a source can do without or not, of what the kernel's tracepoints pass on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    /// Nothing.
    Nothing,
    /// Why a packet is dropped, as `kfree_skb` says it (since 5.17).
    DropReason,
    /// Why a reset is sent, as `tcp_send_reset` says it (since 6.10).
    ResetReason,
    /// That it is not said why a reset is sent: there is a better source else.
    NoResetReason,
}

/// One way to see a fact: all its points, by one kind of hook.
#[derive(Clone, Copy, Debug)]
pub struct Source {
    /// Its kind of hook.
    pub kind: HookKind,
    /// Where it hooks: all of them, or it is no source.
    pub points: &'static [Point],
    /// The points whose programs have standby instances, for they must see everything.
    pub standby: &'static [Point],
    /// What it can do without or not.
    pub needs: Needs,
    /// What it does not see.
    pub limit: Option<&'static str>,
    /// The first kernel that has it, where that is later than the oldest one that works (5.10).
    pub since: Option<&'static str>,
}

impl Source {
    /// One by tracepoints.
    pub const fn raw(points: &'static [Point]) -> Self {
        Self::by(HookKind::RawTracepoint, points)
    }

    /// One by fentry and fexit.
    pub const fn function(points: &'static [Point]) -> Self {
        Self::by(HookKind::Function, points)
    }

    /// One by kprobes and kretprobes.
    pub const fn kprobe(points: &'static [Point]) -> Self {
        Self::by(HookKind::Kprobe, points)
    }

    /// One by tracepoints on system calls.
    pub const fn system_calls(points: &'static [Point]) -> Self {
        Self::by(HookKind::SystemCall, points)
    }

    const fn by(kind: HookKind, points: &'static [Point]) -> Self {
        Self { kind, points, standby: &[], needs: Needs::Nothing, limit: None, since: None }
    }

    const fn standby(self) -> Self {
        self.standby_at(self.points)
    }

    const fn standby_at(self, standby: &'static [Point]) -> Self {
        Self { standby, ..self }
    }

    const fn needs(self, needs: Needs) -> Self {
        Self { needs, ..self }
    }

    const fn limit(self, limit: &'static str) -> Self {
        Self { limit: Some(limit), ..self }
    }

    const fn since(self, kernel: &'static str) -> Self {
        Self { since: Some(kernel), ..self }
    }

    /// As evidence names it: the kind, and its first point.
    pub fn name(&self) -> String {
        let (kind, point) = match (self.kind, self.points.first()) {
            (HookKind::Function, Some(Return(name))) => ("fexit", *name),
            (HookKind::Kprobe, Some(Return(name))) => ("kretprobe", *name),
            (kind, Some(Tracepoint(name) | Return(name) | Entry(name))) => (kind.of_source(), *name),
            (kind, None) => (kind.of_source(), ""),
        };
        format!("{kind}/{point}")
    }
}

/// How a fact is seen.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// Nothing can be traced without it.
    pub is_needed: bool,
    /// It only looks again at what was looked at before, so that a run that is missed loses nothing.
    pub is_second_look: bool,
    /// The ways to see it, the best first. Those by system calls wait until they are needed.
    pub sources: &'static [Source],
    /// The one that sees it where it is none of the kernel's but nginx's.
    pub uprobe: Option<&'static str>,
    /// What stands in where it is not seen.
    pub instead: Option<&'static str>,
}

const fn wanted(sources: &'static [Source]) -> Row {
    Row { is_needed: false, is_second_look: false, sources, uprobe: None, instead: None }
}

const fn needed(sources: &'static [Source]) -> Row {
    Row { is_needed: true, ..wanted(sources) }
}

impl Row {
    const fn or(self, instead: &'static str) -> Self {
        Self { instead: Some(instead), ..self }
    }

    /// The source by system calls, if there is one.
    pub fn system_calls(&self) -> Option<&'static Source> {
        self.sources.iter().find(|source| source.kind == HookKind::SystemCall)
    }
}

/// Who accepts a connection is seen where its socket gets the process's security label.
pub const ACCEPTS: &[Point] = &[Entry("security_sock_graft")];
/// What hears nginx's words.
pub const WORDS: &str = "uprobe/ngx_log_error_core";
const CONNECTS: &[Point] = &[Entry("tcp_connect")];
const SYN_DROPS: &[Point] = &[Entry("tcp_conn_request")];
const HANDSHAKE_DROPS: &[Point] = &[Return("tcp_v4_syn_recv_sock"), Return("tcp_v6_syn_recv_sock")];
const RESETS_SENT: &[Point] = &[Entry("tcp_v4_send_reset"), Entry("tcp_v6_send_reset")];
const UNIX_SOCKETS: &[Point] =
    &[Return("unix_stream_connect"), Entry("unix_release_sock"), Return("unix_listen")];
/// What shows, once it is needed, what nothing else does: the same calls for each fact.
pub const SYSTEM_CALLS: Source = Source::system_calls(&[
    Tracepoint("sys_enter_connect"),
    Tracepoint("sys_exit_connect"),
    Tracepoint("sys_enter_close"),
])
.standby()
.limit("a process that dies makes no system call");

macro_rules! facts {
    ($($(#[$doc:meta])* $fact:ident = $name:literal, $meaning:literal, $row:expr;)*) => {
        /// Something that a hook sees.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Fact {
            $($(#[$doc])* $fact,)*
        }

        impl Fact {
            /// Every fact.
            pub const ALL: &'static [Self] = &[$(Self::$fact,)*];

            /// The fact's name in evidence.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$fact => $name,)*
                }
            }

            /// The fact in words, as in "who sent a signal to whom".
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(Self::$fact => $meaning,)*
                }
            }

            /// How it is seen.
            pub const fn row(self) -> Row {
                match self {
                    $(Self::$fact => {
                        const ROW: Row = $row;
                        ROW
                    })*
                }
            }
        }
    };
}

facts! {
    /// Connections come and go.
    States = "states", "connections come and go",
        needed(&[Source::raw(&[Tracepoint("inet_sock_set_state")]).standby()]);
    /// nginx's SYN is about to be sent.
    Connects = "connects", "nginx's SYN is made",
        Row { is_second_look: true, ..wanted(&[Source::function(CONNECTS), Source::kprobe(CONNECTS)]) }
            .or("the listener's queue is read a moment before, when connect is called");
    /// Bytes go out, and what nginx does after it closed.
    Sends = "sends", "bytes sent, and what nginx does next",
        needed(&[
            Source::raw(&[Tracepoint("sock_send_length")]).standby().since("6.3"),
            Source::function(&[Return("tcp_sendmsg"), Return("unix_stream_sendmsg")]),
            Source::kprobe(&[Return("tcp_sendmsg"), Return("unix_stream_sendmsg")]),
        ]);
    /// Bytes are read.
    Receives = "receives", "bytes read",
        needed(&[
            Source::raw(&[Tracepoint("sock_recv_length")]).standby().since("6.3"),
            Source::function(&[Return("tcp_recvmsg"), Return("unix_stream_recvmsg")]),
            // kretprobes miss calls while others wait in the same function: what such a call comes by is hooked.
            Source::kprobe(&[
                Entry("tcp_recvmsg"),
                Entry("tcp_cleanup_rbuf"),
                Entry("unix_stream_recvmsg"),
                Entry("unix_stream_read_actor"),
            ]),
        ]);
    /// Who accepts a connection.
    Accepts = "accepts", "who accepts a connection",
        wanted(&[Source::function(ACCEPTS).standby(), Source::kprobe(ACCEPTS)])
            .or("a worker's first read stands for its accept");
    /// A SYN meets a full accept queue.
    SynDrops = "syn_drops", "a SYN meets a full accept queue",
        wanted(&[Source::function(SYN_DROPS), Source::kprobe(SYN_DROPS)])
            .or("the listener's queue is read each time nginx sends a SYN");
    /// The end of a handshake meets a full accept queue.
    HandshakeDrops = "handshake_drops", "the end of a handshake meets a full accept queue",
        wanted(&[Source::function(HANDSHAKE_DROPS), Source::kprobe(HANDSHAKE_DROPS)])
            .or("packet drops of the reason TCP_LISTEN_OVERFLOW");
    /// A reset was sent, and whether a socket was there.
    ResetsSent = "resets_sent", "a reset is sent, and whether a socket was there",
        wanted(&[
            Source::raw(&[Tracepoint("tcp_send_reset")]).standby().needs(Needs::ResetReason).since("6.10"),
            Source::function(RESETS_SENT),
            Source::kprobe(RESETS_SENT),
            Source::raw(&[Tracepoint("tcp_send_reset")])
                .standby()
                .needs(Needs::NoResetReason)
                .limit("it is silent where no socket took the packet"),
        ]);
    /// A reset arrived.
    ResetsReceived = "resets_received", "a reset arrives",
        needed(&[Source::raw(&[Tracepoint("tcp_receive_reset")]).standby()]);
    /// An ICMP message answers a SYN.
    Icmp = "icmp", "an ICMP message answers a SYN",
        wanted(&[Source::raw(&[Tracepoint("inet_sk_error_report")]).standby().since("5.14")]);
    /// A SYN went out again.
    Retransmits = "retransmits", "a SYN goes out again",
        needed(&[Source::raw(&[Tracepoint("tcp_retransmit_skb")]).standby()]);
    /// A socket that was reset earlier is closed.
    Destroys = "destroys", "a socket that was reset is closed",
        wanted(&[Source::raw(&[Tracepoint("tcp_destroy_sock")]).standby()]);
    /// Who sent a signal to whom.
    Signals = "signals", "who sent a signal to whom",
        needed(&[Source::raw(&[Tracepoint("signal_generate")]).standby()]);
    /// How a process ended.
    Deaths = "deaths", "how a process ended",
        wanted(&[Source::raw(&[Tracepoint("sched_process_exit")]).standby()]);
    /// The kernel chose a victim because memory ran out.
    OomVictims = "oom_victims", "whom the kernel kills because memory ran out",
        wanted(&[Source::raw(&[Tracepoint("mark_victim")])]);
    /// A packet was dropped, and why.
    PacketDrops = "packet_drops", "a packet is dropped, and why",
        wanted(&[Source::raw(&[Tracepoint("kfree_skb")]).standby().needs(Needs::DropReason).since("5.17")]);
    /// Unix sockets connect and end.
    UnixSockets = "unix_sockets", "unix sockets connect and end",
        wanted(&[
            Source::function(UNIX_SOCKETS)
                .standby_at(&[Return("unix_stream_connect"), Entry("unix_release_sock")]),
            Source::kprobe(UNIX_SOCKETS),
            SYSTEM_CALLS,
        ]);
    /// A connect that failed before a packet was sent.
    ConnectErrors = "connect_errors", "a connect fails before a packet is sent",
        wanted(&[
            Source::function(&[Return("inet_stream_connect")]).standby(),
            Source::kprobe(&[Return("tcp_v4_connect"), Return("tcp_v6_connect")]),
            SYSTEM_CALLS,
        ]);
    /// What nginx says of its upstreams.
    Words = "words", "what nginx logs about its upstreams",
        Row { uprobe: Some(WORDS), ..wanted(&[]) }
            .or("the error logs that nginx holds open are read");
}

/// The source of each fact that is seen, as in `raw_tp/signal_generate`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sources(BTreeMap<Fact, String>);

impl Sources {
    /// Notes that a fact has this source from now on.
    pub fn set(&mut self, fact: Fact, source: String) {
        self.0.insert(fact, source);
    }

    /// Whether the fact is seen at all.
    pub fn has(&self, fact: Fact) -> bool {
        self.0.contains_key(&fact)
    }

    /// The fact's source.
    pub fn name(&self, fact: Fact) -> &str {
        self.0.get(&fact).map_or("kernel", String::as_str)
    }

    /// Whether a fact is seen by watching every system call of some kind, which slows all of the host's a little.
    pub fn are_system_calls(&self) -> bool {
        self.0.values().any(|source| source.starts_with(HookKind::SystemCall.of_source()))
    }

    /// Each fact that is seen, with its source.
    pub fn iter(&self) -> impl Iterator<Item = (Fact, &str)> {
        self.0.iter().map(|(fact, source)| (*fact, source.as_str()))
    }
}

#[cfg(test)]
mod tests {
    use std::{env, fs, path::Path};

    use super::*;

    const PAGE: &str = "../docs/how-it-works.md";
    const BEGIN: &str =
        "<!-- the table of facts: RENEW=1 cargo test -p tracer-user --lib facts writes it anew -->\n";
    const END: &str = "\n<!-- end of the table -->";

    /// One hook as the table shows it: with all its points, since when, and what it does not see.
    fn shown(source: &Source) -> String {
        let points = source.points.iter().map(|point| {
            let (Tracepoint(name) | Return(name) | Entry(name)) = point;
            let mark = if source.standby.contains(point) { "²" } else { "" };
            let kind = match (source.kind, point) {
                (HookKind::Function, Return(_)) => "fexit",
                (HookKind::Kprobe, Return(_)) => "kretprobe",
                (kind, _) => kind.of_source(),
            };
            format!("`{kind}/{name}`{mark}")
        });
        let points = points.collect::<Vec<_>>().join(", ");
        let since = source.since.map(|kernel| format!(" (since {kernel})")).unwrap_or_default();
        let limit = source.limit.map(|limit| format!("; {limit}")).unwrap_or_default();
        let on_demand = if source.kind == HookKind::SystemCall { ", once they are needed" } else { "" };
        points + &since + on_demand + &limit
    }

    fn table() -> String {
        let mut lines = vec![
            "| fact | hooks, the best first | where it is not seen |".to_owned(),
            "| --- | --- | --- |".to_owned(),
        ];
        for fact in Fact::ALL {
            let row = fact.row();
            let sources: Vec<_> =
                row.sources.iter().map(shown).chain(row.uprobe.map(|name| format!("`{name}`"))).collect();
            let without = match (row.is_needed, row.instead) {
                (true, _) => "nothing can be traced",
                (false, Some(instead)) => instead,
                (false, None) => "the causes that it proves are inferred",
            };
            lines.push(format!("| {} | {} | {without} |", fact.meaning(), sources.join("<br>")));
        }
        lines.join("\n")
    }

    /// `RENEW=1 cargo test -p tracer-user --lib facts` writes it anew.
    #[test]
    fn the_page_has_the_table() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
        let page = fs::read_to_string(&path).unwrap();
        let (before, rest) = page.split_once(BEGIN).unwrap();
        let (there, after) = rest.split_once(END).unwrap();
        let table = table();
        if env::var_os("RENEW").is_some() {
            fs::write(&path, format!("{before}{BEGIN}{table}{END}{after}")).unwrap();
        } else {
            assert_eq!(there, table, "{PAGE} has another table: RENEW=1 writes it anew");
        }
    }

    #[test]
    fn standby_instances_are_of_programs_that_there_are() {
        for source in Fact::ALL.iter().flat_map(|fact| fact.row().sources) {
            assert!(source.standby.iter().all(|point| source.points.contains(point)), "{source:?}");
        }
    }
}
