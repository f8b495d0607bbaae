//! What a shortage explains, and how it is said.

use super::{GroupPressure, Pressure, Quota, Readings, Stall};
use crate::{
    ledger::Exchange,
    model::{
        cause::Cause,
        cgroup::Cgroup,
        doing::Target,
        verdict::{Delayed, Evidence, Verdict},
        words::{count, span},
    },
    sample::Activity,
};

/// Adds to a verdict on a worker that was slow, or on a queue that nobody served, what was short meanwhile.
///
/// The figures are evidence in any case. A sentence says of them only what explains the verdict:
/// - A CPU quota that held the worker's control group back for at least half of the time, and in at least half of its periods, while the
///   worker was at work in at least half of the looks at it (it ran, or waited for a CPU or a disk).
/// - All tasks of the worker's control group that had work stood still at once for at least half of the time (PSI's `full`), with the same
///   condition on the worker.
/// - All tasks of the host did, for want of a disk or of memory: nobody on this host could go on then, whoever they are.
///
/// That some tasks of a host wait for a CPU (PSI's `some`) explains nothing of a certain one, and is evidence only.
pub fn add(verdict: &mut Verdict, exchange: &Exchange, readings: &Readings) {
    let is_of_use = matches!(
        verdict.cause,
        Cause::TimeoutSlowWorker | Cause::TimeoutNeverAccepted | Cause::TimeoutNobodyAccepts
    );
    if !is_of_use {
        return;
    }
    let nginx = &exchange.nginx;
    let worker = verdict.worker.as_ref().map(|worker| worker.process.pid);
    let began_ns = nginx.first_sent_ns.max(nginx.connect_ns);
    let Some(pressure) = readings.between(began_ns, nginx.ended_ns, worker) else { return };
    verdict.evidence.extend(facts(&pressure, verdict.moments.ended.unwrap_or(0)));
    verdict.evidence.sort_by_key(|fact| fact.us);
    let is_at_work = exchange.activity.as_ref().is_some_and(is_at_work);
    let of_group = pressure.group.as_ref().filter(|_| is_at_work).and_then(sentence_of_group);
    if let Some(sentence) = of_group.or_else(|| sentence_of_host(&pressure)) {
        verdict.explanation = format!("{} {sentence}", verdict.explanation);
    }
    verdict.pressure = Some(pressure);
}

/// The same of an exchange that succeeded late, while nginx connected: only what the whole host lacked can explain that.
pub fn add_to_delayed(delayed: &mut Delayed, exchange: &Exchange, readings: &Readings) {
    let nginx = &exchange.nginx;
    let Some(pressure) = readings.between(nginx.connect_ns, nginx.established_ns, None) else { return };
    if let Some(sentence) = sentence_of_host(&pressure) {
        delayed.explanation = format!("{} {sentence}", delayed.explanation);
    }
    delayed.pressure = Some(pressure);
}

/// Whether the worker ran, or waited for nothing but the machine, in at least half of the looks at it.
fn is_at_work(activity: &Activity) -> bool {
    let waits = activity.waits();
    let by_machine = waits.iter().filter(|(target, _)| matches!(target, Target::Cpu | Target::Disk(_)));
    let at_work = activity.running() + by_machine.map(|(_, samples)| samples).sum::<u32>();
    at_work > 0 && at_work >= activity.samples().div_ceil(2)
}

fn is_half(part_us: u64, of_us: u64) -> bool {
    part_us > 0 && part_us >= of_us / 2
}

/// `4.10 s of these 4.60 s`.
fn share(part_us: u64, of_us: u64) -> String {
    format!("for {} of the {} that were measured", span(part_us * 1_000), span(of_us * 1_000))
}

/// What a control group is called in a sentence.
fn called(path: &str) -> String {
    Cgroup::of(path).in_words().unwrap_or_else(|| format!("its control group {path}"))
}

fn sentence_of_group(group: &GroupPressure) -> Option<String> {
    let GroupPressure { us, path, stalls, quota } = group;
    if let Some(Quota { path, throttled_us, throttled, periods }) = quota
        && is_half(*throttled_us, *us)
        && *throttled > 0
        && *throttled >= periods / 2
    {
        let who = called(path);
        // The kernel sums up what it held back on each CPU.
        return Some(if throttled_us <= us {
            format!("Its CPU quota held {who} back {}.", share(*throttled_us, *us))
        } else {
            format!(
                "Its CPU quota held {who} back in {throttled} of {} within the {} that were measured.",
                count(*periods, "period"),
                span(us * 1_000)
            )
        });
    }
    let all = |stall: Stall, of: &str| {
        let full = stall.full.filter(|full| is_half(*full, *us))?;
        Some(format!("All that had work in {} waited for {of} {}.", called(path), share(full, *us)))
    };
    all(stalls.memory, "memory").or_else(|| all(stalls.io, "disks")).or_else(|| all(stalls.cpu, "a CPU"))
}

fn sentence_of_host(pressure: &Pressure) -> Option<String> {
    let Pressure { us, host, running: _, cpus: _, group: _ } = pressure;
    let all = |stall: Stall, of: &str| {
        let full = stall.full.filter(|full| is_half(*full, *us))?;
        Some(format!("All that had work on this host waited for {of} {}.", share(full, *us)))
    };
    all(host.memory, "memory").or_else(|| all(host.io, "disks"))
}

/// The figures, as facts.
fn facts(pressure: &Pressure, ended_us: i64) -> Vec<Evidence> {
    let Pressure { us, host, running, cpus, group } = pressure;
    let fact = |source: &str, fact: String| Evidence { us: ended_us, source: source.to_owned(), fact };
    let waited = |who: &str, us: u64, stalls: &super::Stalls| {
        let figures: Vec<_> = [("a CPU", stalls.cpu), ("disks", stalls.io), ("memory", stalls.memory)]
            .into_iter()
            .filter_map(|(what, stall)| Some(format!("{} for {what}", span(stall.some? * 1_000))))
            .collect();
        let within = span(us * 1_000);
        (!figures.is_empty()).then(|| format!("in {within} some task of {who} waited {}", figures.join(", ")))
    };
    let runnable = running.zip(*cpus).map(|(running, cpus)| {
        let tasks = count(u64::from(running), "task");
        format!("at most {tasks} ran or wanted to at a time, on {}", count(u64::from(cpus), "CPU"))
    });
    let mut facts = Vec::new();
    facts.extend(waited("this host", *us, host).map(|text| fact("/proc/pressure", text)));
    facts.extend(runnable.map(|text| fact("/proc/loadavg", text)));
    if let Some(GroupPressure { us, path, stalls, quota }) = group {
        facts.extend(waited(path, *us, stalls).map(|text| fact("cgroup pressure", text)));
        facts.extend(quota.as_ref().map(|Quota { path, throttled_us, throttled, periods }| {
            let text = format!(
                "in {} the CPU quota of {path} held tasks back in {throttled} of {}, {} on all CPUs together",
                span(us * 1_000),
                count(*periods, "period"),
                span(throttled_us * 1_000)
            );
            fact("cpu.stat", text)
        }));
    }
    facts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        model::{
            doing::{Doing, Peer},
            pressure::Stalls,
        },
        sample::Found,
    };

    fn throttled(throttled_us: u64, throttled: u64, periods: u64) -> GroupPressure {
        let path = "/system.slice/php8.2-fpm.service".to_owned();
        let quota = Some(Quota { path: path.clone(), throttled_us, throttled, periods });
        GroupPressure { us: 5_000_000, path, stalls: Stalls::default(), quota }
    }

    #[test]
    fn a_quota_explains_from_half_of_the_time_on() {
        assert_eq!(
            sentence_of_group(&throttled(4_100_000, 46, 50)).unwrap(),
            "Its CPU quota held php8.2-fpm.service back for 4.10 s of the 5.00 s that were measured."
        );
        // Two CPUs.
        assert_eq!(
            sentence_of_group(&throttled(8_000_000, 46, 50)).unwrap(),
            "Its CPU quota held php8.2-fpm.service back in 46 of 50 periods within the 5.00 s that were measured."
        );
        for (throttled_us, times, periods) in [(2_400_000, 46, 50), (4_100_000, 10, 50), (0, 0, 50)] {
            assert_eq!(sentence_of_group(&throttled(throttled_us, times, periods)), None);
        }
    }

    #[test]
    fn only_a_stall_of_all_explains() {
        let stall = |some, full| Stall { some: Some(some), full: Some(full) };
        let of = |cpu, io, memory| Pressure {
            us: 4_000_000,
            host: Stalls { cpu, io, memory },
            ..Pressure::default()
        };
        let none = stall(4_000_000, 0);
        assert_eq!(sentence_of_host(&of(stall(4_000_000, 4_000_000), none, none)), None);
        assert_eq!(
            sentence_of_host(&of(none, stall(4_000_000, 3_000_000), none)).unwrap(),
            "All that had work on this host waited for disks for 3.00 s of the 4.00 s that were measured."
        );
        assert_eq!(sentence_of_host(&of(none, none, stall(4_000_000, 1_900_000))), None);
        assert_eq!(sentence_of_host(&Pressure { us: 4_000_000, ..Pressure::default() }), None);
    }

    #[test]
    fn who_waits_for_somebody_else_is_not_held_back_by_the_machine() {
        let found = |all: &[Doing]| {
            let mut found = all.iter().cloned().map(Found::from);
            let mut activity = Activity::new(1, &found.next().unwrap(), false);
            found.for_each(|found| activity.add(2, &found, false));
            activity
        };
        let peer = Doing::Waiting(Target::Peer(Peer::Tcp("10.0.0.5:3306".parse().unwrap())));
        let cpu = Doing::Waiting(Target::Cpu);
        assert!(is_at_work(&found(&[Doing::Running])));
        assert!(is_at_work(&found(&[cpu.clone(), Doing::Running, peer.clone(), peer.clone()])));
        assert!(!is_at_work(&found(&[peer.clone(), cpu, peer.clone()])));
        assert!(!is_at_work(&found(&[peer])));
    }
}
