//! Evidence on disk: what it holds, who may read it, and what becomes of it when things go wrong.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::Signal;
use rig::reconcile::pair_off;
use rig::recorder::{self, Recorder, lines, report};
use rig::tracer::{Run, binary, run};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, process, wait};
use tempfile::TempDir;

/// An nginx whose upstream refuses.
fn refusing() -> Result<(Namespace, Nginx)> {
    let namespace = Namespace::new()?;
    let nginx =
        Nginx::on(&namespace).location(Location::fastcgi("/refused/", &Endpoint::v4(9009))).start()?;
    Ok((namespace, nginx))
}

#[test]
fn an_incident_is_on_disk_and_read_without_root() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).workers(1).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/refused/", &Endpoint::v4(9009)))
        .start()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string()])?;
    let client = nginx.client();
    ensure!(client.get("/php/ok.php")?.status == 200);
    ensure!(client.get("/refused/")?.status == 502);
    let asked = client.ask("/php/sleep.php?s=20&tag=killed")?;
    let killed = fpm.worker_on("killed")?;
    process::send(killed, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    recorder.wait_for(2)?;
    wait::until_true("a look at the accept queues", || {
        // What is complete so far; a frame may be half there.
        let mut command = process::command(process::find_program(&["zstdcat"])?);
        let said = command.arg(recorder.file()).stderr(Stdio::null()).output()?;
        Ok(String::from_utf8_lossy(&said.stdout).contains(r#""type":"depth""#))
    })?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    ensure!(fs::metadata(recorded.file())?.permissions().mode() & 0o777 == 0o600);

    let said = report(&[&recorded.file()])?;
    ensure!(said.stderr.is_empty() && said.summary["exchanges"] == 3, "{said:#?}");
    pair_off(&nginx.failures(), &said.verdicts)?;

    // Somebody without any privilege, from standard input.
    let folder = TempDir::with_prefix("why502-record-")?;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
    let copy = folder.path().join("why502");
    fs::copy(binary()?, &copy)?;
    let nobody = 65534;
    let mut command = process::command(&copy);
    command.args(["report", "-o", "json", "-"]).uid(nobody).gid(nobody).stdin(File::open(recorded.file())?);
    let text = process::output(command)?;
    ensure!(text.lines().filter(|line| line.contains(r#""type":"verdict""#)).count() == 2, "{text}");

    // No payload, no command line, no environment, and none of the kernel's addresses.
    let mut command = process::command(process::find_program(&["zstdcat"])?);
    command.stdin(File::open(recorded.file())?);
    let text = process::output(command)?;
    for secret in ["sleep.php", "tag=killed", "ffff8", "SCRIPT_FILENAME", "PATH=", "nginx: "] {
        ensure!(!text.contains(secret), "{secret} is in the evidence");
    }
    // Every number is one that a double holds.
    let largest = text.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| digits.len() > 16);
    for digits in largest {
        ensure!(text.contains(&format!("\"{digits}\"")), "{digits} is too large for a number");
    }
    let lines = lines(&recorded.file())?;
    let kinds: Vec<&str> = lines.iter().filter_map(|line| line["type"].as_str()).collect();
    for kind in ["header", "exchange", "aftermath", "counts", "upstream", "depth", "end"] {
        ensure!(kinds.contains(&kind), "no {kind} in {kinds:?}");
    }
    let header = &lines[0];
    ensure!(header["v"] == 1 && header["sysctls"]["net.core.somaxconn"].is_u64(), "{header}");
    let comms: Vec<_> =
        header["processes"].as_array().into_iter().flatten().map(|one| &one["comm"]).collect();
    ensure!(comms.iter().any(|comm| *comm == "nginx"), "{header}");
    Ok(())
}

#[test]
fn a_kill_costs_at_most_the_last_second_and_a_cut_file_is_read_up_to_the_cut() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string()])?;
    for _ in 0..3 {
        ensure!(nginx.client().get("/refused/")?.status == 502);
    }
    recorder.wait_for(3)?;
    let recorded = recorder.end(Signal::SIGKILL)?;
    let said = report(&[&recorded.file()])?;
    ensure!(said.verdicts.len() == 3 && said.stderr.contains("does not tell the end"), "{said:#?}");

    let whole = fs::read(recorded.file())?;
    let cut = recorded.folder().join("cut.zst");
    fs::write(&cut, &whole[..whole.len() - 7])?;
    let said = report(&[&cut])?;
    ensure!(said.verdicts.len() <= 3 && said.stderr.contains("cut off"), "{said:#?}");
    Ok(())
}

#[test]
fn a_file_that_is_there_is_not_overwritten_and_one_that_is_none_is_refused() -> Result<()> {
    let folder = TempDir::with_prefix("why502-record-")?;
    let path = folder.path().join("notes.txt");
    fs::write(&path, "dear diary")?;
    let path = path.to_str().context("a path that is no UTF-8")?;
    let Run { stderr, status, .. } = run(&["record", "-o", path, "-d", "1s"])?;
    ensure!(status.code() == Some(1) && stderr.contains("is there already"), "{status}: {stderr}");
    ensure!(fs::read_to_string(path)? == "dear diary");
    let Run { stdout, stderr, status } = run(&["report", path])?;
    ensure!(
        status.code() == Some(1) && stderr.contains("no evidence") && stdout.is_empty(),
        "{status}: {stderr}"
    );
    Ok(())
}

#[test]
fn a_full_disk_is_reported_once_and_recording_resumes() -> Result<()> {
    const STORM: usize = 1_000;
    let (_namespace, nginx) = refusing()?;
    let recorder = Recorder::in_surroundings(&["-p", &nginx.master().to_string()], |command, folder| {
        let folder = folder.to_owned();
        // SAFETY: system calls only, in a process that is about to become another.
        unsafe {
            command.pre_exec(move || {
                unshare(CloneFlags::CLONE_NEWNS)?;
                mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
                mount(None::<&str>, &folder, Some("tmpfs"), MsFlags::empty(), Some("size=256k"))?;
                Ok(())
            });
        }
        Ok(())
    })?;
    // The disk as the recorder sees it.
    let root = format!("/proc/{}/root", recorder.pid());
    let disk = Path::new(&root).join(recorder.folder().strip_prefix("/")?);
    let evidence = File::open(disk.join("evidence.zst"))?;
    let client = nginx.client();
    let fail = |count: usize| {
        (0..count).try_for_each(|_| {
            ensure!(client.get("/refused/")?.status == 502);
            Ok(())
        })
    };
    let empty = evidence.metadata()?.len();
    fail(2)?;
    wait::until_true("the first failures on disk", || Ok(evidence.metadata()?.len() > empty))?;
    let filler = disk.join("filler");
    let filled = File::create(&filler)?.write_all(&vec![b'x'; 1 << 20]);
    ensure!(filled.is_err_and(|error| error.raw_os_error() == Some(28)), "the disk is not full");
    // More than the rest of its last page holds.
    client.storm("/refused/", STORM, 2)?;
    recorder.wait_to_say("cannot be written")?;
    fs::remove_file(&filler)?;
    fail(1)?;
    recorder.wait_to_say("is written again")?;
    fail(2)?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    ensure!(recorded.stderr.matches("cannot be written").count() == 1, "{}", recorded.stderr);

    let copy = recorded.folder().join("copy.zst");
    let mut bytes = vec![0; usize::try_from(evidence.metadata()?.len())?];
    evidence.read_exact_at(&mut bytes, 0)?;
    fs::write(&copy, bytes)?;
    let said = report(&[&copy])?;
    ensure!(said.stderr.is_empty(), "{}", said.stderr);
    let lost = said.summary["lost"].as_u64().unwrap_or_default();
    ensure!(
        lost > 0 && said.verdicts.len() < STORM + 5 && said.verdicts.len() >= 4,
        "{} of {lost}",
        said.verdicts.len()
    );
    let lines = lines(&copy)?;
    let (counted, missed) = (recorder::lost(&lines, "unwritten"), recorded.missed(&lines)?);
    ensure!(counted > 0 && counted + missed == lost, "{counted} told, {missed} missed, {lost} lost");
    Ok(())
}

#[test]
fn files_are_rotated_and_read_together_in_any_order() -> Result<()> {
    const COUNT: usize = 3_000;
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    let recorder = Recorder::start(&["-p", &pid, "--rotate-size", "20K", "--rotate-keep", "50"])?;
    let few = Recorder::start(&["-p", &pid, "--rotate-size", "20K", "--rotate-keep", "1"])?;
    for _ in 0..3 {
        // A file that was rotated anew is as short as the one before it was.
        let state = || fs::metadata(recorder.file()).map(|file| (file.ino(), file.len()));
        let before = state()?;
        nginx.client().storm("/refused/", COUNT / 3, 4)?;
        // A frame is completed at least once a second.
        wait::until_true("the next frame", || Ok(state()? != before))?;
    }
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    let mut files = recorded.files()?;
    ensure!(files.len() > 2, "{files:?}");
    files.reverse();
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let said = report(&files)?;
    let whole: Vec<_> = files.iter().map(|file| lines(file)).collect::<Result<_>>()?;
    let missed = recorded.missed(&whole.concat())?;
    ensure!(
        said.verdicts.len() as u64 + missed >= COUNT as u64
            && said.verdicts.len() <= COUNT
            && said.summary["lost"] == missed
            && said.stderr.is_empty(),
        "{} verdicts, {missed} missed, {}; {}",
        said.verdicts.len(),
        said.summary,
        said.stderr
    );
    // One alone is read, too.
    ensure!(!report(&[&recorded.file()])?.summary.is_null());

    let recorded = few.stop()?;
    recorded.is_orderly()?;
    ensure!(recorded.files()?.len() == 2, "{:?}", recorded.files()?);
    Ok(())
}

#[test]
fn addresses_and_paths_are_replaced_consistently() -> Result<()> {
    let namespace = Namespace::new()?;
    namespace.ip("address add 10.77.0.1/24 dev lo")?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fastcgi("/refused/", &"10.77.0.1:9009".parse()?))
        .location(Location::fastcgi("/missing/", &"/run/secret-name.sock".parse()?))
        .start()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string(), "--anonymize", "--connect-errors"])?;
    for path in ["/refused/", "/missing/", "/refused/", "/missing/"] {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    recorder.wait_for(4)?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    let text: String = lines(&recorded.file())?.iter().map(|line| format!("{line}\n")).collect();
    for secret in ["10.77.0.1", "secret-name"] {
        ensure!(!text.contains(secret), "{secret} is in the evidence");
    }
    let said = report(&[&recorded.file()])?;
    let mut about: Vec<_> = said.verdicts.iter().map(|verdict| (verdict.name(), verdict.address())).collect();
    about.sort();
    about.dedup();
    ensure!(about.len() == 2 && said.verdicts.len() == 4, "{about:?}");
    ensure!(said.verdicts.iter().all(|verdict| verdict.confidence == "proven"), "{said:#?}");
    Ok(())
}

#[test]
fn the_flight_recorder_writes_what_led_to_its_trigger_and_goes_on() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let pid = nginx.master().to_string();
    let recorder = Recorder::start(&["-p", &pid, "--last", "10m", "--trigger", "failures>=3/1m"])?;
    recorder.wait_to_say("MiB")?;
    for _ in 0..2 {
        ensure!(nginx.client().get("/refused/")?.status == 502);
    }
    recorder.signal(Signal::SIGUSR1)?;
    recorder.wait_to_say("SIGUSR1")?;
    ensure!(report(&[&recorder.file()])?.verdicts.len() == 2);
    ensure!(nginx.client().get("/refused/")?.status == 502);
    recorder.wait_to_say("3 failures within 60 s")?;
    ensure!(nginx.client().get("/refused/")?.status == 502);
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    let files = recorded.files()?;
    ensure!(files.len() == 3, "{files:?}");
    let counts = files.iter().map(|file| Ok(report(&[file])?.verdicts.len())).collect::<Result<Vec<_>>>()?;
    ensure!(counts == [2, 1, 1], "{counts:?}");
    let files: Vec<&Path> = files.iter().map(AsRef::as_ref).collect();
    let said = report(&files)?;
    ensure!(
        said.verdicts.len() == 4 && said.summary["exchanges"] == 4 && said.stderr.is_empty(),
        "{said:#?}"
    );
    Ok(())
}

#[test]
fn evidence_of_a_newer_version_is_refused_with_a_sentence() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string()])?;
    let recorded = recorder.stop()?;
    let mut header = lines(&recorded.file())?.swap_remove(0);
    header["v"] = 2.into();
    let mut zstd = process::command(process::find_program(&["zstd"])?);
    let mut zstd = zstd.arg("-qc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    writeln!(zstd.stdin.take().context("a pipe")?, "{header}")?;
    let mut bytes = Vec::new();
    zstd.stdout.take().context("a pipe")?.read_to_end(&mut bytes)?;
    ensure!(zstd.wait()?.success());
    let newer = recorded.folder().join("newer.zst");
    fs::write(&newer, bytes)?;
    let Run { stdout, stderr, status } = run(&["report", newer.to_str().context("UTF-8")?])?;
    ensure!(status.code() == Some(1) && stdout.is_empty(), "{status}");
    ensure!(stderr.contains("version 2") && stderr.contains("use a newer why502"), "{stderr}");
    Ok(())
}

/// Twenty thousand failures a second for ten seconds, each in a real socket: more than this nginx could make.
#[test]
fn a_storm_is_recorded_to_the_unit_in_little_memory() -> Result<()> {
    const SECONDS: usize = 10;
    const MOST_KIB: u64 = 64 << 10;
    let in_a_second = wait::load(20_000);
    let namespace = Namespace::new()?;
    let recorder = Recorder::start(&["--comm", "stormer", "-u", "127.0.0.1:9009"])?;
    let pid = recorder.pid();
    // From here on: what a start takes to read the kernel's types has been given back.
    fs::write(format!("/proc/{pid}/clear_refs"), "5")?;
    let made = namespace.run(|| {
        let storm = std::thread::Builder::new().name("stormer".to_owned());
        let storm = storm.spawn(move || -> Result<usize> {
            let start = std::time::Instant::now();
            let mut made = 0;
            for tick in 1..=SECONDS * 100 {
                for _ in 0..in_a_second / 100 {
                    let refused = std::net::TcpStream::connect("127.0.0.1:9009");
                    ensure!(refused.is_err(), "somebody listens there");
                    made += 1;
                }
                // Ticks that come late are not waited for: the storm lasts as long as it takes.
                let due = start + std::time::Duration::from_millis(10) * u32::try_from(tick)?;
                std::thread::sleep(due.saturating_duration_since(std::time::Instant::now()));
            }
            Ok(made)
        })?;
        storm.join().map_err(|_| anyhow::anyhow!("the storm panicked"))?
    })?;
    ensure!(made == SECONDS * (in_a_second / 100 * 100));
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    let peak: u64 = peak.split_whitespace().next().context("no figure")?.parse()?;
    ensure!(peak < MOST_KIB, "the recorder took {peak} KiB");
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    let lines = lines(&recorded.file())?;
    let ends = lines.iter().filter(|line| line["type"] == "exchange").count();
    let missed = recorded.missed(&lines)?;
    let lost = recorder::lost(&lines, "ring_full") + missed;
    let counted = lines.iter().rfind(|line| line["type"] == "counts").context("nothing was counted")?;
    let exchanges = counted["exchanges"].as_u64().context("exchanges")?;
    ensure!(
        exchanges <= made as u64 && exchanges + missed >= made as u64,
        "{counted}, {missed} missed, but {made} were made"
    );
    // A failure is one record, or two with what follows it.
    let aftermaths = lines.iter().filter(|line| line["type"] == "aftermath").count();
    ensure!(
        ends <= made && (ends + aftermaths) as u64 + lost >= made as u64,
        "{ends} ends, {lost} lost, {made} made"
    );
    if lost == 0 {
        ensure!(ends == made, "{ends} of {made}, and nothing was lost");
    }
    eprintln!("{ends} of {made} failures recorded, {lost} records lost, {peak} KiB");
    Ok(())
}

#[test]
fn a_file_that_is_made_to_be_large_is_refused_in_little_memory() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let recorded = Recorder::start(&["-p", &nginx.master().to_string()])?.stop()?;
    let bomb = recorded.folder().join("bomb.zst");
    let mut command = process::command("/bin/sh");
    let script = "cat \"$0\" > \"$1\" && head -c \"$2\" /dev/zero | zstd -qc --long=27 >> \"$1\"";
    // Several times what it may take.
    let zeroes = wait::load(4 << 30).max(1 << 29).to_string();
    command.arg("-c").arg(script).arg(recorded.file()).arg(&bomb).arg(zeroes);
    process::output(command)?;
    ensure!(fs::metadata(&bomb)?.len() < 1 << 20);
    let mut command = process::command(binary()?);
    command.args(["report", "-o", "json"]).arg(&bomb);
    // SAFETY: one system call, in a process that is about to become another.
    unsafe {
        command.pre_exec(|| {
            let limit = 256 << 20;
            Ok(nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_AS, limit, limit)?)
        });
    }
    let output = command.output()?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    ensure!(!stderr.contains("panicked") && !stderr.contains("memory allocation"), "{stderr}");
    ensure!(
        output.status.code() == Some(1) && stderr.contains("this is refused"),
        "{}: {stderr}",
        output.status
    );
    Ok(())
}
