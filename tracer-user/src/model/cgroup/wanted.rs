//! Which verdicts are emitted, by the control groups of the processes in them: `--cgroup`, `--container`, `--unit`.

use super::{Cgroup, known::Places};

/// Whose verdicts are told; all of them where nothing was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct Wanted {
    /// Tell only failures in which nginx, the worker or the killer is in this control group or below it (/system.slice/nginx.service), or in one
    /// of these if repeated. Without it: all.
    #[arg(long = "cgroup", value_name = "PATH", value_parser = path)]
    pub cgroups: Vec<String>,

    /// Tell only failures in which nginx, the worker or the killer is in this container (its id, or at least eight letters of its beginning), or
    /// in one of these if repeated. Without it: all.
    #[arg(long = "container", value_name = "ID", value_parser = container)]
    pub containers: Vec<String>,

    /// Tell only failures in which nginx, the worker or the killer is of this systemd unit (php8.2-fpm or php8.2-fpm.service), or of one of
    /// these if repeated. Without it: all.
    #[arg(long = "unit", value_name = "NAME", value_parser = unit)]
    pub units: Vec<String>,
}

impl Wanted {
    /// Whether only some are.
    pub fn is_narrowed(&self) -> bool {
        let Self { cgroups, containers, units } = self;
        !(cgroups.is_empty() && containers.is_empty() && units.is_empty())
    }

    /// Whether any of these processes is in what was asked for, or none of their control groups is known: nothing is left out by a guess.
    pub fn has(&self, places: &Places) -> bool {
        !self.is_narrowed() || places.0.is_empty() || places.0.iter().any(|place| self.is_in(&place.cgroup))
    }

    fn is_in(&self, cgroup: &Cgroup) -> bool {
        let Self { cgroups, containers, units } = self;
        let is_below = |wanted: &String| {
            cgroup
                .path
                .strip_prefix(wanted.as_str())
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/') || wanted.ends_with('/'))
        };
        let container = cgroup.container.as_deref();
        cgroups.iter().any(is_below)
            || containers.iter().any(|wanted| container.is_some_and(|id| id.starts_with(wanted.as_str())))
            || units.iter().any(|wanted| cgroup.unit.as_ref() == Some(wanted))
    }
}

fn path(word: &str) -> Result<String, &'static str> {
    match word.trim_end_matches('/') {
        _ if !word.starts_with('/') => {
            Err("a control group's path begins with /, as in /proc/PID/cgroup and not with /sys/fs/cgroup")
        }
        "" => Ok("/".to_owned()),
        path => Ok(path.to_owned()),
    }
}

fn container(word: &str) -> Result<String, &'static str> {
    if word.len() < 8 {
        return Err(
            "a container is named by eight letters of its id or more; `docker ps` and `crictl ps` show it",
        );
    }
    Ok(word.to_owned())
}

fn unit(word: &str) -> Result<String, &'static str> {
    match word {
        "" => Err("a unit has a name"),
        _ if word.ends_with(".service") || word.ends_with(".scope") => Ok(word.to_owned()),
        _ => Ok(format!("{word}.service")),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::cgroup::Place;

    fn places(path: &str) -> Places {
        Places(vec![Place { pid: 1, is_kept: false, cgroup: Arc::new(Cgroup::of(path)) }])
    }

    #[test]
    fn paths_units_and_containers_are_asked_for() {
        let id = "3f1c2b7a9d10e4b85c6f70a1928374655647382910afbecd1122334455667788";
        let fpm = places("/system.slice/php8.2-fpm.service");
        let docker = places(&format!("/docker/{id}"));
        let by_path = |word| Wanted { cgroups: vec![path(word).unwrap()], ..Wanted::default() };
        for (word, is_in) in [
            ("/", true),
            ("/system.slice", true),
            ("/system.slice/", true),
            ("/system.slice/php8.2-fpm.service", true),
            ("/system", false),
            ("/docker", false),
        ] {
            assert_eq!(by_path(word).has(&fpm), is_in, "{word}");
        }
        let by_unit = Wanted { units: vec![unit("php8.2-fpm").unwrap()], ..Wanted::default() };
        assert!(by_unit.has(&fpm) && !by_unit.has(&docker) && by_unit.has(&Places::default()));
        let by_container =
            Wanted { containers: vec![container("3f1c2b7a9d10").unwrap()], ..Wanted::default() };
        assert!(by_container.has(&docker) && !by_container.has(&fpm));
        assert!(Wanted::default().has(&Places::default()));
        assert!(path("sys").is_err() && container("abc").is_err() && unit("").is_err());
    }
}
