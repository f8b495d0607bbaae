//! The hook plan: each fact has an ordered list of sources, and the first that loads and attaches wins.

use std::collections::HashSet;

use aya::{
    Btf, Ebpf,
    programs::{Program, ProgramError},
};
use tracer_ebpf::{Attached, Layout, MISSING};

use super::{refused, tracefs};
use crate::{
    facts::{Fact, Sources},
    failure::Failure,
};

/// A way to hook the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HookKind {
    /// Raw tracepoints by name; no tracefs needed.
    RawTracepoint,
    /// fentry and fexit, since 5.5 where the kernel allows them.
    Function,
    /// kprobes and kretprobes.
    Kprobe,
    /// Tracepoints on system calls: they tax every system call of the host, so they wait until they are needed.
    SystemCall,
}

impl HookKind {
    /// Every kind with its name for `--hooks-only`.
    pub const ALL: [(&'static str, Self); 4] = [
        ("raw_tp", Self::RawTracepoint),
        ("fentry", Self::Function),
        ("kprobe", Self::Kprobe),
        ("syscall", Self::SystemCall),
    ];
}

/// What a source hooks.
#[derive(Clone, Copy, Debug)]
enum Point {
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
struct Source {
    kind: HookKind,
    points: &'static [Point],
}

const fn raw(points: &'static [Point]) -> Source {
    Source { kind: HookKind::RawTracepoint, points }
}

const fn function(points: &'static [Point]) -> Source {
    Source { kind: HookKind::Function, points }
}

const fn kprobe(points: &'static [Point]) -> Source {
    Source { kind: HookKind::Kprobe, points }
}

const SYSTEM_CALLS: Source = Source {
    kind: HookKind::SystemCall,
    points: &[Tracepoint("sys_enter_connect"), Tracepoint("sys_exit_connect"), Tracepoint("sys_enter_close")],
};

const SENDS: &[Point] = &[Return("tcp_sendmsg"), Return("unix_stream_sendmsg")];
const RECEIVES: &[Point] = &[Return("tcp_recvmsg"), Return("unix_stream_recvmsg")];
const ACCEPTS: &[Point] = &[Return("inet_csk_accept"), Return("unix_accept")];
const SYN_DROPS: &[Point] = &[Entry("tcp_conn_request")];
const HANDSHAKE_DROPS: &[Point] = &[Return("tcp_v4_syn_recv_sock"), Return("tcp_v6_syn_recv_sock")];
const RESETS_SENT: &[Point] = &[Entry("tcp_v4_send_reset"), Entry("tcp_v6_send_reset")];
const UNIX_SOCKETS: &[Point] = &[Return("unix_stream_connect"), Entry("unix_release_sock")];
const CONNECT_ERRORS: &[Point] = &[Return("inet_stream_connect")];

/// A fact, whether the program can do without, and its sources: the best first.
struct Plan {
    fact: Fact,
    is_required: bool,
    sources: Vec<Source>,
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
        needed(Fact::States, &[raw(&[Tracepoint("inet_sock_set_state")])]),
        needed(Fact::Sends, &[raw(&[Tracepoint("sock_send_length")]), function(SENDS), kprobe(SENDS)]),
        needed(
            Fact::Receives,
            &[raw(&[Tracepoint("sock_recv_length")]), function(RECEIVES), kprobe(RECEIVES)],
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
        wanted(Fact::ConnectErrors, &[function(CONNECT_ERRORS), kprobe(CONNECT_ERRORS)]),
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

/// Attaches the best source of each fact. An optional one that the kernel refuses is noted and left out. `only` restricts the
/// kinds of hooks; empty allows all.
///
/// # Errors
/// Names the first required fact that has no source.
pub(super) fn attach(object: &mut Ebpf, layout: &Layout, only: &[HookKind]) -> Result<HookPlan, Failure> {
    let allowed = |kind: HookKind| only.is_empty() || only.contains(&kind);
    let mut attacher = Attacher { object, btf: None, refused: HashSet::new() };
    let mut result =
        HookPlan { may_trace_system_calls: allowed(HookKind::SystemCall), ..HookPlan::default() };
    for Plan { fact, is_required, sources } in plan(layout) {
        let mut reason = "this kernel has no hook for it".to_owned();
        let mut source_in_use = None;
        for source in sources.iter().filter(|source| allowed(source.kind)) {
            match attacher.attach(source) {
                Ok(name) => {
                    source_in_use = Some(name);
                    break;
                }
                Err(why) => reason = why,
            }
        }
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

/// What the kernel side must know of the plan.
pub(super) fn attached(plan: &HookPlan) -> Attached {
    Attached {
        unix_release: u32::from(plan.sources.has(Fact::UnixSockets)),
        handshake_drops: u32::from(plan.sources.has(Fact::HandshakeDrops)),
    }
}

/// Attaches the hooks on system calls.
///
/// # Errors
/// If the kernel refuses one, or its tracefs cannot be had.
pub(super) fn attach_system_calls(object: &mut Ebpf) -> Result<String, Failure> {
    tracefs::with(|| {
        let mut attacher = Attacher { object, btf: None, refused: HashSet::new() };
        let name = attacher.attach(&SYSTEM_CALLS).map_err(Failure::CannotTrace)?;
        if let Err(error) = attacher.attach_one("unix_ends_exit", "sched_process_exit") {
            eprintln!(
                "why502: an nginx that dies is not seen to end its unix exchanges: {}",
                refused(&error)
            );
        }
        Ok(name)
    })
}

struct Attacher<'a> {
    object: &'a mut Ebpf,
    btf: Option<Btf>,
    /// Kinds that this kernel refuses as such: trying each of their programs would only take time.
    refused: HashSet<HookKind>,
}

impl Attacher<'_> {
    /// Attaches all programs of a source; returns the source's name. Where one is refused, none stays.
    fn attach(&mut self, source: &Source) -> Result<String, String> {
        if self.refused.contains(&source.kind) {
            return Err(format!("this kernel refuses {}", kind_name(source.kind)));
        }
        let programs: Vec<_> = source.points.iter().flat_map(|point| programs(source.kind, *point)).collect();
        for (attached, (program, target)) in programs.iter().enumerate() {
            if let Err(error) = self.attach_one(program, target) {
                for (program, _) in &programs[..=attached] {
                    self.detach(program);
                }
                return Err(format!("{}/{target}: {}", kind_name(source.kind), refused(&error)));
            }
        }
        Ok(source_name(source))
    }

    fn attach_one(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let missing = || ProgramError::InvalidName { name: name.to_owned() };
        if name.starts_with('f') && self.btf.is_none() {
            self.btf = Btf::from_sys_fs().ok();
        }
        let program = self.object.program_mut(name).ok_or_else(missing)?;
        let result = match program {
            Program::RawTracePoint(program) => program.load().and_then(|()| program.attach(target).map(drop)),
            Program::TracePoint(program) => {
                program.load().and_then(|()| program.attach("syscalls", target).map(drop))
            }
            Program::KProbe(program) => program.load().and_then(|()| program.attach(target, 0).map(drop)),
            Program::FEntry(program) => {
                let btf = self.btf.as_ref().ok_or_else(missing)?;
                program.load(target, btf).and_then(|()| program.attach().map(drop))
            }
            Program::FExit(program) => {
                let btf = self.btf.as_ref().ok_or_else(missing)?;
                program.load(target, btf).and_then(|()| program.attach().map(drop))
            }
            _ => Err(missing()),
        };
        if let Err(error) = &result {
            if std::env::var_os("WHY502_VERIFIER_LOG").is_some() {
                eprintln!("{name}: {error:?}");
            }
            self.note_refusal(name, error);
        }
        result
    }

    /// A kernel that does not allow a kind of hook refuses each with the same errno.
    fn note_refusal(&mut self, program: &str, error: &ProgramError) {
        let is_permission = refused(error).contains("Operation not permitted");
        if is_permission && (program.starts_with("fentry_") || program.starts_with("fexit_")) {
            self.refused.insert(HookKind::Function);
        }
        if program.starts_with("kprobe_")
            && !std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists()
        {
            self.refused.insert(HookKind::Kprobe);
        }
    }

    fn detach(&mut self, name: &str) {
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
    fn a_return_by_kprobe_takes_two_programs() {
        let programs = programs(HookKind::Kprobe, Return("tcp_sendmsg"));
        assert_eq!(
            programs,
            [("kprobe_tcp_sendmsg".into(), "tcp_sendmsg"), ("kretprobe_tcp_sendmsg".into(), "tcp_sendmsg")]
        );
    }

    #[test]
    fn sources_are_named_as_evidence_shows_them() {
        assert_eq!(source_name(&function(ACCEPTS)), "fexit/inet_csk_accept");
        assert_eq!(source_name(&function(SYN_DROPS)), "fentry/tcp_conn_request");
        assert_eq!(source_name(&SYSTEM_CALLS), "tracepoint/syscalls/sys_enter_connect");
    }
}
