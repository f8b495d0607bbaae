use std::{
    fs::{self, Permissions, set_permissions},
    os::unix::fs::{PermissionsExt as _, symlink},
};

use nix::unistd::mkfifo;
use tempfile::TempDir;

use super::*;

/// A root of a process's own.
struct Tree {
    folder: TempDir,
    root: Root,
}

impl Tree {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let root = Root::new(File::open(folder.path()).unwrap().into());
        for made in ["etc", "etc/conf.d", "run"] {
            fs::create_dir(folder.path().join(made)).unwrap();
        }
        let tree = Self { folder, root };
        tree.write("etc/main", "main");
        tree
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.at(name), text).unwrap();
    }

    fn link(&self, name: &str, target: &str) {
        symlink(target, self.at(name)).unwrap();
    }

    fn read(&self, path: &str) -> Result<String, Refusal> {
        self.root.read(Path::new(path), &mut Budget::default()).map(|(text, _)| text)
    }

    fn expand(&self, pattern: &str) -> Vec<String> {
        let paths = self.root.expand(Path::new(pattern), &mut Budget::default()).unwrap();
        paths.iter().map(|path| path.display().to_string()).collect()
    }
}

#[test]
fn links_lead_where_they_do_for_the_process() {
    let tree = Tree::new();
    tree.link("etc/absolute", "/etc/main");
    tree.link("etc/relative", "../etc/./main");
    tree.link("folder", "etc/conf.d/..");
    tree.link("etc/twice", "/folder/absolute");
    for path in
        ["/etc/main", "//etc/../etc/main", "/etc/absolute", "/etc/relative", "/folder/main", "/etc/twice"]
    {
        assert_eq!(tree.read(path).unwrap(), "main", "{path}");
    }
    assert!(tree.read("/etc/missing").unwrap_err().is_missing());
    assert!(tree.read("/etc/main/missing").unwrap_err().is_missing());
}

#[test]
fn nothing_leads_out_of_the_root() {
    let tree = Tree::new();
    for target in ["/etc/hostname", "../../../../../../etc/hostname", "/proc/1/root/etc/hostname"] {
        tree.link("out", target);
        assert!(tree.read("/out").unwrap_err().is_missing(), "{target}");
        fs::remove_file(tree.at("out")).unwrap();
    }
    tree.link("loop", "/loop");
    assert!(matches!(tree.read("/loop"), Err(Refusal::Links(_))));
    // A magic link of procfs is no way to what it stands for.
    let here = Root::new(File::open("/").unwrap().into());
    let file = File::open(tree.at("etc/main")).unwrap();
    fs::remove_file(tree.at("etc/main")).unwrap();
    let magic = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
    assert!(here.read(Path::new(&magic), &mut Budget::default()).unwrap_err().is_missing());
}

#[test]
fn what_others_may_write_is_not_read() {
    let tree = Tree::new();
    for mode in [0o666, 0o664] {
        set_permissions(tree.at("etc/main"), Permissions::from_mode(mode)).unwrap();
        assert!(matches!(tree.read("/etc/main"), Err(Refusal::Writable(_))));
    }
    set_permissions(tree.at("etc/main"), Permissions::from_mode(0o600)).unwrap();
    set_permissions(tree.at("etc"), Permissions::from_mode(0o777)).unwrap();
    assert!(matches!(tree.read("/etc/main"), Err(Refusal::WritableFolder(_))));
    // Nobody else can put a name of root's into /tmp.
    set_permissions(tree.at("etc"), Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(tree.read("/etc/main").unwrap(), "main");
}

#[test]
fn what_is_anothers_is_not_read_nor_passed() {
    let tree = Tree::new();
    let nobody = Some(65_534);
    fs::create_dir(tree.at("home")).unwrap();
    tree.write("home/file", "file");
    tree.link("home/link", "/etc/main");
    tree.link("etc/link", "/etc/main");
    if std::os::unix::fs::lchown(tree.at("etc/link"), nobody, nobody).is_err() {
        // Only root can give files away.
        return;
    }
    assert!(matches!(tree.read("/etc/link"), Err(Refusal::ForeignLink { uid: 65_534, .. })));
    std::os::unix::fs::chown(tree.at("home"), nobody, nobody).unwrap();
    for path in ["/home/file", "/home/link"] {
        assert!(matches!(tree.read(path), Err(Refusal::ForeignFolder { uid: 65_534, .. })), "{path}");
    }
    std::os::unix::fs::chown(tree.at("etc/main"), nobody, nobody).unwrap();
    assert!(matches!(tree.read("/etc/main"), Err(Refusal::ForeignOwner { uid: 65_534, .. })));
}

#[test]
fn only_small_regular_files_are_opened() {
    let tree = Tree::new();
    mkfifo(&tree.at("pipe"), Mode::S_IRWXU).unwrap();
    for path in ["/pipe", "/etc"] {
        assert!(matches!(tree.read(path), Err(Refusal::NoFile(_))), "{path}");
    }
    File::create(tree.at("sparse")).unwrap().set_len(2 << 30).unwrap();
    assert!(matches!(tree.read("/sparse"), Err(Refusal::TooLarge { .. })));
    let here = Root::new(File::open("/").unwrap().into());
    let read = |path: &str| here.read(Path::new(path), &mut Budget::default());
    assert!(matches!(read("/dev/zero"), Err(Refusal::NoFile(_) | Refusal::Writable(_))));
    // It has no size, and to read it would wait for ever.
    assert_eq!(read("/proc/kmsg").unwrap().0, "");
}

#[test]
fn all_files_together_are_limited() {
    let tree = Tree::new();
    let mut budget = Budget::default();
    tree.write("large", &"x".repeat(1024 * 1024));
    let refusal = (0..100).find_map(|_| tree.root.read(Path::new("/large"), &mut budget).err()).unwrap();
    assert!(matches!(refusal, Refusal::TooMuch(_)), "{refusal}");
    let mut budget = Budget::default();
    let refusal =
        (0..10_000).find_map(|_| tree.root.read(Path::new("/etc/main"), &mut budget).err()).unwrap();
    assert!(matches!(refusal, Refusal::TooManyFiles(_)), "{refusal}");
}

#[test]
fn patterns_stand_for_what_glob_finds() {
    let tree = Tree::new();
    for name in ["b.conf", "a.conf", ".hidden.conf", "c.txt", "1"] {
        tree.write(&format!("etc/conf.d/{name}"), "");
    }
    assert_eq!(tree.expand("/etc/conf.d/*.conf"), ["/etc/conf.d/a.conf", "/etc/conf.d/b.conf"]);
    assert_eq!(tree.expand("/etc/conf.d/*").len(), 4);
    assert_eq!(tree.expand("/e?c/[a-m]*.d/[!b].conf"), ["/etc/conf.d/a.conf"]);
    assert_eq!(tree.expand("/etc/*/missing"), ["/etc/conf.d/missing", "/etc/main/missing"]);
    assert_eq!(tree.expand("/etc/plain"), ["/etc/plain"]);
    assert!(tree.expand("/nowhere/*").is_empty());
}

#[test]
fn a_socket_is_found_in_anybodys_folder_but_through_no_link_of_his() {
    let tree = Tree::new();
    let listener = std::os::unix::net::UnixListener::bind(tree.at("run/fpm.sock")).unwrap();
    set_permissions(tree.at("run"), Permissions::from_mode(0o777)).unwrap();
    let node = tree.root.socket(Path::new("/run/fpm.sock")).unwrap();
    drop(std::os::unix::net::UnixStream::connect(own(&node)).unwrap());
    listener.accept().unwrap();
    assert!(matches!(tree.root.socket(Path::new("/etc/main")), Err(Refusal::NoSocket(_))));
    tree.link("run/link", "/run/fpm.sock");
    let nobody = Some(65_534);
    if std::os::unix::fs::lchown(tree.at("run/link"), nobody, nobody).is_ok() {
        let refusal = tree.root.socket(Path::new("/run/link")).unwrap_err();
        assert!(matches!(refusal, Refusal::ForeignLink { .. }), "{refusal}");
    }
}
