//! What nginx was configured with when it was built: a text in its executable, which `nginx -V` prints.

use std::{fs::File, os::unix::fs::FileExt as _, path::PathBuf};

use crate::procfs::host::Refusal;

/// What the text begins with (`ngx_show_version_info`, src/core/nginx.c).
const MARK: &[u8] = b"configure arguments:";

/// Longer than any such text.
const LONGEST: usize = 32 * 1024;

/// Larger than any nginx, and read in pieces.
const EXECUTABLE: u64 = 256 * 1024 * 1024;

const PIECE: usize = 256 * 1024;

/// Where it looks for its configuration if nobody says otherwise.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct CompiledIn {
    /// From where relative paths go.
    pub prefix: PathBuf,
    /// The configuration file.
    pub file: PathBuf,
}

impl CompiledIn {
    /// From an executable.
    ///
    /// # Errors
    /// If it is no nginx, or cannot be read.
    pub fn of(executable: &File) -> Result<Self, Refusal> {
        let failed = |error: std::io::Error| Refusal::Process { what: "exe", error: error.to_string() };
        let mut piece = vec![0; PIECE];
        let mut position = 0;
        while position < EXECUTABLE {
            let read = fill(executable, &mut piece, position).map_err(failed)?;
            if let Some(found) = piece[..read].windows(MARK.len()).position(|bytes| bytes == MARK) {
                let mut text = vec![0; LONGEST];
                let from = position + (found + MARK.len()) as u64;
                let read = fill(executable, &mut text, from).map_err(failed)?;
                let end = text[..read].iter().position(|byte| matches!(byte, 0 | b'\n')).unwrap_or(read);
                return Ok(Self::parse(&String::from_utf8_lossy(&text[..end])));
            }
            if read < PIECE {
                break;
            }
            // The mark may lie across two pieces.
            position += (PIECE - MARK.len()) as u64;
        }
        Err(Refusal::NoNginx)
    }

    /// Unset ones are as auto/options has them.
    fn parse(arguments: &str) -> Self {
        let value =
            |name: &str| words(arguments).rev().find_map(|word| Some(word.strip_prefix(name)?.to_owned()));
        Self {
            prefix: value("--prefix=").unwrap_or_else(|| "/usr/local/nginx".to_owned()).into(),
            file: value("--conf-path=").unwrap_or_else(|| "conf/nginx.conf".to_owned()).into(),
        }
    }
}

/// The arguments: one with blanks has its value in single quotes.
fn words(arguments: &str) -> impl DoubleEndedIterator<Item = String> {
    let (mut words, mut is_quoted) = (vec![String::new()], false);
    for letter in arguments.chars() {
        match letter {
            '\'' => is_quoted = !is_quoted,
            ' ' if !is_quoted => words.push(String::new()),
            letter => words.last_mut().into_iter().for_each(|word| word.push(letter)),
        }
    }
    words.into_iter()
}

/// Reads as much as there is from a position on.
fn fill(file: &File, bytes: &mut [u8], position: u64) -> std::io::Result<usize> {
    let mut filled = 0;
    while filled < bytes.len() {
        match file.read_at(&mut bytes[filled..], position + filled as u64) {
            Ok(0) => break,
            Ok(read) => filled += read,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn what_was_compiled_in_is_a_text_in_the_executable() {
        let mut file = tempfile::tempfile().unwrap();
        // Across two pieces.
        file.write_all(&vec![7; PIECE - 10]).unwrap();
        let text = b"\0configure arguments: --with-cc-opt='-g --prefix=/no' --prefix=/usr/share/nginx --conf-path='/etc/a b.conf'\n\0";
        file.write_all(text).unwrap();
        let expected = CompiledIn { prefix: "/usr/share/nginx".into(), file: "/etc/a b.conf".into() };
        assert_eq!(CompiledIn::of(&file).unwrap(), expected);
        let bare = CompiledIn { prefix: "/usr/local/nginx".into(), file: "conf/nginx.conf".into() };
        assert_eq!(CompiledIn::parse(""), bare);
    }

    #[test]
    fn what_is_no_nginx_is_refused() {
        let sleep = File::open("/bin/sleep").unwrap();
        assert!(matches!(CompiledIn::of(&sleep), Err(Refusal::NoNginx)));
    }
}
