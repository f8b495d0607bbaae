//! The hook plan: each fact has an ordered list of sources, and the first that loads and attaches wins.

use std::{collections::HashSet, path::Path};

use aya::{
    Ebpf,
    maps::ProgramArray,
    programs::{Program, ProgramError},
};
use wire::{Attached, Layout, MISSING, bodies};

use super::{
    btf, functions, given,
    lean::keep_handle_only,
    refused::refused,
    tracefs,
    types::{self, Types},
};
use crate::model::{
    facts::{
        Fact, Needs,
        Point::{self, Entry, Return, Tracepoint},
        SYSTEM_CALLS, Source, Sources,
    },
    failure::Failure,
    hook_kind::HookKind,
};

/// Exists where the kernel was built with kprobes (`CONFIG_KPROBE_EVENTS`).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// The kinds of hooks of which some facts' sources are, and that are of no use here: that this kernel refuses as such, or that `only` leaves out;
/// empty allows all. Tracepoints serve what is no fact, too.
pub(super) fn useless(only: &[HookKind], kernel: &btf::Kernel) -> HashSet<HookKind> {
    let mut useless = HashSet::new();
    if !is_allowed(only, HookKind::Function) || !given::are_own() || functions::are_refused(kernel) {
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

/// A fact, whether the program can do without, and its sources: the best first.
pub(super) struct Plan {
    pub(super) fact: Fact,
    pub(super) is_required: bool,
    pub(super) sources: Vec<Source>,
}

/// The plan for a kernel of this layout: the rows of the table, but for what is attached elsewhere or later.
fn plan(layout: &Layout) -> Vec<Plan> {
    let is_had = |source: &&Source| match source.needs {
        Needs::Nothing => source.kind != HookKind::SystemCall,
        Needs::DropReason => layout.drop_reason_arg != MISSING,
        Needs::ResetReason => layout.reset_reason_arg != MISSING,
        Needs::NoResetReason => layout.reset_reason_arg == MISSING,
    };
    let rows = Fact::ALL.iter().map(|fact| (*fact, fact.row())).filter(|(_, row)| row.uprobe.is_none());
    rows.map(|(fact, row)| Plan {
        fact,
        is_required: row.is_needed,
        sources: row.sources.iter().filter(is_had).copied().collect(),
    })
    .collect()
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
    with_standby: bool,
    types: &mut Types,
) -> Result<HookPlan, Failure> {
    let attacher = Attacher { with_standby, ..Attacher::without(useless, object, types) };
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
        && (layout.reset_reason_arg != MISSING || !source.starts_with(HookKind::RawTracepoint.of_source()))
}

/// What the kernel side must know of the plan.
pub(super) fn attached(plan: &HookPlan, layout: &Layout) -> Attached {
    Attached {
        unix_release: u8::from(plan.sources.has(Fact::UnixSockets)),
        handshake_drops: u8::from(plan.sources.has(Fact::HandshakeDrops)),
        own_resets: u8::from(is_each_reset_seen(plan, layout)),
        standby: 0,
        system_calls: 0,
        sends_by_kprobe: u8::from(plan.sources.name(Fact::Sends).contains("kretprobe")),
        connects_by_kprobe: u8::from(plan.sources.name(Fact::ConnectErrors).contains("kretprobe")),
        reserved: 0,
    }
}

/// With the hooks on system calls: it sees the unix exchanges of a process that dies, and which program it is attached to.
const UNIX_ENDS: (&str, &str) = ("unix_ends_exit", "sched_process_exit");

/// The programs that must see everything, with what they are attached to; each has two standby instances.
fn having_standby() -> impl Iterator<Item = (String, &'static str)> {
    let sources = Fact::ALL.iter().flat_map(|fact| fact.row().sources);
    let programs = sources
        .flat_map(|source| source.standby.iter().flat_map(|point| programs(source.kind, *point)))
        .chain([(UNIX_ENDS.0.to_owned(), UNIX_ENDS.1)]);
    let mut known = HashSet::new();
    programs.filter(move |(program, _)| known.insert(program.clone()))
}
const STANDBY: [&str; 2] = ["2", "3"];
/// The first of those that share a body, and that body.
const FIRST: &str = "1";
const BODY: &str = "body";

/// Where the body is that the instances of a program share.
struct Body {
    map: &'static str,
    place: u32,
}

fn body_of(program: &str) -> Option<Body> {
    let in_map = |map, bodies: &[&str]| bodies::place(bodies, program).map(|place| Body { map, place });
    in_map("BODIES", &bodies::OF_RAW_TRACEPOINTS)
        .or_else(|| in_map("SYSTEM_CALL_BODIES", &bodies::OF_SYSTEM_CALLS))
}

/// The program of which this is an instance that takes turns, or it is itself.
pub(super) fn program_of(instance: &str) -> &str {
    let program = instance.strip_suffix(FIRST).and_then(|program| program.strip_suffix('_'));
    program.filter(|program| body_of(program).is_some()).unwrap_or(instance)
}

/// Whether nothing is lost when this program is left out: it only looks again, or it is a standby instance, and another has seen it.
pub(super) fn is_dispensable(program: &str) -> bool {
    let second_looks = Fact::ALL.iter().map(|fact| fact.row()).filter(|row| row.is_second_look);
    let mut sources = second_looks.flat_map(|row| row.sources);
    let is_of = |source: &Source| {
        let mut programs = source.points.iter().flat_map(|point| programs(source.kind, *point));
        programs.any(|(name, _)| name == program)
    };
    sources.any(is_of) || is_standby(program)
}

/// Whether this is a standby instance of a program.
fn is_standby(program: &str) -> bool {
    let first =
        program.rsplit_once('_').and_then(|(first, number)| STANDBY.contains(&number).then_some(first));
    first.is_some_and(|first| having_standby().any(|(name, _target)| first == name))
}

/// Attaches the standby instances of the programs that are attached, in their order, if they are not attached already.
///
/// # Errors
/// If the kernel refuses one.
pub(super) fn attach_standby(object: &mut Ebpf) -> Result<(), Failure> {
    let is_loaded = |name: &str| is_loaded(object, name);
    let standby = having_standby().filter(|(first, _target)| is_loaded(first));
    let standby: Vec<_> = standby
        .filter(|(first, _target)| !standby_of(first).iter().any(|instance| is_loaded(instance)))
        .collect();
    let mut types = Types::default();
    let mut attacher = Attacher::new(object, &mut types);
    for (first, target) in standby {
        attacher.provide_body(&first, target).map_err(anyhow::Error::from)?;
        for instance in standby_of(&first) {
            attacher.attach_one(&instance, target).map_err(anyhow::Error::from)?;
        }
    }
    Ok(())
}

fn is_loaded(object: &Ebpf, program: &str) -> bool {
    object.program(program).is_some_and(|program| program.fd().is_ok())
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

/// The facts that system calls show, each with that source: it is the same one.
pub(super) fn by_system_calls() -> impl Iterator<Item = (Fact, &'static Source)> {
    Fact::ALL.iter().filter_map(|fact| Some((*fact, fact.row().system_calls()?)))
}

/// Attaches the hooks on system calls.
///
/// # Errors
/// If the kernel refuses one, or its tracefs cannot be had.
pub(super) fn attach_system_calls(object: &mut Ebpf, with_standby: bool) -> Result<String, Failure> {
    let mut types = Types::default();
    let mut attacher = Attacher { with_standby, ..Attacher::new(object, &mut types) };
    let name = attacher.attach(&SYSTEM_CALLS).map_err(Failure::CannotTrace)?;
    if let Err(error) = attacher.attach_one(UNIX_ENDS.0, UNIX_ENDS.1) {
        crate::notice!("an nginx that dies is not seen to end its unix exchanges: {}", refused(&error));
    }
    Ok(name)
}

pub(super) struct Attacher<'a> {
    object: &'a mut Ebpf,
    types: &'a mut Types,
    /// Kinds whose programs may not be there.
    useless: HashSet<HookKind>,
    /// Whether programs that have standby instances are attached with them.
    with_standby: bool,
    /// Programs that some fact has already.
    attached: HashSet<String>,
}

impl<'a> Attacher<'a> {
    pub(super) fn new(object: &'a mut Ebpf, types: &'a mut Types) -> Self {
        Self { object, types, useless: HashSet::new(), with_standby: false, attached: HashSet::new() }
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
                return Err(format!("{}/{target}: {}", source.kind.of_source(), refused(&error)));
            }
        }
        self.attached.extend(programs.into_iter().map(|(program, _)| program));
        Ok(source.name())
    }

    /// What the first one misses until its standby instances are attached is lost, so all are loaded before: that takes long.
    pub(super) fn attach_one(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let instances = self.instances(name);
        if instances.len() > 1 {
            self.provide_body(name, target)?;
        }
        instances.iter().try_for_each(|name| self.load(name, target))?;
        instances.iter().try_for_each(|name| self.attach_loaded(name, target))
    }

    /// What is attached in a program's place, in this order: itself, or instances of it.
    fn instances(&self, name: &str) -> Vec<String> {
        let standby = if self.with_standby { standby_of(name) } else { Vec::new() };
        let first = if !standby.is_empty() && body_of(name).is_some() {
            format!("{name}_{FIRST}")
        } else {
            name.to_owned()
        };
        std::iter::once(first).chain(standby).collect()
    }

    /// Puts what the instances of a program share where they go on, if they share anything.
    fn provide_body(&mut self, name: &str, target: &str) -> Result<(), ProgramError> {
        let Some(Body { map, place }) = body_of(name) else { return Ok(()) };
        let body = format!("{name}_{BODY}");
        // Another source of the fact may have begun with it, and been refused.
        if is_loaded(self.object, &body) {
            return Ok(());
        }
        self.load(&body, target)?;
        let program = self.object.program(&body).ok_or_else(|| missing(&body))?.fd()?.try_clone();
        let program = program.map_err(ProgramError::IOError)?;
        let map = self.object.map_mut(map).ok_or_else(|| missing(map))?;
        // It stays within the object: the kernel empties the map of one that is let go.
        ProgramArray::try_from(map)?.set(place, &program, 0)?;
        Ok(())
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
        self.instances(name).iter().rev().for_each(|instance| self.detach_only(instance));
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

/// The standby instances of a program, in their order; none if it has none.
fn standby_of(program: &str) -> Vec<String> {
    let has_standby = having_standby().any(|(name, _target)| name == program);
    STANDBY.iter().filter(|_| has_standby).map(|number| format!("{program}_{number}")).collect()
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
        HookKind::Function if !given::are_own() => format!("fentry {}", types::NEED_OWN),
        HookKind::Function => "this kernel refuses fentry".to_owned(),
        _ => format!("this kernel has no {}", kind.of_source()),
    }
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
    fn standby_instances_are_told_from_the_first() {
        assert!(is_standby("sock_send_length_2") && is_standby("fentry_unix_release_sock_3"));
        for name in ["sock_send_length", "fentry_unix_release_sock", "sock_send_length_4", "mark_victim_2"] {
            assert!(!is_standby(name), "{name}");
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
        let later = by_system_calls().map(|(_, source)| *source);
        let sources = plans.iter().flatten().flat_map(|plan| plan.sources.clone()).chain(later);
        let mut rows: BTreeSet<String> = sources
            .flat_map(|source| source.points.iter().flat_map(move |point| programs(source.kind, *point)))
            .map(|(program, _target)| program)
            .collect();
        rows.extend(BESIDE.map(str::to_owned));
        for (first, _target) in having_standby() {
            assert!(rows.contains(&first), "{first} has standby instances, and no row");
        }
        let standby = having_standby().map(|(first, _target)| first);
        let instances = standby.flat_map(|first| {
            let shared = body_of(&first).map_or(Vec::new(), |_| vec![FIRST, BODY]);
            STANDBY.into_iter().chain(shared).map(move |of| format!("{first}_{of}")).collect::<Vec<_>>()
        });
        rows.extend(instances);
        let elf = crate::load::object::Object::LIVE.elf().unwrap();
        let object = aya_obj::Object::parse(&elf).unwrap();
        let there: BTreeSet<String> = object.programs.keys().cloned().collect();
        assert_eq!(there, rows);
    }

    #[test]
    fn what_system_calls_show_is_shown_by_the_same_ones() {
        let sources: BTreeSet<_> = by_system_calls().map(|(_, source)| format!("{source:?}")).collect();
        assert_eq!(sources.len(), 1, "{sources:?}");
        assert!(sources.contains(&format!("{SYSTEM_CALLS:?}")));
    }

    #[test]
    fn what_only_looks_again_is_dispensable() {
        assert!(is_dispensable("fentry_tcp_connect") && is_dispensable("kprobe_tcp_connect"));
        assert!(!is_dispensable("inet_sock_set_state") && is_dispensable("inet_sock_set_state_3"));
    }
}
