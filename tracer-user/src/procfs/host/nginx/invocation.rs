//! How an nginx master was started: `nginx -p PREFIX -c FILE -g DIRECTIVES`.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt as _, path::PathBuf};

use crate::procfs::host::Refusal;

/// What a master calls itself, before its arguments joined by blanks (`ngx_master_process_cycle`, src/os/unix/ngx_process_cycle.c).
const TITLE: &[u8] = b"nginx: master process ";

/// What each process of nginx's that has a title calls itself.
const TITLES: &str = "nginx: ";

/// Whether this is the title of one of a master's children: a worker, or a process that looks after a cache.
pub(super) fn is_childs(title: &str) -> bool {
    title.starts_with(TITLES) && !title.as_bytes().starts_with(TITLE)
}

/// The options that have a value, and those that have none (`ngx_get_options`, src/core/nginx.c).
const VALUED: &[u8] = b"cpges";
const BARE: &[u8] = b"?hvVtTq";

/// What the arguments say.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Invocation {
    /// `-c`: the configuration file.
    pub file: Option<PathBuf>,
    /// `-p`: from where relative paths go.
    pub prefix: Option<PathBuf>,
    /// `-g`: directives outside of the file.
    pub directives: Option<String>,
}

impl Invocation {
    /// From a command line, or a title in its place.
    ///
    /// # Errors
    /// If it is none of nginx's.
    pub fn of(command_line: &[u8]) -> Result<Self, Refusal> {
        match command_line.strip_prefix(TITLE) {
            Some(title) => {
                let title = title.split(|byte| *byte == 0).next().unwrap_or(title);
                Self::parse(title.split(|byte| *byte == b' ').skip(1), true)
            }
            None => {
                let line = command_line.strip_suffix(b"\0").unwrap_or(command_line);
                Self::parse(line.split(|byte| *byte == 0).skip(1), false)
            }
        }
    }

    /// Of a title's words, those after an option that has a value belong to it up to the next option: nginx takes no other arguments.
    fn parse<'a>(words: impl Iterator<Item = &'a [u8]>, are_split: bool) -> Result<Self, Refusal> {
        let mut invocation = Self::default();
        let mut words = words.peekable();
        while let Some(word) = words.next() {
            let Some(letters) = word.strip_prefix(b"-") else { return Err(Refusal::CommandLine) };
            let bare = letters.iter().take_while(|letter| BARE.contains(letter)).count();
            let Some((option, attached)) = letters[bare..].split_first() else { continue };
            if !VALUED.contains(option) {
                return Err(Refusal::CommandLine);
            }
            let mut value = match attached {
                [] => words.next().ok_or(Refusal::CommandLine)?.to_vec(),
                attached => attached.to_vec(),
            };
            while are_split && let Some(more) = words.next_if(|word| !is_option(word)) {
                value.push(b' ');
                value.extend_from_slice(more);
            }
            let path = || Some(PathBuf::from(OsStr::from_bytes(&value)));
            match option {
                b'c' => invocation.file = path(),
                b'p' => invocation.prefix = path(),
                b'g' => invocation.directives = Some(String::from_utf8_lossy(&value).into_owned()),
                _ => {}
            }
        }
        Ok(invocation)
    }
}

fn is_option(word: &[u8]) -> bool {
    matches!(word, [b'-', letter, ..] if VALUED.contains(letter) || BARE.contains(letter))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invocation(file: &str, prefix: &str, directives: &str) -> Invocation {
        let path = |text: &str| (!text.is_empty()).then(|| text.into());
        let directives = (!directives.is_empty()).then(|| directives.to_owned());
        Invocation { file: path(file), prefix: path(prefix), directives }
    }

    #[test]
    fn titles_and_arguments_are_read_as_nginx_reads_them() {
        let debian = b"nginx: master process /usr/sbin/nginx -g daemon on; master_process on;\0";
        assert_eq!(Invocation::of(debian).unwrap(), invocation("", "", "daemon on; master_process on;"));
        let title = b"nginx: master process nginx -p /srv/a b -qc /etc/n.conf -e stderr\0\0";
        assert_eq!(Invocation::of(title).unwrap(), invocation("/etc/n.conf", "/srv/a b", ""));
        let arguments = b"nginx\0-c/etc/a b.conf\0-g\0daemon off;\0-p\0x\0";
        assert_eq!(Invocation::of(arguments).unwrap(), invocation("/etc/a b.conf", "x", "daemon off;"));
        assert_eq!(Invocation::of(b"nginx: master process nginx\0").unwrap(), Invocation::default());
    }

    #[test]
    fn only_children_call_themselves_something_else_than_a_master() {
        for title in [
            "nginx: worker process",
            "nginx: worker process is shutting down",
            "nginx: cache manager process",
        ] {
            assert!(is_childs(title), "{title}");
        }
        for line in ["nginx: master process nginx -g daemon on;", "nginx", "/usr/sbin/nginx"] {
            assert!(!is_childs(line), "{line}");
        }
    }

    #[test]
    fn what_nginx_would_not_take_is_not_guessed_at() {
        for line in [&b"nginx\0serve\0"[..], b"nginx\0-x\0", b"nginx\0-c\0"] {
            assert!(Invocation::of(line).is_err(), "{}", String::from_utf8_lossy(line));
        }
    }
}
