//! php-fpm: which files configure a master, and what they say of its pools.

mod pools;

use std::{
    ffi::OsStr,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use ini::{Ini, ParseOption};

use super::{Budget, Identity, Master, Refusal, Root};
pub(crate) use pools::{Pool, Pools, pools, read};

/// How a master begins its title (`fpm_env_setproctitle`, sapi/fpm/fpm/fpm_env.c), the path in brackets.
const TITLE: &[u8] = b"php-fpm: master process (";

/// Whether a file is the one that configures a master, or one that this includes.
///
/// # Errors
/// If that cannot be found out.
pub(crate) fn is_configured_by(master: &Master, file: Identity) -> Result<bool, Refusal> {
    let main = master.absolute(&main_file(master.command_line())?)?;
    is_part_of(master.root(), main, file)
}

/// Whether a file is this one or one that this includes.
fn is_part_of(root: &Root, main: PathBuf, file: Identity) -> Result<bool, Refusal> {
    let mut budget = Budget::default();
    let (text, stat) = root.read(&main, &mut budget)?;
    if Identity::from(&stat) == file {
        return Ok(true);
    }
    let text = Ini::load_from_str_opt(&text, option()).map_err(|_| Refusal::NoIni(main.clone()))?;
    let included = text.iter().flat_map(|(_, section)| section.get_all("include"));
    let (absolute, relative): (Vec<_>, Vec<_>) =
        included.map(Path::new).partition(|pattern| pattern.is_absolute());
    // It may be one of those at which nobody looks.
    let mut unseen = None;
    for pattern in absolute {
        for path in root.expand(pattern, &mut budget)? {
            match root.identity(&path) {
                Ok(identity) if identity == file => return Ok(true),
                Ok(_) => {}
                Err(refusal) if refusal.is_missing() => {}
                Err(refusal) => unseen = unseen.or(Some(refusal)),
            }
        }
    }
    match unseen {
        Some(refusal) => Err(refusal),
        // It goes from a folder that is compiled in.
        None if !relative.is_empty() => Err(Refusal::RelativeInclude(main)),
        None => Ok(false),
    }
}

/// php-fpm takes a backslash as it is.
fn option() -> ParseOption {
    ParseOption { enabled_escape: false, ..ParseOption::default() }
}

/// The file that a master was started with.
fn main_file(command_line: &[u8]) -> Result<PathBuf, Refusal> {
    let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
    if let Some(rest) = command_line.strip_prefix(TITLE) {
        let rest = rest.split(|byte| *byte == 0).next().unwrap_or(rest);
        let end = rest.iter().rposition(|byte| *byte == b')').ok_or(Refusal::CommandLine)?;
        return Ok(path(&rest[..end]));
    }
    let mut arguments = command_line.split(|byte| *byte == 0).skip(1);
    while let Some(argument) = arguments.next() {
        let value = match argument {
            b"-y" | b"--fpm-config" => arguments.next(),
            _ => argument.strip_prefix(b"--fpm-config=").or_else(|| argument.strip_prefix(b"-y")),
        };
        if let Some(value) = value.filter(|value| !value.is_empty()) {
            return Ok(path(value));
        }
    }
    Err(Refusal::NoConfigurationNamed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pools_file_is_one_that_the_main_file_includes() {
        let folder = tempfile::TempDir::new().unwrap();
        let at = |name: &str| folder.path().join(name);
        let is_part = |include: &str, name: &str| {
            std::fs::write(at("main.conf"), format!("[global]\nerror_log = /x\ninclude={include}\n"))
                .unwrap();
            let root = Root::new(std::fs::File::open(folder.path()).unwrap().into());
            let file = Identity::from(&std::fs::metadata(at(name)).unwrap());
            is_part_of(&root, "/main.conf".into(), file)
        };
        std::fs::create_dir(at("pool.d")).unwrap();
        for name in ["pool.d/www.conf", "other.conf"] {
            std::fs::write(at(name), "[www]\n").unwrap();
        }
        assert!(is_part("/pool.d/*.conf", "main.conf").unwrap());
        assert!(is_part("/pool.d/*.conf", "pool.d/www.conf").unwrap());
        assert!(!is_part("/pool.d/*.conf", "other.conf").unwrap());
        assert!(matches!(is_part("pool.d/*.conf", "other.conf"), Err(Refusal::RelativeInclude(_))));
        let permissions = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(at("pool.d"), permissions).unwrap();
        assert!(matches!(is_part("/pool.d/*.conf", "other.conf"), Err(Refusal::WritableFolder(_))));
    }

    #[test]
    fn the_main_file_is_in_the_title_or_among_the_arguments() {
        let main = |line: &[u8]| main_file(line).map(|path| path.display().to_string()).ok();
        let debian = b"php-fpm: master process (/etc/php/8.2/fpm/php-fpm.conf)\0\0\0";
        assert_eq!(main(debian).as_deref(), Some("/etc/php/8.2/fpm/php-fpm.conf"));
        assert_eq!(main(b"php-fpm8.2\0-F\0-y\0/a.conf\0").as_deref(), Some("/a.conf"));
        assert_eq!(main(b"php-fpm\0--fpm-config=/b.conf\0").as_deref(), Some("/b.conf"));
        assert_eq!(main(b"php-fpm\0-F\0"), None);
    }
}
