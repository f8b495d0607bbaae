//! What the kernel shows of this process's own descriptors, in `/proc/self/fdinfo`.

/// The number after a field's name, which ends with its colon; zero where the kernel does not show it.
pub fn number(fdinfo: &str, field: &str) -> u64 {
    let line = fdinfo.lines().find_map(|line| line.strip_prefix(field));
    line.and_then(|number| number.trim().parse().ok()).unwrap_or(0)
}
