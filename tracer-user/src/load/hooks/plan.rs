//! The hook plan: each fact has an ordered list of sources, and the first that loads and attaches wins.

use std::collections::HashSet;

use aya::Ebpf;
use wire::{Attached, Layout, MISSING};

use super::{attacher::Attacher, kinds::is_allowed};
use crate::{
    load::types::Types,
    model::{
        facts::{Fact, Needs, Source, Sources},
        failure::Failure,
        hook_kind::HookKind,
    },
};

/// A fact, whether the program can do without, and its sources: the best first.
pub(in crate::load) struct Plan {
    pub(in crate::load) fact: Fact,
    pub(in crate::load) is_required: bool,
    pub(in crate::load) sources: Vec<Source>,
}

/// The plan for a kernel of this layout: the rows of the table, but for what is attached elsewhere or later.
pub(super) fn plan(layout: &Layout) -> Vec<Plan> {
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
pub(in crate::load) fn attach(
    object: &mut Ebpf,
    layout: &Layout,
    only: &[HookKind],
    useless: HashSet<HookKind>,
    with_standby: bool,
    types: &mut Types,
) -> Result<HookPlan, Failure> {
    let attacher = Attacher::without(useless, object, types).with_standby(with_standby);
    follow(attacher, plan(layout), only)
}

/// Attaches the best source of each fact of a plan. An optional one that the kernel refuses is noted and left out. `only` restricts
/// the kinds of hooks; empty allows all.
///
/// # Errors
/// Names the first required fact that has no source.
pub(in crate::load) fn follow(
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
pub(in crate::load) fn attached(plan: &HookPlan, layout: &Layout) -> Attached {
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
}
