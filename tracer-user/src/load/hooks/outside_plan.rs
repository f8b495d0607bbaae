//! What is attached outside the plan: standby instances and the hooks on system calls, once they are needed, and what sees nginx begin.

use aya::Ebpf;

use super::{
    attacher::{Attacher, is_loaded},
    standby::{UNIX_ENDS, having_standby, standby_of},
};
use crate::{
    load::{refused::refused, types::Types},
    model::{
        facts::{Fact, SYSTEM_CALLS, Source},
        failure::Failure,
    },
};

/// Attaches the standby instances of the programs that are attached, in their order, if they are not attached already.
///
/// # Errors
/// If the kernel refuses one.
pub(in crate::load) fn attach_standby(object: &mut Ebpf) -> Result<(), Failure> {
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

/// Sees processes of ours begin.
///
/// # Errors
/// Why the kernel refuses.
pub(in crate::load) fn attach_starts(object: &mut Ebpf) -> Result<(), String> {
    let started = "sched_process_exec";
    Attacher::new(object, &mut Types::default())
        .attach_one(started, started)
        .map_err(|error| format!("raw_tp/{started}: {}", refused(&error)))
}

/// The facts that system calls show, each with that source: it is the same one.
pub(in crate::load) fn by_system_calls() -> impl Iterator<Item = (Fact, &'static Source)> {
    Fact::ALL.iter().filter_map(|fact| Some((*fact, fact.row().system_calls()?)))
}

/// Attaches the hooks on system calls.
///
/// # Errors
/// If the kernel refuses one, or its tracefs cannot be had.
pub(in crate::load) fn attach_system_calls(object: &mut Ebpf, with_standby: bool) -> Result<String, Failure> {
    let mut types = Types::default();
    let mut attacher = Attacher::new(object, &mut types).with_standby(with_standby);
    let name = attacher.attach(&SYSTEM_CALLS).map_err(Failure::CannotTrace)?;
    if let Err(error) = attacher.attach_one(UNIX_ENDS.0, UNIX_ENDS.1) {
        crate::notice!("an nginx that dies is not seen to end its unix exchanges: {}", refused(&error));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn what_system_calls_show_is_shown_by_the_same_ones() {
        let sources: BTreeSet<_> = by_system_calls().map(|(_, source)| format!("{source:?}")).collect();
        assert_eq!(sources.len(), 1, "{sources:?}");
        assert!(sources.contains(&format!("{SYSTEM_CALLS:?}")));
    }
}
