//! The hook plan: each fact has an ordered list of sources, and the first that loads and attaches wins.

use std::{collections::HashSet, path::Path};

use aya::{
    Ebpf,
    programs::{Program, ProgramError},
};
use wire::{Attached, Layout, MISSING};

use super::{btf, functions, lean::keep_handle_only, refused, tracefs, types::Types};
use crate::model::{
    facts::{Fact, Sources},
    failure::Failure,
    hook_kind::HookKind,
};

/// Exists where the kernel was built with kprobes (`CONFIG_KPROBE_EVENTS`).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// The kinds of hooks of which some facts' sources are, and that are of no use here: that this kernel refuses as such, or that `only` leaves out;
/// empty allows all. Tracepoints serve what is no fact, too.
pub(super) fn useless(only: &[HookKind], kernel: &btf::Kernel) -> HashSet<HookKind> {
    let mut useless = HashSet::new();
    if !is_allowed(only, HookKind::Function) || functions::are_refused(kernel) {
        useless.insert(HookKind::Function);
    }
    if !is_allowed(only, HookKind::Kprobe) || !Path::new(KPROBES).exists() {
        useless.insert(HookKind::Kprobe);
    }
    useless
}

fn is_allowed(only: &[HookKind], kind: HookKind) -> bool {
    only.is_empty() || only.contains(&kind)
}

/// What a source hooks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Point {
    /// A tracepoint.
    Tracepoint(&'static str),
    /// A function's return.
    Return(&'static str),
    /// A function's start.
    Entry(&'static str),
}

use Point::{Entry, Return, Tracepoint};

/// One way to see a fact: all its points, by one kind of hook.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source {
    pub(super) kind: HookKind,
    pub(super) points: &'static [Point],
}

pub(super) const fn raw(points: &'static [Point]) -> Source {
    Source { kind: HookKind::RawTracepoint, points }
}

pub(super) const fn function(points: &'static [Point]) -> Source {
    Source { kind: HookKind::Function, points }
}

pub(super) const fn kprobe(points: &'static [Point]) -> Source {
    Source { kind: HookKind::Kprobe, points }
}

const SYSTEM_CALLS: Source = Source {
    kind: HookKind::SystemCall,
    points: &[Tracepoint("sys_enter_connect"), Tracepoint("sys_exit_connect"), Tracepoint("sys_enter_close")],
};

const STATES: &[Point] = &[Tracepoint("inet_sock_set_state")];
const CONNECTS: &[Point] = &[Entry("tcp_connect")];
const SENDS: &[Point] = &[Return("tcp_sendmsg"), Return("unix_stream_sendmsg")];
const RECEIVES: &[Point] = &[Return("tcp_recvmsg"), Return("unix_stream_recvmsg")];
/// kretprobes miss calls while others wait in the same function: there, what such a call comes by is hooked.
const RECEIVES_BY_KPROBE: &[Point] = &[
    Entry("tcp_recvmsg"),
    Entry("tcp_cleanup_rbuf"),
    Entry("unix_stream_recvmsg"),
    Entry("unix_stream_read_actor"),
];
pub(super) const ACCEPTS: &[Point] = &[Entry("security_sock_graft")];
const SYN_DROPS: &[Point] = &[Entry("tcp_conn_request")];
const HANDSHAKE_DROPS: &[Point] = &[Return("tcp_v4_syn_recv_sock"), Return("tcp_v6_syn_recv_sock")];
const RESETS_SENT: &[Point] = &[Entry("tcp_v4_send_reset"), Entry("tcp_v6_send_reset")];
const UNIX_SOCKETS: &[Point] =
    &[Return("unix_stream_connect"), Entry("unix_release_sock"), Return("unix_listen")];
const CONNECT_ERRORS: &[Point] = &[Return("inet_stream_connect")];
const CONNECT_ERRORS_BY_KPROBE: &[Point] = &[Return("tcp_v4_connect"), Return("tcp_v6_connect")];

/// A fact, whether the program can do without, and its sources: the best first.
pub(super) struct Plan {
    pub(super) fact: Fact,
    pub(super) is_required: bool,
    pub(super) sources: Vec<Source>,
}

/// The plan for a kernel of this layout.
fn plan(layout: &Layout) -> Vec<Plan> {
    let needed = |fact, sources: &[Source]| Plan { fact, is_required: true, sources: sources.to_vec() };
    let wanted = |fact, sources: &[Source]| Plan { fact, is_required: false, sources: sources.to_vec() };
    // Without a reason the tracepoint is also silent where no socket took the packet.
    let resets_sent = if layout.reset_reason_arg == MISSING {
        [function(RESETS_SENT), kprobe(RESETS_SENT), raw(&[Tracepoint("tcp_send_reset")])]
    } else {
        [raw(&[Tracepoint("tcp_send_reset")]), function(RESETS_SENT), kprobe(RESETS_SENT)]
    };
    let packet_drops: &[Source] =
        if layout.drop_reason_arg == MISSING { &[] } else { &[raw(&[Tracepoint("kfree_skb")])] };
    vec![
        needed(Fact::States, &[raw(STATES)]),
        wanted(Fact::Connects, &[function(CONNECTS), kprobe(CONNECTS)]),
        needed(Fact::Sends, &[raw(&[Tracepoint("sock_send_length")]), function(SENDS), kprobe(SENDS)]),
        needed(
            Fact::Receives,
            &[raw(&[Tracepoint("sock_recv_length")]), function(RECEIVES), kprobe(RECEIVES_BY_KPROBE)],
        ),
        needed(Fact::Signals, &[raw(&[Tracepoint("signal_generate")])]),
        needed(Fact::ResetsReceived, &[raw(&[Tracepoint("tcp_receive_reset")])]),
        needed(Fact::Retransmits, &[raw(&[Tracepoint("tcp_retransmit_skb")])]),
        wanted(Fact::Accepts, &[function(ACCEPTS), kprobe(ACCEPTS)]),
        wanted(Fact::SynDrops, &[function(SYN_DROPS), kprobe(SYN_DROPS)]),
        wanted(Fact::HandshakeDrops, &[function(HANDSHAKE_DROPS), kprobe(HANDSHAKE_DROPS)]),
        wanted(Fact::ResetsSent, &resets_sent),
        wanted(Fact::Icmp, &[raw(&[Tracepoint("inet_sk_error_report")])]),
        wanted(Fact::Deaths, &[raw(&[Tracepoint("sched_process_exit")])]),
        wanted(Fact::OomVictims, &[raw(&[Tracepoint("mark_victim")])]),
        wanted(Fact::PacketDrops, packet_drops),
        wanted(Fact::Destroys, &[raw(&[Tracepoint("tcp_destroy_sock")])]),
        wanted(Fact::UnixSockets, &[function(UNIX_SOCKETS), kprobe(UNIX_SOCKETS)]),
        wanted(Fact::ConnectErrors, &[function(CONNECT_ERRORS), kprobe(CONNECT_ERRORS_BY_KPROBE)]),
    ]
}

/// The hooks in use, and the facts that this kernel does not let the program see.
#[derive(Clone, Debug, Default)]
pub struct HookPlan {
    /// Each fact that is seen, with its source.
    pub sources: Sources,
    /// Each fact without a source, with the reason.
    pub missing: Vec<(Fact, String)>,
    /// Whether system calls may be hooked once they are needed.
    pub may_trace_system_calls: bool,
}

/// Attaches the best source of each fact.
///
/// # Errors
/// Names the first required fact that has no source.
pub(super) fn attach(
    object: &mut Ebpf,
    layout: &Layout,
    only: &[HookKind],
    useless: HashSet<HookKind>,
    with_copies: bool,
    types: &mut Types,
) -> Result<HookPlan, Failure> {
    let attacher = Attacher { with_copies, ..Attacher::without(useless, object, types) };
    follow(attacher, plan(layout), only)
}

/// Attaches the best source of each fact of a plan. An optional one that the kernel refuses is noted and left out. `only` restricts
/// the kinds of hooks; empty allows all.
///
/// # Errors
/// Names the first required fact that has no source.
pub(super) fn follow(
    mut attacher: Attacher<'_>,
    plans: Vec<Plan>,
    only: &[HookKind],
) -> Result<HookPlan, Failure> {
    let allowed = |kind| is_allowed(only, kind);
    let mut result =
        HookPlan { may_trace_system_calls: allowed(HookKind::SystemCall), ..HookPlan::default() };
    for Plan { fact, is_required, sources } in plans {
        let mut reasons = Vec::new();
        let mut source_in_use = None;
        for source in sources.iter().filter(|source| allowed(source.kind)) {
            match attacher.attach(source) {
                Ok(name) => {
                    source_in_use = Some(name);
                    break;
                }
                Err(why) => reasons.push(why),
            }
        }
        reasons.dedup();
        let reason =
            if reasons.is_empty() { "this kernel has no hook for it".to_owned() } else { reasons.join("; ") };
        match source_in_use {
            Some(name) => result.sources.set(fact, name),
            None if is_required => {
                return Err(Failure::CannotTrace(format!(
                    "{} cannot be seen here: {reason}",
                    fact.meaning()
                )));
            }
            None => result.missing.push((fact, reason)),
        }
    }
    Ok(result)
}

/// The tracepoint is silent where no socket took the packet, until it has a reason as well (since 6.10).
fn is_each_reset_seen(plan: &HookPlan, layout: &Layout) -> bool {
    let source = plan.sources.name(Fact::ResetsSent);
    plan.sources.has(Fact::ResetsSent)
        && (layout.reset_reason_arg != MISSING || !source.starts_with(kind_name(HookKind::RawTracepoint)))
}

/// What the kernel side must know of the plan.
pub(super) fn attached(plan: &HookPlan, layout: &Layout) -> Attached {
    Attached {
        unix_release: u8::from(plan.sources.has(Fact::UnixSockets)),
        handshake_drops: u8::from(plan.sources.has(Fact::HandshakeDrops)),
        own_resets: u8::from(is_each_reset_seen(plan, layout)),
        copies: 0,
        system_calls: 0,
        sends_by_kprobe: u8::from(plan.sources.name(Fact::Sends).contains("kretprobe")),
        connects_by_kprobe: u8::from(plan.sources.name(Fact::ConnectErrors).contains("kretprobe")),
        reserved: 0,
    }
}

/// The programs that must see everything, with what they are attached to; each has two further copies.
const COPIED: [(&str, &str); 19] = [
    ("inet_sock_set_state", "inet_sock_set_state"),
    ("sock_send_length", "sock_send_length"),
    ("sock_recv_length", "sock_recv_length"),
    ("inet_sk_error_report", "inet_sk_error_report"),
    ("tcp_send_reset", "tcp_send_reset"),
    ("tcp_receive_reset", "tcp_receive_reset"),
    ("tcp_retransmit_skb", "tcp_retransmit_skb"),
    ("tcp_destroy_sock", "tcp_destroy_sock"),
    ("sched_process_exit", "sched_process_exit"),
    ("signal_generate", "signal_generate"),
    ("fentry_security_sock_graft", "security_sock_graft"),
    ("fexit_unix_stream_connect", "unix_stream_connect"),
    ("fexit_inet_stream_connect", "inet_stream_connect"),
    ("fentry_unix_release_sock", "unix_release_sock"),
    ("kfree_skb", "kfree_skb"),
    ("unix_ends_exit", "sched_process_exit"),
    ("sys_enter_connect", "sys_enter_connect"),
    ("sys_exit_connect", "sys_exit_connect"),
    ("sys_enter_close", "sys_enter_close"),
];
const FURTHER: [&str; 2] = ["2", "3"];

/// Programs whose misses lose nothing: these look again at what was looked at when connect began.
const DISPENSABLE: [&str; 2] = ["fentry_tcp_connect", "kprobe_tcp_connect"];

/// Whether nothing is lost when this program is left out: it only looks again, or it is a further copy, and another has seen it.
pub(super) fn is_dispensable(program: &str) -> bool {
    DISPENSABLE.contains(&program) || is_copy(program)
}

/// Whether this is a further copy of a program.
fn is_copy(program: &str) -> bool {
    let first =
        program.rsplit_once('_').and_then(|(first, number)| FURTHER.contains(&number).then_some(first));
    COPIED.iter().any(|(copied, _target)| first == Some(copied))
}

/// Attaches the further copies of the programs that are attached, in their order, if they are not attached already.
///
/// # Errors
/// If the kernel refuses one.
pub(super) fn attach_copies(object: &mut Ebpf) -> Result<(), Failure> {
    let is_loaded = |name: &str| object.program(name).is_some_and(|program| program.fd().is_ok());
    let copies = COPIED.into_iter().filter(|(first, _target)| is_loaded(first));
    let copies =
        copies.flat_map(|(first, target)| FURTHER.map(|number| (format!("{first}_{number}"), target)));
    let copies: Vec<_> = copies.filter(|(copy, _target)| !is_loaded(copy)).collect();
    let mut types = Types::default();
    let mut attacher = Attacher::new(object, &mut types);
    for (copy, target) in copies {
        attacher.attach_one(&copy, target).map_err(anyhow::Error::from)?;
    }
    Ok(())
}

/// Sees processes of ours begin.
///
/// # Errors
/// Why the kernel refuses.
pub(super) fn attach_starts(object: &mut Ebpf) -> Result<(), String> {
    let started = "sched_process_exec";
    Attacher::new(object, &mut Types::default())
        .attach_one(started, started)
        .map_err(|error| format!("raw_tp/{started}: {}", refused(&error)))
}

/// Attaches the hooks on system calls.
///
/// # Errors
/// If the kernel refuses one, or its tracefs cannot be had.
pub(super) fn attach_system_calls(object: &mut Ebpf, with_copies: bool) -> Result<String, Failure> {
    let mut types = Types::default();
    let mut attacher = Attacher { with_copies, ..Attacher::new(object, &mut types) };
    let name = attacher.attach(&SYSTEM_CALLS).map_err(Failure::CannotTrace)?;
    if let Err(error) = attacher.attach_one("unix_ends_exit", "sched_process_exit") {
        crate::notice!("an nginx that dies is not seen to end its unix exchanges: {}", refused(&error));
    }
    Ok(name)
}

pub(super) struct Attacher<'a> {
    object: &'a mut Ebpf,
    types: &'a mut Types,
    /// Kinds whose programs may not be there.
    useless: HashSet<HookKind>,
    /// Whether programs that have further copies are attached with them.
    with_copies: bool,
    /// Programs that some fact has already.
    attached: HashSet<String>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(object: &'a mut Ebpf, types: &'a mut Types) -> Self {
        Self { object, types, useless: HashSet::new(), with_copies: false, attached: HashSet::new() }
    }

    /// The object may lack the programs of these kinds.
    pub(super) fn without(useless: HashSet<HookKind>, object: &'a mut Ebpf, types: &'a mut Types) -> Self {
        Self { useless, ..Self::new(object, types) }
    }

    /// Attaches all programs of a source; returns the source's name. Where one is refused, none stays.
    pub(super) fn attach(&mut self, source: &Source) -> Result<String, String> {
        if self.useless.contains(&source.kind) {
            return Err(refusal(source.kind));
        }
        let programs = source.points.iter().flat_map(|point| programs(source.kind, *point));
        let programs: Vec<_> = programs.filter(|(program, _)| !self.attached.contains(program)).collect();
        for (attached, (program, target)) in programs.iter().enumerate() {
            if let Err(error) = self.attach_one(program, target) {
                for (program, _) in &programs[..=attached] {
                    self.detach(program);
                }
                return Err(format!("{}/{target}: {}", kind_name(source.kind), refused(&error)));
            }
        }
        self.attached.extend(programs.into_iter().map(|(program, _)| program));
        Ok(source_name(source))
    }

    /// What the first one misses until its copies are attached is lost, so all are loaded before: that takes long.
    pub(super) fn attach_one(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let copies = if self.with_copies { copies_of(name) } else { Vec::new() };
        let all: Vec<_> = std::iter::once(name).chain(copies.iter().map(String::as_str)).collect();
        all.iter().try_for_each(|name| self.load(name, target))?;
        all.iter().try_for_each(|name| self.attach_loaded(name, target))
    }

    fn load(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let program = self.object.program_mut(name).ok_or_else(|| missing(name))?;
        let result = match program {
            Program::RawTracePoint(program) => program.load(),
            Program::TracePoint(program) => program.load(),
            Program::KProbe(program) => program.load(),
            Program::FEntry(program) => program.load(target, self.types.get()?),
            Program::FExit(program) => program.load(target, self.types.get()?),
            _ => Err(missing(name)),
        };
        match &result {
            Ok(()) => keep_handle_only(program, name),
            Err(error) => show(name, error),
        }
        result
    }

    fn attach_loaded(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let result = match self.object.program_mut(name).ok_or_else(|| missing(name))? {
            Program::RawTracePoint(program) => program.attach(target).map(drop),
            Program::TracePoint(program) => tracefs::with(|| program.attach("syscalls", target).map(drop))?,
            Program::KProbe(program) => program.attach(target, 0).map(drop),
            Program::FEntry(program) => program.attach().map(drop),
            Program::FExit(program) => program.attach().map(drop),
            _ => Err(missing(name)),
        };
        result.inspect_err(|error| show(name, error))
    }

    pub(super) fn detach(&mut self, name: &str) {
        if self.with_copies {
            copies_of(name).iter().for_each(|copy| self.detach_only(copy));
        }
        self.detach_only(name);
    }

    fn detach_only(&mut self, name: &str) {
        // A program that was never loaded has nothing to detach.
        let _not_loaded = match self.object.program_mut(name) {
            Some(Program::RawTracePoint(program)) => program.unload(),
            Some(Program::TracePoint(program)) => program.unload(),
            Some(Program::KProbe(program)) => program.unload(),
            Some(Program::FEntry(program)) => program.unload(),
            Some(Program::FExit(program)) => program.unload(),
            _ => Ok(()),
        };
    }
}

/// The object has no such program, or one of another kind.
fn missing(name: &str) -> ProgramError {
    ProgramError::InvalidName { name: name.to_owned() }
}

/// Shows what the kernel says of a program, where that was asked for.
fn show(name: &str, error: &ProgramError) {
    if std::env::var_os("WHY502_VERIFIER_LOG").is_some() {
        crate::terminal::complain(&format!("{name}: {error:?}\n"));
    }
}

/// The further copies of a program, in their order; none if it has none.
fn copies_of(program: &str) -> Vec<String> {
    let has_copies = COPIED.iter().any(|(copied, _target)| *copied == program);
    FURTHER.iter().filter(|_| has_copies).map(|number| format!("{program}_{number}")).collect()
}

/// The programs of a point, each with what it is attached to.
fn programs(kind: HookKind, point: Point) -> Vec<(String, &'static str)> {
    match (kind, point) {
        (HookKind::Function, Return(function)) => vec![(format!("fexit_{function}"), function)],
        (HookKind::Function, Entry(function)) => vec![(format!("fentry_{function}"), function)],
        (HookKind::Kprobe, Return(function)) => {
            vec![(format!("kprobe_{function}"), function), (format!("kretprobe_{function}"), function)]
        }
        (HookKind::Kprobe, Entry(function)) => vec![(format!("kprobe_{function}"), function)],
        (_, Tracepoint(name) | Return(name) | Entry(name)) => vec![(name.to_owned(), name)],
    }
}

/// Why no hook of a kind is to be had.
fn refusal(kind: HookKind) -> String {
    match kind {
        HookKind::Function => "this kernel refuses fentry".to_owned(),
        _ => format!("this kernel has no {}", kind_name(kind)),
    }
}

fn kind_name(kind: HookKind) -> &'static str {
    match kind {
        HookKind::RawTracepoint => "raw_tp",
        HookKind::Function => "fentry",
        HookKind::Kprobe => "kprobe",
        HookKind::SystemCall => "tracepoint/syscalls",
    }
}

/// As evidence names it: the kind, and its first point.
fn source_name(source: &Source) -> String {
    let (kind, point) = match (source.kind, source.points.first()) {
        (HookKind::Function, Some(Return(name))) => ("fexit", *name),
        (HookKind::Kprobe, Some(Return(name))) => ("kretprobe", *name),
        (kind, Some(Tracepoint(name) | Return(name) | Entry(name))) => (kind_name(kind), *name),
        (kind, None) => (kind_name(kind), ""),
    };
    format!("{kind}/{point}")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn a_kernel_without_reasons_does_not_hook_packet_drops() {
        let without = plan(&Layout::EMPTY);
        let drops = without.iter().find(|plan| plan.fact == Fact::PacketDrops).unwrap();
        assert!(drops.sources.is_empty() && !drops.is_required);
    }

    #[test]
    fn old_kernels_see_resets_without_a_socket_by_function() {
        let old = plan(&Layout::EMPTY);
        let resets = old.iter().find(|plan| plan.fact == Fact::ResetsSent).unwrap();
        assert_eq!(resets.sources[0].kind, HookKind::Function);
        let new = plan(&Layout { reset_reason_arg: 2, ..Layout::EMPTY });
        let resets = new.iter().find(|plan| plan.fact == Fact::ResetsSent).unwrap();
        assert_eq!(resets.sources[0].kind, HookKind::RawTracepoint);
    }

    #[test]
    fn copies_are_told_from_what_they_copy() {
        assert!(is_copy("sock_send_length_2") && is_copy("fentry_unix_release_sock_3"));
        for name in ["sock_send_length", "fentry_unix_release_sock", "sock_send_length_4", "mark_victim_2"] {
            assert!(!is_copy(name), "{name}");
        }
    }

    #[test]
    fn a_return_by_kprobe_takes_two_programs() {
        let programs = programs(HookKind::Kprobe, Return("tcp_sendmsg"));
        assert_eq!(
            programs,
            [("kprobe_tcp_sendmsg".into(), "tcp_sendmsg"), ("kretprobe_tcp_sendmsg".into(), "tcp_sendmsg")]
        );
    }

    /// The programs that serve no fact of the plan: each is attached by name where it is needed.
    const BESIDE: [&str; 5] = [
        "sched_process_exec",
        "unix_ends_exit",
        "ngx_log_error_core",
        "ngx_log_error_core_sleepable",
        "listeners",
    ];

    #[test]
    fn each_program_of_the_object_has_its_row() {
        let reasons = Layout { reset_reason_arg: 2, drop_reason_arg: 2, ..Layout::EMPTY };
        let plans = [plan(&Layout::EMPTY), plan(&reasons)];
        let sources = plans.iter().flatten().flat_map(|plan| plan.sources.clone()).chain([SYSTEM_CALLS]);
        let mut rows: BTreeSet<String> = sources
            .flat_map(|source| source.points.iter().flat_map(move |point| programs(source.kind, *point)))
            .map(|(program, _target)| program)
            .collect();
        rows.extend(BESIDE.map(str::to_owned));
        for (first, _target) in COPIED {
            assert!(rows.contains(first), "{first} has copies, and no row");
        }
        rows.extend(
            COPIED.iter().flat_map(|(first, _target)| FURTHER.map(|number| format!("{first}_{number}"))),
        );
        let object = aya_obj::Object::parse(crate::load::OBJECT).unwrap();
        let there: BTreeSet<String> = object.programs.keys().cloned().collect();
        assert_eq!(there, rows);
    }

    #[test]
    fn sources_are_named_as_evidence_shows_them() {
        assert_eq!(source_name(&function(CONNECT_ERRORS)), "fexit/inet_stream_connect");
        assert_eq!(source_name(&function(SYN_DROPS)), "fentry/tcp_conn_request");
        assert_eq!(source_name(&SYSTEM_CALLS), "tracepoint/syscalls/sys_enter_connect");
    }
}
