//! Names that others have taken, before and while files are written.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    file::{Recording, Rotation, numbered},
    naming::Naming,
    window::{Window, Written},
};
use crate::{
    evidence::{Encoder, Header, Names, Reader},
    model::{
        groups::Configured,
        stream::{Counts, Entry, Start, What},
    },
};

fn header() -> (Header, Start) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/golden/evidence-1.zst");
    let header = Reader::new(fs::File::open(path).unwrap()).unwrap().header().clone();
    let start = header.start().unwrap();
    (header, start)
}

fn recording(path: &Path, keep: u32) -> anyhow::Result<Recording> {
    let (header, start) = header();
    let encoder = Encoder::new(start.started_ns, Names::kept(false));
    let rotation = Some(Rotation { size: 10_000, keep });
    Ok(Recording::create(path, rotation, header, start.clock_offset, encoder)?)
}

fn window(path: &Path, most: u32) -> Window {
    let (header, start) = header();
    let encoder = Encoder::new(start.started_ns, Names::kept(false));
    Window::new(Naming::numbered(path, most), Duration::from_secs(600), header, start.clock_offset, encoder)
}

fn entry(number: u64) -> Entry {
    let at_ns = header().1.started_ns + number;
    Entry { at_ns, what: What::Counts(Counts { exchanges: number, ..Counts::default() }) }
}

/// Adds lines that do not shrink much, until the file has been written to at least once more.
fn fill(recording: &mut Recording, random: &mut fastrand::Rng) {
    let start = header().1.started_ns;
    for number in 0..2_000 {
        let exchanges = random.u64(..1 << 50);
        let what =
            What::Counts(Counts { exchanges, connections: random.u64(..1 << 50), ..Counts::default() });
        recording.add(&Entry { at_ns: start + number, what });
    }
    recording.pause(u64::MAX);
}

/// What may have a name: a file, a folder, a link to a file that is precious.
fn traps(folder: &Path) -> [fn(&Path); 3] {
    fs::write(folder.join("precious"), "precious").unwrap();
    [
        |name| fs::write(name, "precious").unwrap(),
        |name| fs::create_dir(name).unwrap(),
        |name| symlink("precious", name).unwrap(),
    ]
}

fn is_trap(folder: &Path, name: &Path) -> bool {
    fs::read(folder.join("precious")).unwrap() == b"precious"
        && match fs::symlink_metadata(name) {
            Ok(there) if there.is_file() => fs::read(name).unwrap() == b"precious",
            Ok(_) => true,
            Err(_) => false,
        }
}

fn evidence(folder: &Path) -> Vec<PathBuf> {
    let all = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut own: Vec<_> = all
        .filter(|path| fs::symlink_metadata(path).unwrap().is_file())
        .filter(|path| Reader::new(fs::File::open(path).unwrap()).is_ok())
        .collect();
    own.sort();
    own
}

#[test]
fn a_rotation_begins_with_free_names_and_passes_over_what_comes_later() {
    for number in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let trap = traps(folder.path())[number];
        let path = folder.path().join("evidence");
        let taken = numbered(&path, 2);
        trap(&taken);
        let refused = recording(&path, 2).err().unwrap().to_string();
        assert!(refused.contains("evidence.2 is there") && !path.exists(), "{refused}");
        let mut recording = recording(&path, 1).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        // The next name is free, and then it is not.
        fill(&mut recording, &mut random);
        assert_eq!(evidence(folder.path()), [path.clone(), numbered(&path, 1)]);
        fs::remove_file(numbered(&path, 1)).unwrap();
        trap(&numbered(&path, 1));
        for _ in 0..3 {
            fill(&mut recording, &mut random);
            assert_eq!(evidence(folder.path()), [path.clone(), numbered(&path, 3)]);
        }
        assert!(is_trap(folder.path(), &taken) && is_trap(folder.path(), &numbered(&path, 1)));
        assert_eq!(recording.finish(), 0);
    }
}

#[test]
fn a_file_that_cannot_be_followed_grows_to_twice_its_size() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evidence");
    let mut recording = recording(&path, 1).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    let aside = folder.path().join("aside");
    fs::rename(&path, &aside).unwrap();
    fs::create_dir(&path).unwrap();
    for _ in 0..10 {
        fill(&mut recording, &mut random);
    }
    let size = fs::metadata(&aside).unwrap().len();
    fill(&mut recording, &mut random);
    assert_eq!(fs::metadata(&aside).unwrap().len(), size);
    fs::remove_dir(&path).unwrap();
    fill(&mut recording, &mut random);
    assert!(path.is_file() && recording.finish() == 0);
}

#[test]
fn a_window_writes_so_many_files_under_free_names_and_one_at_the_end() {
    for number in 0..3 {
        let folder = tempfile::tempdir().unwrap();
        let trap = traps(folder.path())[number];
        let path = folder.path().join("evidence");
        let mut window = window(&path, 2);
        let mut write = |number: u64, is_end: bool| {
            window.add(&entry(number));
            window.write(is_end).unwrap()
        };
        assert_eq!(write(1, false), Written::File(path.clone()));
        trap(&numbered(&path, 1));
        assert_eq!(write(2, false), Written::File(numbered(&path, 2)));
        for number in 3..6 {
            assert_eq!(write(number, false), Written::Declined);
        }
        assert_eq!(write(6, true), Written::File(numbered(&path, 3)));
        assert_eq!((window.declined(), evidence(folder.path()).len()), (3, 3));
        assert!(is_trap(folder.path(), &numbered(&path, 1)));
    }
}

/// The pids of which each configuration in a file is of.
fn configured(path: &Path) -> Vec<Vec<u32>> {
    let mut reader = Reader::new(fs::File::open(path).unwrap()).unwrap();
    let entries = std::iter::from_fn(|| reader.next_entry().unwrap());
    let workers = entries.filter_map(|entry| match entry.what {
        What::Groups(Configured { workers, .. }) => Some(workers),
        _ => None,
    });
    workers.collect()
}

#[test]
fn each_file_has_the_configurations_that_were_read_before_it() {
    let folder = tempfile::TempDir::new().unwrap();
    let groups = |workers| What::Groups(Configured { workers, ..Configured::default() });
    let path = folder.path().join("rotated");
    let mut recording = recording(&path, 9).unwrap();
    let mut random = fastrand::Rng::with_seed(7);
    recording.add(&Entry { what: groups(vec![7]), ..entry(1) });
    for _ in 0..2 {
        fill(&mut recording, &mut random);
    }
    assert_eq!(recording.finish(), 0);
    assert_eq!(configured(&path), [[7]]);

    let path = folder.path().join("window");
    let mut window = window(&path, 9);
    for (number, written) in [(1, path.clone()), (2, numbered(&path, 1))] {
        window.add(&entry(number));
        if number == 1 {
            window.add(&Entry { what: groups(vec![8]), ..entry(number) });
        }
        assert_eq!(window.write(false).unwrap(), Written::File(written.clone()));
        assert!(configured(&written).contains(&vec![8]));
    }
}

/// A word that waits for its exchange would be overdue otherwise, and emitted alone.
#[test]
fn a_window_emits_in_order_what_came_while_it_was_kept() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("evidence");
    let mut window = window(&path, 9);
    let groups = |workers| What::Groups(Configured { workers, ..Configured::default() });
    window.add(&entry(1));
    window.add(&Entry { what: groups(vec![8]), ..entry(6_000_000_000) });
    window.write(false).unwrap();
    assert_eq!(configured(&path), [[8]]);
    let mut reader = Reader::new(fs::File::open(&path).unwrap()).unwrap();
    let moments: Vec<_> =
        std::iter::from_fn(|| reader.next_entry().unwrap()).map(|entry| entry.at_ns).collect();
    assert!(moments.is_sorted() && moments.len() == 2, "{moments:?}");
}
