//! Which why502 this is: what `--version` says.

/// The commit that it was built from.
pub const COMMIT: &str = env!("WHY502_COMMIT");

/// The version, the commit it was built from, what the BPF objects hash to and where they are from, and how it was built; the build script finds
/// out all but the first.
pub const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("WHY502_COMMIT"),
    "\nBPF objects: sha256 ",
    env!("WHY502_BPF_SHA256"),
    ", ",
    env!("WHY502_BPF_TOOLS"),
    "\nbuild: ",
    env!("WHY502_BUILD"),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_it_was_built_from_and_how() {
        let lines: Vec<&str> = LONG.lines().collect();
        let [version, commit, objects, build] = lines[..] else { panic!("{LONG}") };
        assert_eq!(version, env!("CARGO_PKG_VERSION"));
        // A debug build does not follow the commits.
        assert!(commit.strip_prefix("commit: ").is_some_and(|commit| !commit.is_empty()), "{commit}");
        let (hash, tools) = objects.strip_prefix("BPF objects: sha256 ").unwrap().split_once(", ").unwrap();
        assert!(hash.len() == 16 && hash.chars().all(|char| char.is_ascii_hexdigit()), "{hash}");
        assert!(tools == "prebuilt" || tools.starts_with("built by rustc "), "{tools}");
        let (target, profile) = build.strip_prefix("build: ").unwrap().split_once(", ").unwrap();
        assert!(target.contains("-linux-") && !profile.is_empty(), "{build}");
    }
}
