//! Control groups: the container, pod or systemd unit that a process is of.
//!
//! A control group's path is the word of whoever may make folders there. Only names of known forms are taken from it ([`names`]), which
//! hold no letters that a terminal would act on; nothing at the path is opened by it.

mod known;
mod names;
mod wanted;

use std::sync::Arc;

pub use known::{Known, Place, Places};
pub use wanted::Wanted;

/// Letters of a control group's path that are kept: systemd's and the container runtimes' have some 200.
pub const PATH: usize = 1_024;

/// What is known of a control group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Cgroup {
    /// Its path, as /proc/PID/cgroup has it; cut at [`PATH`].
    pub path: String,
    /// The systemd unit, a service or a scope: `php8.2-fpm.service`. None where it is only what a runtime made for a container.
    pub unit: Option<String>,
    /// The container's id, as its runtime made it.
    pub container: Option<String>,
    /// The Kubernetes pod's uid.
    pub pod: Option<String>,
}

impl Cgroup {
    /// Of a path.
    pub fn of(path: &str) -> Self {
        let path = path.strip_suffix(" (deleted)").unwrap_or(path);
        let names::Names { unit, container, pod } = names::of(path);
        let path = path.chars().take(PATH).collect();
        Self { path, unit, container, pod }
    }

    /// Whether it has a name that a person knows it by.
    pub fn is_named(&self) -> bool {
        self.unit.is_some() || self.container.is_some() || self.pod.is_some()
    }

    /// As it is called in a sentence, after "of": `php8.2-fpm.service`, `container 3f1c2b7a9d10`; none where it has no name.
    pub fn in_words(&self) -> Option<String> {
        /// As `docker ps` shows it.
        const SHORT: usize = 12;
        match (&self.container, &self.unit, &self.pod) {
            (Some(container), _, pod) => {
                let short = container.get(..SHORT).unwrap_or(container);
                let pod = pod.as_ref().map_or_else(String::new, |pod| format!(" of pod {pod}"));
                Some(format!("container {short}{pod}"))
            }
            (None, Some(unit), _) => Some(unit.clone()),
            (None, None, Some(pod)) => Some(format!("pod {pod}")),
            (None, None, None) => None,
        }
    }
}

/// Whether a text may be a unit's, a container's or a pod's name: of the letters that these have, and no longer than any.
pub fn is_name(text: &str) -> bool {
    text.len() <= names::UNIT && names::is_plain(text)
}

/// A process's control group, as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// The process.
    pub pid: u32,
    /// When it began (ns, monotonic): with its pid the name of the process.
    pub began_ns: u64,
    /// Whether the kernel side had kept it, for the process had ended; else /proc has it.
    pub is_kept: bool,
    /// Its control group.
    pub cgroup: Arc<Cgroup>,
}
