//! The system's packages, by apt, without starting a service of theirs.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    arch::Arch,
    step::{Outcome, Steps},
};

/// The programs and files that the rig uses, and the package that brings each (by its name in Debian and Ubuntu). A `*` stands
/// for a version.
const NEEDS: &[(&str, &str)] = &[
    ("nginx", "nginx"),
    ("php-fpm*", "php-fpm"),
    ("ip", "iproute2"),
    ("nft", "nftables"),
    ("sysctl", "procps"),
    ("openssl", "openssl"),
    ("setpriv", "util-linux"),
    ("/usr/lib/postgresql/*/bin/postgres", "postgresql"),
    ("/usr/lib/php/*/pgsql.so", "php-pgsql"),
    ("zstd", "zstd"),
    ("strace", "strace"),
    ("curl", "curl"),
    ("tmux", "tmux"),
    ("/usr/lib/nginx/modules/ngx_stream_module.so", "libnginx-mod-stream"),
    ("/usr/lib/nginx/modules/ngx_http_lua_module.so", "libnginx-mod-http-lua"),
];

/// What of [`NEEDS`] the demo runs.
const DEMO: [&str; 4] = ["nginx", "php-fpm*", "ip", "sysctl"];
/// What of [`READERS`] it runs with `--serve`.
const DEMO_SERVE: [&str; 1] = ["prometheus"];

/// What reads evidence, reports and metrics in the tests or serves in them, and is too large to be taken into an emulated machine.
const READERS: &[(&str, &str)] = &[
    ("chromium*", "chromium"),
    ("pip3", "python3-pip"),
    ("jq", "jq"),
    ("node", "nodejs"),
    ("prometheus", "prometheus"),
    ("kubectl", "kubernetes-client"),
    ("rsyslogd", "rsyslog"),
    ("/lib/systemd/systemd-journald", "systemd"),
];

/// The application servers that the tests run behind nginx, too large for an emulated machine as well.
const SERVERS: &[(&str, &str)] = &[
    ("uwsgi_python3", "uwsgi-plugin-python3"),
    ("gunicorn", "gunicorn"),
    ("puma", "puma"),
    ("node", "nodejs"),
    ("python3", "python3"),
];

/// What `cargo xtask bench` loads with, and what it compares with.
const BENCH: &[(&str, &str)] = &[
    ("wrk", "wrk"),
    ("redis-server", "redis-server"),
    ("redis-benchmark", "redis-tools"),
    ("tcpdump", "tcpdump"),
    ("bpftrace", "bpftrace"),
    ("unshare", "util-linux"),
];

/// What the static binary is built with.
const STATIC: &[(&str, &str)] = &[("musl-gcc", "musl-tools")];

/// What that of arm64's is built with: the C compiler and the headers that it wants.
const STATIC_ARM64: &[(&str, &str)] = &[
    ("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu"),
    ("/usr/aarch64-linux-gnu/include/stdlib.h", "libc6-dev-arm64-cross"),
];

/// What `cargo xtask dist` packs with, and what its tests read packages with.
const DIST: &[(&str, &str)] =
    &[("dpkg-deb", "dpkg"), ("lintian", "lintian"), ("rpmbuild", "rpm"), ("cpio", "cpio"), ("man", "man-db")];

/// No hash is pinned for a package of the system's: apt takes only what its archive's key has signed, whatever this machine's own
/// settings would let pass.
const SIGNED_ONLY: [&str; 6] = [
    "-o",
    "APT::Get::AllowUnauthenticated=false",
    "-o",
    "Acquire::AllowInsecureRepositories=false",
    "-o",
    "Acquire::AllowDowngradeToInsecureRepositories=false",
];

/// How long a side step may take, which the set-up can do without.
const LIMIT: Duration = Duration::from_secs(300);

/// Asked by Debian's maintainer scripts before they start, stop or restart a service.
const POLICY: &str = "/usr/sbin/policy-rc.d";
/// Where the machine's own policy waits meanwhile.
const POLICY_ASIDE: &str = "/usr/sbin/policy-rc.d.before-why502";
/// Ours: nothing is started, and nothing that runs is touched.
const POLICY_TEXT: &str =
    "#!/bin/sh\n# Of why502's `cargo xtask setup`, only while it installs packages.\nexit 101\n";
/// The services that start at boot. Debian's packages keep these links also where there is no systemd.
const AT_BOOT: &str = "/etc/systemd/system/multi-user.target.wants";

/// The programs and files that the rig uses, by what [`find`] finds them by.
pub(crate) fn needs() -> impl Iterator<Item = &'static str> {
    NEEDS.iter().map(|(program, _)| *program)
}

/// The packages whose programs are not there.
pub(crate) fn missing() -> Vec<&'static str> {
    absent(NEEDS.iter().chain(READERS).chain(SERVERS))
}

/// Those that the demo runs and that are not there.
pub(crate) fn missing_for_demo(serve: bool) -> Vec<&'static str> {
    let wanted = |program: &str| DEMO.contains(&program) || serve && DEMO_SERVE.contains(&program);
    absent(NEEDS.iter().chain(READERS).filter(|(program, _)| wanted(program)))
}

/// Those that only the bench wants and that are not there.
pub(crate) fn missing_for_bench() -> Vec<&'static str> {
    absent(BENCH.iter())
}

/// Those that the static binary for an architecture is built with and that are not there.
pub(crate) fn missing_for_static(arch: Arch) -> Vec<&'static str> {
    match arch {
        Arch::X86_64 => absent(STATIC.iter()),
        Arch::Arm64 => absent(STATIC_ARM64.iter()),
    }
}

/// Those that only dist wants and that are not there.
pub(crate) fn missing_for_dist() -> Vec<&'static str> {
    absent(STATIC.iter().chain(STATIC_ARM64).chain(DIST))
}

fn absent<'a>(needs: impl Iterator<Item = &'a (&'static str, &'static str)>) -> Vec<&'static str> {
    needs.filter(|(program, _)| find(program).is_none()).map(|(_, package)| *package).collect()
}

/// Where a program is, also in the folders that only root's `PATH` has; or a file, by its whole path.
pub(crate) fn find(name: &str) -> Option<PathBuf> {
    if let Some((before, after)) = name.split_once("/*/") {
        let versions = fs::read_dir(before).into_iter().flatten().flatten();
        return versions.map(|version| version.path().join(after)).find(|file| file.is_file());
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    match name.strip_suffix('*') {
        None => folders.map(|folder| folder.join(name)).find(|file| file.is_file()),
        Some(start) => {
            folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten().find_map(|entry| {
                entry.file_name().to_str().is_some_and(|name| name.starts_with(start)).then(|| entry.path())
            })
        }
    }
}

/// Whether this system installs packages with apt.
pub(crate) fn apt() -> bool {
    find("apt-get").is_some()
}

/// The command that renews apt's lists.
pub(crate) fn update_command() -> Command {
    apt_get(["update"])
}

/// The command that installs packages, which are as their archive has signed them. It fails rather than remove one: the user's own
/// compiler, say.
pub(crate) fn install_command(packages: &[&str]) -> Command {
    let mut command = apt_get(["install", "--yes", "--no-install-recommends", "--no-remove"]);
    command.args(packages);
    command
}

fn apt_get<const N: usize>(words: [&str; N]) -> Command {
    let mut command = Command::new("apt-get");
    command.args(["-o", "DPkg::Lock::Timeout=120"]).args(SIGNED_ONLY).args(words);
    command
}

/// Installs packages. Nothing of theirs is started, neither now nor at the next boot.
pub(crate) fn install(steps: &mut Steps, packages: &[&str]) -> Result<()> {
    // Needrestart, where it is, would restart the user's services; questions would wait for an answer for ever.
    let quiet = [("DEBIAN_FRONTEND", "noninteractive"), ("NEEDRESTART_SUSPEND", "1")];

    // One unreachable source of many makes this fail, though it may not matter: the installation shows.
    if let Outcome::Failed(how) =
        steps.attempt("renewing apt's lists", update_command().envs(quiet), LIMIT)?
    {
        eprintln!("step: renewing apt's lists: {how}: going on with the lists that are there");
    }
    let names = packages.join(", ");
    let mut download = install_command(packages);
    steps.run(&format!("downloading {names}"), download.arg("--download-only").envs(quiet))?;
    let _guard = NoStart::put()?;
    let at_boot = started_at_boot();
    let installed = steps.run_through(&format!("installing {names}"), install_command(packages).envs(quiet));
    // Also after an interruption: so not as steps, which would end at once.
    for name in started_at_boot().difference(&at_boot) {
        match disable_command(name).output() {
            Ok(output) if output.status.success() => eprintln!("step: {name} will not start at boot"),
            _ => eprintln!("step: {name} would start at boot: disable it by hand"),
        }
    }
    installed
}

fn started_at_boot() -> BTreeSet<String> {
    let links = fs::read_dir(AT_BOOT).into_iter().flatten().flatten();
    links.filter_map(|link| Some(link.file_name().to_str()?.strip_suffix(".service")?.to_owned())).collect()
}

/// Debian's own command does it for systemd and for init scripts, but only for what still has an init script.
fn disable_command(service: &str) -> Command {
    let script = Path::new("/etc/init.d").join(service).exists();
    let mut command = Command::new(if script { "update-rc.d" } else { "systemctl" });
    command.args(if script { [service, "disable"] } else { ["disable", service] });
    command
}

/// While it lives, no package starts, stops or restarts a service.
struct NoStart;

/// Takes away what an earlier run left, if it was killed before it could.
pub(crate) fn clear_leftovers() -> Result<()> {
    if fs::read_to_string(POLICY).is_ok_and(|text| text == POLICY_TEXT) { remove() } else { Ok(()) }
}

impl NoStart {
    fn put() -> Result<Self> {
        clear_leftovers()?;
        if Path::new(POLICY).symlink_metadata().is_ok() {
            fs::rename(POLICY, POLICY_ASIDE).with_context(|| format!("{POLICY} cannot be moved aside"))?;
        }
        let guard = Self;
        fs::write(POLICY, POLICY_TEXT).with_context(|| format!("{POLICY} cannot be written"))?;
        let all = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(POLICY, all).with_context(|| format!("{POLICY} cannot be made executable"))?;
        Ok(guard)
    }
}

impl Drop for NoStart {
    fn drop(&mut self) {
        if let Err(error) = remove() {
            eprintln!("{error:#}: remove it by hand");
        }
    }
}

/// Takes our policy away, and puts back the machine's own if it had one.
fn remove() -> Result<()> {
    if Path::new(POLICY_ASIDE).symlink_metadata().is_ok() {
        fs::rename(POLICY_ASIDE, POLICY).with_context(|| format!("{POLICY_ASIDE} cannot be put back"))
    } else {
        fs::remove_file(POLICY).with_context(|| format!("{POLICY} cannot be removed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_found_by_its_name_and_by_its_beginning() {
        assert!(find("sh").is_some());
        assert!(find("s*").is_some());
        assert!(find("why502-no-such-program").is_none());
        assert!(find("why502-no-such-program*").is_none());
        assert!(find("/proc/*/cmdline").is_some());
        assert!(find("/proc/*/why502-no-such-file").is_none());
    }

    #[test]
    fn what_the_demo_runs_is_what_is_installed_for_it() {
        let known = |needs: &[(&str, &str)], program: &str| needs.iter().any(|(name, _)| *name == program);
        assert!(DEMO.iter().all(|program| known(NEEDS, program)));
        assert!(DEMO_SERVE.iter().all(|program| known(READERS, program)));
    }

    #[test]
    fn packages_are_never_removed() {
        let command = crate::step::shown(&install_command(&["nginx"]));
        assert!(command.contains("--no-remove"), "{command}");
        assert!(command.ends_with(" nginx"), "{command}");
    }
}
