//! The hooks: which are planned, which programs those are, and what attaches them.

mod attacher;
mod kinds;
mod outside_plan;
mod plan;
mod programs;
mod standby;

pub(super) use attacher::Attacher;
pub(super) use kinds::useless;
pub(super) use outside_plan::{attach_standby, attach_starts, attach_system_calls, by_system_calls};
pub use plan::HookPlan;
pub(super) use plan::{Plan, attach, attached, follow};
pub(super) use standby::{is_dispensable, program_of};

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use wire::Layout;

    use super::{
        by_system_calls,
        plan::plan,
        programs::programs,
        standby::{BODY, FIRST, STANDBY, body_of, having_standby},
    };
    use crate::load::object::Object;

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
        let elf = Object::LIVE.elf().unwrap();
        let object = aya_obj::Object::parse(&elf).unwrap();
        let there: BTreeSet<String> = object.programs.keys().cloned().collect();
        assert_eq!(there, rows);
    }
}
