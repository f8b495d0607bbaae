//! The kinds of hooks: which are of use here, and why one is not.

use std::{collections::HashSet, path::Path};

use crate::{
    load::{btf, functions, given, types},
    model::hook_kind::HookKind,
};

/// Exists where the kernel was built with kprobes (`CONFIG_KPROBE_EVENTS`).
const KPROBES: &str = "/sys/bus/event_source/devices/kprobe";

/// The kinds of hooks of which some facts' sources are, and that are of no use here: that this kernel refuses as such, or that `only` leaves out;
/// empty allows all. Tracepoints serve what is no fact, too.
pub(in crate::load) fn useless(only: &[HookKind], kernel: &btf::Kernel) -> HashSet<HookKind> {
    let mut useless = HashSet::new();
    if !is_allowed(only, HookKind::Function) || !given::are_own() || functions::are_refused(kernel) {
        useless.insert(HookKind::Function);
    }
    if !is_allowed(only, HookKind::Kprobe) || !Path::new(KPROBES).exists() {
        useless.insert(HookKind::Kprobe);
    }
    useless
}

pub(super) fn is_allowed(only: &[HookKind], kind: HookKind) -> bool {
    only.is_empty() || only.contains(&kind)
}

/// Why no hook of a kind is to be had.
pub(super) fn refusal(kind: HookKind) -> String {
    match kind {
        HookKind::Function if !given::are_own() => format!("fentry {}", types::NEED_OWN),
        HookKind::Function => "this kernel refuses fentry".to_owned(),
        _ => format!("this kernel has no {}", kind.of_source()),
    }
}
