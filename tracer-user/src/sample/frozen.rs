//! Whether a process's cgroup is frozen: `docker pause`, a freezer of systemd's, a suspended job. Such a process looks as if it waited for what it
//! waited for when it was frozen.

use std::{fs, path::Path};

use procfs::process::Process;

/// Where cgroups are mounted: of the first version the freezer's own, of the second the only one.
const FREEZER: &str = "/sys/fs/cgroup/freezer";
const UNIFIED: [&str; 2] = ["/sys/fs/cgroup", "/sys/fs/cgroup/unified"];

/// Whether it is, as far as its cgroup can be looked at from here.
pub(super) fn is_frozen(pid: i32) -> bool {
    // A process that has gone is in no cgroup, and where none is mounted none is frozen.
    let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    groups.lines().filter_map(|line| line.split_once(':')?.1.split_once(':')).any(|(controllers, path)| {
        // Outside of the namespace that the paths are seen from.
        let is_outside = path.split('/').any(|part| part == "..");
        let says = |root: &str, file: &str, line: &str| {
            let file = Path::new(root).join(path.trim_start_matches('/')).join(file);
            fs::read_to_string(file).is_ok_and(|text| text.lines().any(|one| one == line))
        };
        !is_outside
            && if controllers.split(',').any(|controller| controller == "freezer") {
                says(FREEZER, "freezer.state", "FROZEN")
            } else {
                controllers.is_empty() && UNIFIED.iter().any(|root| says(root, "cgroup.events", "frozen 1"))
            }
    })
}

/// Whether a process is stopped, by a signal or a debugger, or frozen with its cgroup.
pub(crate) fn stands_still(pid: i32) -> bool {
    let stat = Process::new(pid).and_then(|process| process.stat());
    stat.is_ok_and(|stat| matches!(stat.state, 'T' | 't')) || is_frozen(pid)
}
