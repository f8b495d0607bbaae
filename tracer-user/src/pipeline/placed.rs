//! Who a verdict's processes are, added to what it says.

use crate::model::{
    cgroup::{Cgroup, Known, Place, Places},
    verdict::{Evidence, Process, Verdict},
};

/// Adds to a verdict who its processes are; they acted before `at_ns` (monotonic).
pub fn place(verdict: &mut Verdict, known: &Known, at_ns: u64) {
    let Verdict { nginx, worker, killer, outer, places, moments, evidence, explanation, .. } = verdict;
    let (worker, killer) = (worker.as_ref().map(|worker| &worker.process), killer.as_ref());
    let all = [Some(&*nginx), worker, killer, outer.as_ref().map(|outer| &outer.nginx)];
    let all = all.into_iter().flatten();
    *places = known.places(all.clone().map(|process| process.pid), at_ns);
    let Places(known) = &*places;
    for Place { pid, is_kept, cgroup } in known {
        let (Some(of), Some(Process { comm, .. })) =
            (cgroup.in_words(), all.clone().find(|process| process.pid == *pid))
        else {
            continue;
        };
        evidence.push(Evidence {
            us: moments.ended.unwrap_or(0),
            source: if *is_kept { "bpf_get_current_cgroup_id" } else { "/proc/PID/cgroup" }.to_owned(),
            fact: format!("{comm} {pid} is of {of} (control group {})", cgroup.path),
        });
    }
    evidence.sort_by_key(|fact| fact.us);
    *explanation = with_units(std::mem::take(explanation), places, worker.into_iter().chain(killer));
}

/// A sentence in which processes are named, with where they are: each place once, after the process that is named first of it.
pub fn with_units<'a>(
    mut sentence: String,
    places: &Places,
    processes: impl IntoIterator<Item = &'a Process>,
) -> String {
    let mut said = Vec::new();
    for process in processes {
        let Some(of) = places.of(process.pid).and_then(Cgroup::in_words).filter(|of| !said.contains(of))
        else {
            continue;
        };
        if let Some(end) = mention(&sentence, process) {
            sentence.insert_str(end, &format!(" of {of}"));
            said.push(of);
        }
    }
    sentence
}

/// Where the first mention of a process ends: `php-fpm8.2 worker 24940`, `php-fpm's master process 24938`, `process kill 7`.
fn mention(sentence: &str, Process { pid, comm }: &Process) -> Option<usize> {
    let number = pid.to_string();
    sentence.match_indices(&number).find_map(|(begin, _)| {
        let end = begin + number.len();
        let before = sentence.get(..begin)?;
        let is_whole = !sentence.get(end..)?.starts_with(|letter: char| letter.is_alphanumeric());
        let is_it = [format!("{comm} "), format!("{comm} worker "), "master process ".to_owned()]
            .iter()
            .any(|named| before.ends_with(named.as_str()));
        (is_whole && is_it).then_some(end)
    })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn process(pid: u32, comm: &str) -> Process {
        Process { pid, comm: comm.to_owned() }
    }

    fn places(all: &[(u32, &str)]) -> Places {
        let place =
            |&(pid, path): &(u32, &str)| Place { pid, is_kept: false, cgroup: Arc::new(Cgroup::of(path)) };
        Places(all.iter().map(place).collect())
    }

    #[test]
    fn a_process_is_named_with_its_unit_where_it_is_first_mentioned() {
        let sentence = "The php-fpm8.2 worker 12 was killed by SIGTERM from php-fpm's master process 7, 12 s after 12 others.";
        let (worker, master) = (process(12, "php-fpm8.2"), process(7, "php-fpm8.2"));
        let both = [&worker, &master];
        let fpm = "/system.slice/php8.2-fpm.service";
        assert_eq!(
            with_units(sentence.to_owned(), &places(&[(12, fpm), (7, fpm)]), both),
            sentence.replace("worker 12", "worker 12 of php8.2-fpm.service")
        );
        assert_eq!(
            with_units(sentence.to_owned(), &places(&[(12, "/"), (7, "/init.scope")]), both),
            sentence.replace("process 7", "process 7 of init.scope")
        );
        assert_eq!(with_units(sentence.to_owned(), &Places::default(), both), sentence);
    }

    #[test]
    fn figures_are_no_processes() {
        let sentence = "The php worker 123 had it for 12.0 s, and 12 bytes; php 12345 and php 1s.";
        let places = places(&[(12, "/a.service"), (1, "/b.service")]);
        assert_eq!(
            with_units(sentence.to_owned(), &places, [&process(12, "php"), &process(1, "php")]),
            sentence
        );
    }
}
