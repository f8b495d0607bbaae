//! Landlock: which files may be opened, whoever they belong to (since 5.13).

use std::path::{Path, PathBuf};

use landlock::{
    ABI, Access as _, AccessFs, AccessNet, CompatLevel, Compatible as _, PathBeneath, PathFd, Ruleset,
    RulesetAttr as _, RulesetCreatedAttr as _, RulesetError, RulesetStatus, make_bitflags,
};

/// What is known of files and TCP; of a kernel that knows less, that. Later versions add `ioctl` of devices, which a terminal needs.
const KNOWN: ABI = ABI::V4;

/// Whether the running kernel has it, and has it switched on.
pub(super) fn is_here() -> bool {
    let asked = Ruleset::default()
        .set_compatibility(CompatLevel::HardRequirement)
        .handle_access(AccessFs::from_all(ABI::V1))
        .and_then(Ruleset::create);
    asked.is_ok()
}

/// The calling thread may read these files, and what is in these folders, write those, make and remove files in them, and open nothing
/// else; it makes no TCP connection, and listens nowhere.
///
/// # Errors
/// Why not, in words.
pub(super) fn only(read: &[&Path], written: &[PathBuf]) -> Result<(), String> {
    let reads = make_bitflags!(AccessFs::{ReadFile | ReadDir});
    let writes = make_bitflags!(AccessFs::{ReadFile | ReadDir | WriteFile | Truncate | MakeReg | RemoveFile});
    let restrict = || -> Result<RulesetStatus, RulesetError> {
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(KNOWN))?
            .handle_access(AccessNet::from_all(KNOWN))?
            .create()?;
        let paths = read.iter().map(|path| (*path, reads));
        for (path, access) in paths.chain(written.iter().map(|path| (path.as_path(), writes))) {
            // What is not there is not opened either, and of a pipe nobody asks.
            if let Ok(file) = PathFd::new(path) {
                allow(&mut rules, PathBeneath::new(file, access));
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match restrict() {
        Ok(RulesetStatus::NotEnforced) => {
            Err("this kernel has no Landlock, or has it switched off".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => Err(format!("Landlock is refused: {error}")),
    }
}

fn allow(rules: &mut landlock::RulesetCreated, rule: PathBeneath<PathFd>) {
    // The kernel refuses a rule about what has no place in a file system, such as a pipe's end, which may be opened anyway.
    let _needless = rules.add_rule(rule);
}
