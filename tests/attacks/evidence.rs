//! Hostile files of evidence, and names that others have taken where evidence and pages are to be written.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, ensure};
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use rig::recorder::{Recorder, report};
use rig::tracer::{Tracer, binary};
use rig::{Endpoint, Location, Namespace, Nginx, process, wait};
use tempfile::TempDir;

/// `nobody`.
const NOBODY: u32 = 65_534;

/// Memory for a report, in bytes, all of its mappings included.
const MOST_MEMORY: u64 = 512 << 20;

/// What a report of a small file may write, in bytes.
const MOST_OUTPUT: usize = 64 << 20;

fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/evidence-1.zst")
}

/// The lines of real evidence.
fn lines() -> Result<Vec<String>> {
    let mut zstdcat = process::command(process::find_program(&["zstdcat"])?);
    zstdcat.stdin(File::open(golden())?);
    Ok(process::output(zstdcat)?.lines().map(str::to_owned).collect())
}

/// A file of these lines.
fn file(folder: &TempDir, name: &str, lines: &[String]) -> Result<PathBuf> {
    let path = folder.path().join(name);
    let mut zstd = process::command(process::find_program(&["zstd"])?);
    let mut zstd = zstd.arg("-q12c").stdin(Stdio::piped()).stdout(File::create(&path)?).spawn()?;
    let mut stdin = zstd.stdin.take().context("a pipe")?;
    for line in lines {
        writeln!(stdin, "{line}")?;
    }
    drop(stdin);
    ensure!(zstd.wait()?.success());
    Ok(path)
}

fn why502(arguments: &[&str], files: &[&Path]) -> Result<Command> {
    let mut command = process::command(binary()?);
    command.args(arguments).args(files).stdin(Stdio::null());
    Ok(command)
}

/// What a report within bounded memory says.
fn bounded(arguments: &[&str], path: &Path) -> Result<Output> {
    let mut command = why502(arguments, &[path])?;
    // SAFETY: one system call, in a process that is about to become another.
    unsafe {
        command.pre_exec(|| Ok(setrlimit(Resource::RLIMIT_AS, MOST_MEMORY, MOST_MEMORY)?));
    }
    let output = command.output()?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(!said.contains("panicked") && !said.contains("memory allocation"), "{said}");
    ensure!(matches!(output.status.code(), Some(0 | 1)), "{}: {said}", output.status);
    ensure!(output.stdout.len() < MOST_OUTPUT, "{} bytes of output", output.stdout.len());
    Ok(output)
}

/// One line of samples of a worker, which waited for a file, in so many exchanges.
fn look(path: &str, exchanges: u64) -> String {
    let served = |sock: u64| format!(r#"{{"sock":{sock},"connect_ns":192472611,"exchange":1}}"#);
    let served: Vec<_> = (1..=exchanges).map(served).collect();
    format!(
        concat!(
            r#"{{"type":"look","at":108371725,"ns":300000000,"pid":1,"tid":1,"doing":"file","target":"{}","#,
            r#""has_other_threads":false,"exchanges":[{}]}}"#
        ),
        path,
        served.join(",")
    )
}

/// A real exchange, under other names.
fn exchanges(of: &[String], count: u64) -> Result<Vec<String>> {
    const SOCK: &str = r#""sock":782584881591063"#;
    let one = of.iter().find(|line| line.contains(r#""type":"exchange""#) && line.contains(SOCK));
    let one = one.context("no such exchange")?;
    Ok((1..=count).map(|number| one.replacen(SOCK, &format!(r#""sock":{number}"#), 1)).collect())
}

#[test]
fn a_line_of_samples_is_not_multiplied_by_all_the_exchanges_it_names() -> Result<()> {
    const EXCHANGES: u64 = 16_384;
    let folder = TempDir::with_prefix("why502-attack-")?;
    let all = lines()?;
    for (length, code) in [(16_000, 1), (4_000, 0)] {
        let path = |number: u64| format!("/{number:0length$}");
        let looks = (0..16).map(|number| look(&path(number), EXCHANGES));
        let bomb: Vec<_> = all[..1].iter().cloned().chain(looks).collect();
        let bomb = file(&folder, "bomb.zst", &bomb)?;
        let size = fs::metadata(&bomb)?.len();
        ensure!(size < 64 << 10, "{size} bytes are no small file");
        for arguments in [&["report"][..], &["report", "-o", "json"]] {
            let output = bounded(arguments, &bomb)?;
            let said = String::from_utf8_lossy(&output.stderr);
            ensure!(output.status.code() == Some(code), "{}: {said}", output.status);
            ensure!(code == 0 || said.contains("longer than any name or path"), "{said}");
        }
    }
    Ok(())
}

#[test]
fn many_exchanges_are_emitted_one_by_one() -> Result<()> {
    // More than wait at a time, and each with a path that it waited for.
    const EXCHANGES: u64 = 40_000;
    let folder = TempDir::with_prefix("why502-attack-")?;
    let all = lines()?;
    let mut many = vec![all[0].clone(), look(&format!("/{:0300}", 1), 16_384)];
    many.extend(exchanges(&all, EXCHANGES)?);
    let many = file(&folder, "many.zst", &many)?;
    let html = folder.path().join("many.html");
    let html = html.to_str().context("UTF-8")?;
    let output = bounded(&["report", "--html", html], &many)?;
    let said = String::from_utf8_lossy(&output.stdout);
    ensure!(output.status.success() && said.contains("40000 of them failed"), "{said}");
    ensure!(fs::metadata(html)?.len() < MOST_OUTPUT as u64);
    Ok(())
}

#[test]
fn deep_and_wide_lines_are_refused_in_a_sentence() -> Result<()> {
    let folder = TempDir::with_prefix("why502-attack-")?;
    let header = lines()?.swap_remove(0);
    let deep = "[".repeat(500_000) + &"]".repeat(500_000);
    let lines = [
        format!(r#"{{"type":"look","at":1,"exchanges":{deep}}}"#),
        format!(r#"{{"type":"look","at":1,"exchanges":[{}0]}}"#, "0,".repeat(1_900_000)),
        format!(r#"{{"type":"{}"}}"#, "x".repeat(4 << 20)),
        format!(r#"{{"type":"{}"}}"#, "x".repeat(3 << 20)),
    ];
    for line in lines {
        let hostile = file(&folder, "hostile.zst", &[header.clone(), line])?;
        let output = bounded(&["report"], &hostile)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.lines().count() == 1, "{}: {said}", output.status);
        ensure!(said.len() < 8 << 10, "{} bytes are no sentence", said.len());
    }
    Ok(())
}

/// Whether nothing of it steers a terminal.
fn is_harmless(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    text.chars().all(|char| char == '\n' || !char.is_control() && !('\u{202a}'..='\u{202e}').contains(&char))
}

#[test]
fn nothing_in_a_file_steers_the_terminal() -> Result<()> {
    let folder = TempDir::with_prefix("why502-attack-")?;
    let all = lines()?;
    // As JSON has them: a title, a cleared screen, C1's CSI and a turned direction.
    const HOSTILE: &str = r"\u001b]0;x\u0007\u009b2J\u202e\r";
    let named: Vec<_> = all.iter().map(|line| line.replace("php-fpm8.2", &HOSTILE[..24])).collect();
    let in_path: Vec<_> = all
        .iter()
        .map(|line| {
            line.replace(
                r#""doing":"sleep","target":"clock_nanosleep""#,
                &format!(r#""doing":"file","target":"/{HOSTILE}""#),
            )
        })
        .collect();
    ensure!(named != all && in_path != all);
    let mut unknown = all.clone();
    unknown.insert(1, format!(r#"{{"type":"{HOSTILE}"}}"#));
    let header = vec![all[0].replace(r#""monotonic_ns":"#, &format!(r#""{HOSTILE}":1,"x":"#))];
    for (name, lines, code) in [
        ("named", named, 0),
        ("in_path", in_path, 0),
        ("unknown", unknown, 1),
        ("header", header, 1),
        ("\u{1b}]0;x\u{7}.zst", all, 0),
    ] {
        let hostile = file(&folder, name, &lines)?;
        for arguments in [&["report", "-v"][..], &["report", "-o", "json"]] {
            let output = why502(arguments, &[&hostile])?.output()?;
            let said = [output.stdout, output.stderr].concat();
            ensure!(output.status.code() == Some(code), "{name:?}: {}", String::from_utf8_lossy(&said));
            ensure!(is_harmless(&said), "{name:?}: {:?}", String::from_utf8_lossy(&said));
        }
    }
    let missing = folder.path().join("no\u{1b}[2Jsuch");
    for mut command in [why502(&["report"], &[&missing])?, why502(&["--\u{1b}]0;x\u{7}"], &[])?] {
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(!output.status.success() && !said.is_empty() && is_harmless(said.as_bytes()), "{said:?}");
    }
    Ok(())
}

#[test]
fn no_name_of_a_process_or_socket_steers_the_terminal() -> Result<()> {
    // Names of threads have 15 bytes.
    const COMM: &str = "\u{1b}]0;x\u{7}\u{1b}[2J\r\u{9b}m";
    let folder = TempDir::with_prefix("why502-attack-")?;
    let path = folder.path().join("\u{1b}[2J\n\u{202e}.sock");
    let namespace = Namespace::new()?;
    for format in ["text", "json"] {
        let arguments = ["-o", format, "-v", "--comm", COMM, "--connect-errors", "-c", "2"];
        let tracer = Tracer::spawn(&arguments, None, |_| {})?;
        let (path, by_comm) = (path.clone(), std::thread::Builder::new().name(COMM.to_owned()));
        namespace.run(move || {
            let connects = by_comm.spawn(move || {
                ensure!(std::net::TcpStream::connect("127.0.0.1:9009").is_err(), "somebody listens there");
                ensure!(std::os::unix::net::UnixStream::connect(path).is_err(), "somebody listens there");
                Ok(())
            })?;
            connects.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?
        })?;
        let run = tracer.end()?;
        ensure!(run.status.success(), "{run:?}");
        let said = [run.stdout.join("\n"), run.stderr].concat();
        ensure!(said.contains("127.0.0.1:9009") && said.contains(".sock"), "{said:?}");
        ensure!(is_harmless(said.as_bytes()), "{said:?}");
    }
    Ok(())
}

#[test]
fn a_page_is_its_owners_and_follows_no_link() -> Result<()> {
    let folder = TempDir::with_prefix("why502-attack-")?;
    let [page, other, link] = ["page.html", "other", "link.html"].map(|name| folder.path().join(name));
    let write =
        |to: &Path| -> Result<Output> { Ok(why502(&["report", "--html"], &[to, &golden()])?.output()?) };
    for _ in 0..2 {
        ensure!(write(&page)?.status.success());
        let page = fs::metadata(&page)?;
        ensure!(page.permissions().mode() & 0o777 == 0o600 && page.len() > 1_000);
    }
    fs::write(&other, "precious")?;
    symlink(&other, &link)?;
    let pipe = folder.path().join("pipe");
    nix::unistd::mkfifo(&pipe, nix::sys::stat::Mode::from_bits_truncate(0o600))?;
    let theirs = folder.path().join("theirs");
    fs::write(&theirs, "precious")?;
    chown(&theirs, Some(NOBODY), Some(NOBODY))?;
    for taken in [&link, &pipe, &theirs, Path::new("/dev/null"), folder.path()] {
        let output = write(taken)?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.code() == Some(1) && said.lines().count() == 1, "{}: {said}", taken.display());
    }
    for kept in [&other, &theirs] {
        ensure!(fs::read_to_string(kept)? == "precious");
    }
    ensure!(fs::symlink_metadata(&link)?.is_symlink());
    ensure!(fs::read_dir(folder.path())?.count() == 5, "something was left behind");
    Ok(())
}

/// An nginx whose upstream refuses.
fn refusing() -> Result<(Namespace, Nginx)> {
    let namespace = Namespace::new()?;
    let nginx =
        Nginx::on(&namespace).location(Location::fastcgi("/refused/", &Endpoint::v4(9009))).start()?;
    Ok((namespace, nginx))
}

#[derive(Debug, Clone, Copy)]
enum Trap {
    File,
    Directory,
    Link,
}

const TRAPS: [Trap; 3] = [Trap::File, Trap::Directory, Trap::Link];

impl Trap {
    /// Takes a name; a link is to a file of somebody else's beside it.
    fn lay(self, name: &Path) -> Result<()> {
        let victim = victim(name);
        fs::write(&victim, "precious")?;
        chown(&victim, Some(NOBODY), Some(NOBODY))?;
        match self {
            Trap::File => fs::write(name, "precious")?,
            Trap::Directory => fs::create_dir(name)?,
            Trap::Link => symlink(&victim, name)?,
        }
        Ok(())
    }

    fn is_as_it_was(self, name: &Path) -> Result<()> {
        let there = fs::symlink_metadata(name)?;
        ensure!(
            fs::read_to_string(victim(name))? == "precious" && fs::metadata(victim(name))?.uid() == NOBODY
        );
        let is_same = match self {
            Trap::File => there.is_file() && fs::read_to_string(name)? == "precious",
            Trap::Directory => there.is_dir(),
            Trap::Link => there.is_symlink(),
        };
        ensure!(is_same, "{self:?} is no more what it was");
        Ok(())
    }
}

fn victim(name: &Path) -> PathBuf {
    name.with_extension("victim")
}

fn fail(nginx: &Nginx) -> Result<()> {
    ensure!(nginx.client().get("/refused/")?.status == 502);
    Ok(())
}

#[test]
fn a_name_that_is_taken_is_refused_before_anything_is_traced() -> Result<()> {
    for trap in TRAPS {
        for arguments in
            [&["--last", "10m"][..], &["--rotate-size", "20K"], &["--last", "1m", "--max-files", "1"]]
        {
            let folder = TempDir::with_prefix("why502-attack-")?;
            let [path, taken] = ["evidence.zst", "evidence.zst.1"].map(|name| folder.path().join(name));
            trap.lay(&taken)?;
            let mut command = why502(&["record", "-d", "1s", "-o"], &[&path])?;
            let output = command.args(arguments).output()?;
            let said = String::from_utf8_lossy(&output.stderr);
            let is_refused = said.contains("evidence.zst.1 is there") && said.contains("take another name");
            ensure!(output.status.code() == Some(1) && is_refused, "{trap:?}: {}: {said}", output.status);
            ensure!(said.lines().count() == 1 && !path.exists(), "{said}");
            trap.is_as_it_was(&taken)?;
        }
    }
    Ok(())
}

#[test]
fn the_flight_recorder_passes_over_what_others_put_in_its_way_and_writes_so_much_at_most() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    for trap in TRAPS {
        let recorder = Recorder::start(&["-p", &pid, "--last", "10m", "--max-files", "2"])?;
        let name = |end: &str| recorder.folder().join(format!("evidence.zst{end}"));
        let write = |end: &str| -> Result<()> {
            fail(&nginx)?;
            recorder.signal(Signal::SIGUSR1)?;
            recorder.wait_to_say(&format!("wrote {} (SIGUSR1)", name(end).display()))
        };
        write("")?;
        let taken = name(".1");
        trap.lay(&taken)?;
        write(".2")?;
        let over = format!("{} is there and not of this recording", taken.display());
        ensure!(recorder.complaints().contains(&over), "{}", recorder.complaints());
        fail(&nginx)?;
        recorder.signal(Signal::SIGUSR1)?;
        recorder.wait_to_say("as many files as --max-files allows")?;
        let [first, second, last] = ["", ".2", ".3"].map(name);
        let recorded = recorder.stop()?;
        recorded.is_orderly()?;
        trap.is_as_it_was(&taken)?;
        let own = [first.as_path(), &second, &last];
        ensure!(recorded.files()?.len() == own.len() + 2, "{:?}", recorded.files()?);
        let said = report(&own)?;
        ensure!(said.verdicts.len() == 3 && said.stderr.is_empty(), "{said:#?}");
    }
    Ok(())
}

#[test]
fn a_rotation_moves_and_removes_its_own_files_only() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    for trap in TRAPS {
        let recorder = Recorder::start(&["-p", &pid, "--rotate-size", "10K", "--rotate-keep", "2"])?;
        let taken = recorder.folder().join("evidence.zst.1");
        trap.lay(&taken)?;
        // None while the next one is being begun.
        let inode = || fs::metadata(recorder.file()).ok().map(|file| file.ino());
        let mut rotated = 0;
        for _ in 0..4 {
            let before = inode();
            nginx.client().storm("/refused/", 400, 4)?;
            wait::until_true("the next file", || Ok(inode().is_some_and(|now| Some(now) != before)))?;
            rotated += 1;
        }
        ensure!(rotated == 4);
        let recorded = recorder.stop()?;
        recorded.is_orderly()?;
        trap.is_as_it_was(&taken)?;
        // The two older ones, the last one, the trap and its victim.
        ensure!(recorded.files()?.len() == 5, "{:?}", recorded.files()?);
        let own: Vec<PathBuf> =
            recorded.files()?.into_iter().filter(|path| *path != taken && *path != victim(&taken)).collect();
        let own: Vec<&Path> = own.iter().map(AsRef::as_ref).collect();
        let said = report(&own)?;
        ensure!(!said.verdicts.is_empty() && said.stderr.is_empty(), "{said:#?}");
    }
    Ok(())
}

#[test]
fn what_takes_the_files_own_name_away_is_not_overwritten_and_the_disk_is_not_filled() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    let recorder = Recorder::start(&["-p", &pid, "--rotate-size", "10K", "--rotate-keep", "1"])?;
    let aside = recorder.folder().join("aside.zst");
    fs::rename(recorder.file(), &aside)?;
    fs::create_dir(recorder.file())?;
    wait::until_true("a rotation that cannot be", || {
        nginx.client().storm("/refused/", 200, 4)?;
        Ok(recorder.complaints().contains("the next file cannot be begun"))
    })?;
    wait::until_true("its end", || {
        nginx.client().storm("/refused/", 200, 4)?;
        Ok(recorder.complaints().contains("twice as large"))
    })?;
    let size = fs::metadata(&aside)?.len();
    nginx.client().storm("/refused/", 400, 4)?;
    fs::remove_dir(recorder.file())?;
    recorder.wait_to_say("is written again")?;
    let grown = fs::metadata(&aside)?.len();
    ensure!(grown == size, "{size} bytes became {grown}");
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    // What was written again says what is missing; it may have been followed by another file since.
    let own: Vec<PathBuf> = recorded.files()?.into_iter().filter(|path| *path != aside).collect();
    let own: Vec<&Path> = own.iter().map(AsRef::as_ref).collect();
    let said = report(&own)?;
    ensure!(said.summary["lost"].as_u64().is_some_and(|lost| lost > 0), "{}", said.summary);
    Ok(())
}
