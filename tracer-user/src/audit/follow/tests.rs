use std::io::Write as _;

use nix::{sys::stat::Mode, unistd::mkfifo};
use tempfile::TempDir;

use super::*;

/// A log and someone who writes to it, as nginx does: to the file it has open, whatever it is called.
struct Log {
    folder: TempDir,
    writer: File,
}

impl Log {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let writer = appender(&folder.path().join("error.log"));
        Self { folder, writer }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("error.log")
    }

    fn write(&mut self, text: &str) {
        self.writer.write_all(text.as_bytes()).unwrap();
    }

    fn rename(&self, name: &str) {
        fs::rename(self.path(), self.folder.path().join(name)).unwrap();
    }

    /// What `nginx -s reopen` does.
    fn reopen(&mut self) {
        self.writer = appender(&self.path());
    }
}

fn appender(path: &Path) -> File {
    File::options().append(true).create(true).open(path).unwrap()
}

fn lines(follower: &mut Follower) -> Vec<String> {
    let mut lines = Vec::new();
    follower.read(&mut |line| lines.push(line.to_owned())).unwrap();
    lines
}

#[test]
fn only_what_is_added_is_read() {
    let mut log = Log::new();
    log.write("old\n");
    let mut follower = Follower::open(&log.path()).unwrap();
    assert!(lines(&mut follower).is_empty());
    log.write("one\ntwo\n");
    assert_eq!(lines(&mut follower), ["one", "two"]);
    assert!(lines(&mut follower).is_empty());
}

#[test]
fn a_line_waits_for_its_end() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    log.write("one\ntw");
    assert_eq!(lines(&mut follower), ["one"]);
    log.write("o");
    assert!(lines(&mut follower).is_empty());
    log.write("\nthree\n");
    assert_eq!(lines(&mut follower), ["two", "three"]);
}

#[test]
fn a_renamed_file_is_read_on_until_nginx_opens_the_new_one() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    log.write("one\n");
    log.rename("error.log.1");
    log.write("two\n");
    assert_eq!(lines(&mut follower), ["one", "two"]);
    // As logrotate's `create` leaves it.
    File::create(log.path()).unwrap();
    assert!(lines(&mut follower).is_empty());
    log.write("three\n");
    assert_eq!(lines(&mut follower), ["three"]);
    log.write("four\n");
    log.reopen();
    log.write("five\n");
    assert_eq!(lines(&mut follower), ["four", "five"]);
}

#[test]
fn rotation_between_two_looks_loses_nothing() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    log.write("one\n");
    log.rename("error.log.1");
    log.write("two\n");
    log.reopen();
    log.write("three\n");
    // Compressed and deleted.
    fs::remove_file(log.folder.path().join("error.log.1")).unwrap();
    assert_eq!(lines(&mut follower), ["one", "two", "three"]);
    log.rename("error.log.1");
    log.reopen();
    log.write("four\n");
    assert_eq!(lines(&mut follower), ["four"]);
}

#[test]
fn many_rotations_do_not_pile_up() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    for number in 0..40 {
        log.write(&format!("{number}\n"));
        log.rename(&format!("error.log.{number}"));
        log.reopen();
        assert_eq!(lines(&mut follower), [number.to_string()]);
    }
    assert!(follower.retired.len() <= MAX_RETIRED);
}

#[test]
fn a_truncated_file_is_read_from_its_beginning() {
    let mut log = Log::new();
    log.write("an old line\n");
    let mut follower = Follower::open(&log.path()).unwrap();
    log.write("one\n");
    assert_eq!(lines(&mut follower), ["one"]);
    log.writer.set_len(0).unwrap();
    assert!(lines(&mut follower).is_empty());
    log.write("two\n");
    assert_eq!(lines(&mut follower), ["two"]);
    // Truncated and grown beyond where it was, between two looks.
    log.writer.set_len(0).unwrap();
    log.write("three\nfour\nfive\nsix\n");
    assert_eq!(lines(&mut follower), ["three", "four", "five", "six"]);
}

#[test]
fn a_file_that_is_not_there_yet_is_read_from_its_beginning() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("missing/error.log");
    let mut follower = Follower::open(&path).unwrap();
    assert!(!follower.is_open() && lines(&mut follower).is_empty());
    fs::create_dir(folder.path().join("missing")).unwrap();
    fs::write(&path, "one\n").unwrap();
    assert_eq!(lines(&mut follower), ["one"]);
    assert!(follower.is_open());
}

#[test]
fn a_file_that_vanishes_for_a_while_is_kept() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    fs::remove_file(log.path()).unwrap();
    log.write("one\n");
    assert_eq!(lines(&mut follower), ["one"]);
    log.reopen();
    log.write("two\n");
    assert_eq!(lines(&mut follower), ["two"]);
}

#[test]
fn a_link_that_leads_elsewhere_is_followed_and_reported() {
    let folder = TempDir::new().unwrap();
    let (first, second, link) =
        (folder.path().join("first"), folder.path().join("second"), folder.path().join("error.log"));
    fs::write(&first, "").unwrap();
    std::os::unix::fs::symlink(&first, &link).unwrap();
    let mut follower = Follower::open(&link).unwrap();
    fs::rename(&first, folder.path().join("first.1")).unwrap();
    fs::write(&first, "one\n").unwrap();
    assert_eq!(lines(&mut follower), ["one"]);
    assert_eq!(follower.take_turn(), None, "it was rotated, and the link is the same");
    fs::write(&second, "two\n").unwrap();
    fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&second, &link).unwrap();
    assert_eq!(lines(&mut follower), ["two"]);
    assert_eq!(follower.take_turn(), Some(second.canonicalize().unwrap()));
    assert_eq!(follower.take_turn(), None);
}

#[test]
fn a_pipe_that_takes_the_logs_place_does_not_hang() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    log.rename("error.log.1");
    mkfifo(&log.path(), Mode::S_IRWXU).unwrap();
    log.write("one\n");
    let mut seen = Vec::new();
    assert!(follower.read(&mut |line| seen.push(line.to_owned())).is_err());
    assert_eq!(seen, ["one"]);
    fs::remove_file(log.path()).unwrap();
    log.reopen();
    log.write("two\n");
    assert_eq!(lines(&mut follower), ["two"]);
}

#[test]
fn what_cannot_be_followed_is_refused_at_once() {
    let folder = TempDir::new().unwrap();
    assert!(Follower::open(folder.path()).is_err());
    let pipe = folder.path().join("pipe");
    mkfifo(&pipe, Mode::S_IRWXU).unwrap();
    assert!(Follower::open(&pipe).is_err());
    assert!(Follower::open(Path::new("/dev/null")).is_err());
    let file = folder.path().join("file");
    fs::write(&file, "").unwrap();
    assert!(Follower::open(&file.join("error.log")).is_err());
}

#[test]
fn long_lines_and_odd_bytes_do_no_harm() {
    let mut log = Log::new();
    let mut follower = Follower::open(&log.path()).unwrap();
    log.write(&"x".repeat(3 * LONGEST_LINE));
    assert!(lines(&mut follower).is_empty());
    log.write("\none\n");
    log.writer.write_all(b"tw\xffo\n").unwrap();
    let seen = lines(&mut follower);
    assert_eq!(seen[seen.len() - 2..], ["one", "tw\u{fffd}o"]);
    assert!(seen.iter().all(|line| line.len() <= LONGEST_LINE));
}
