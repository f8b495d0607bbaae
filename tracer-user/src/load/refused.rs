//! Why the kernel refused something, in words.

/// Why the kernel refused something: its errno in words, never the verifier's log.
pub(super) fn refused(error: &(dyn std::error::Error + 'static)) -> String {
    let errno = errno(error);
    match (errno, errno.and_then(std::io::Error::raw_os_error)) {
        (_, Some(number)) => nix::errno::Errno::from_raw(number).desc().to_owned(),
        // Our own words.
        (Some(errno), None) if errno.kind() == std::io::ErrorKind::Unsupported => errno.to_string(),
        _ => error.to_string().lines().next().unwrap_or_default().to_owned(),
    }
}

/// The errno with which the kernel refused something.
fn errno<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a std::io::Error> {
    std::iter::successors(Some(error), |error| error.source()).filter_map(|error| error.downcast_ref()).last()
}
