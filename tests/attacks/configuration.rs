//! What is found through a process, by `why502 backlog --verify` and by whatever traces: a program that calls itself nginx, a configuration
//! that was made to lead elsewhere, and a status page that never ends. None of it is executed, little of it is believed, and all that is
//! left out is reported.

use std::fs;
use std::os::unix::fs::chown;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use rig::backlog::Account;
use rig::memory::MemoryLimit;
use rig::{Attacker, Backlog, Endpoint, Fpm, Location, Namespace, Nginx, Tracer, Walls, tracer};
use serde_json::Value;
use tempfile::TempDir;

const NOBODY: Option<u32> = Some(65_534);

/// A folder of nobody's.
fn folder_of_nobodys() -> Result<TempDir> {
    let folder = TempDir::with_prefix("why502-nobody-")?;
    chown(folder.path(), NOBODY, NOBODY)?;
    Ok(folder)
}

fn verify(arguments: &[&str]) -> Result<Account> {
    Backlog::start(&[arguments, &["--verify", "-d", "1s"]].concat())?.finish()
}

/// That a claim was left open, and the reason.
fn is_open(check: &Value, reasons: &[&str]) -> Result<()> {
    ensure!(check["holds"].is_null(), "{check}");
    let figures = check["figures"].as_str().context("no figures")?;
    let missing: Vec<_> = reasons.iter().filter(|reason| !figures.contains(**reason)).collect();
    ensure!(missing.is_empty(), "no {missing:?}: {check}");
    Ok(())
}

#[test]
fn what_calls_itself_nginx_is_not_executed() -> Result<()> {
    let (namespace, folder) = (Namespace::new()?, folder_of_nobodys()?);
    let path = folder.path().to_str().context("a path that is no text")?;
    let attacker = Attacker::start(&namespace, Walls::None, "configuration", &["nginx", path, "9701"])?;
    let account = verify(&[":9701"])?;
    let executed = folder.path().join("executed");
    ensure!(!executed.exists(), "it was executed as {:?}", fs::read_to_string(&executed));
    let check = account.check(&[&format!("nginx {} has the backlogs", attacker.pid())])?;
    is_open(check, &["it was not asked: it runs as user 65534, not as root"])?;
    // Nor by whoever else wants to know how it is configured.
    for arguments in [&["live", "-d", "1s", "-v"][..], &["live", "--comm", "nginx", "-d", "1s"], &["doctor"]]
    {
        let run = tracer::run(arguments)?;
        ensure!(
            !executed.exists(),
            "{arguments:?} executed it as {:?}; {}",
            fs::read_to_string(&executed),
            run.stderr
        );
    }
    Ok(())
}

#[test]
fn a_program_of_nobodys_is_not_believed_even_if_root_runs_it() -> Result<()> {
    let (namespace, folder) = (Namespace::new()?, folder_of_nobodys()?);
    let nginx = folder.path().join("nginx");
    fs::copy(env!("CARGO_BIN_EXE_attacker"), &nginx)?;
    for (owner, reason, port) in [
        (NOBODY, "its executable belongs to user 65534", "9702"),
        (Some(0), "its executable is no nginx", "9703"),
    ] {
        chown(&nginx, owner, owner)?;
        let mut command = namespace.command(&nginx);
        command.args(["kept", "configuration", "listen", port]);
        command.stdin(Stdio::piped()).stdout(Stdio::null());
        let running = namespace.start(command)?;
        namespace.wait_for_listener(&Endpoint::v4(port.parse()?))?;
        let account = verify(&[&format!(":{port}")])?;
        ensure!(!folder.path().join("executed").exists(), "it was executed");
        is_open(account.check(&[&format!("nginx {} has the backlogs", running.pid())])?, &[reason])?;
    }
    Ok(())
}

#[test]
fn a_configuration_that_leads_elsewhere_is_read_within_limits_and_nothing_leaks() -> Result<()> {
    let (namespace, folder) = (Namespace::new()?, folder_of_nobodys()?);
    let path = folder.path().to_str().context("a path that is no text")?;
    let _attacker = Attacker::start(&namespace, Walls::None, "configuration", &["traps", path])?;
    let nginx = Nginx::on(&namespace).location(Location::fixed("/")).start()?;
    let conf = nginx.error_log().with_file_name("nginx.conf");
    let own = |name: &str| conf.with_file_name(name);
    mkfifo(&own("pipe"), Mode::S_IRWXU)?;
    fs::File::create(own("sparse"))?.set_len(2 << 30)?;
    std::os::unix::fs::symlink("/dev/zero", own("zero"))?;
    fs::write(own("loop"), "include loop;\n")?;
    let traps = ["shadow", "zero", "pipe", "sparse", "*"];
    let traps: String = traps.iter().map(|name| format!("include {path}/{name};\n")).collect();
    let text = fs::read_to_string(&conf)?
        .replace("http {", "http {\n  server { listen 127.0.0.1:9704; }\n  include pipe;\n  include loop;\n");
    fs::write(&conf, format!("{text}\ninclude sparse;\ninclude zero;\n{traps}"))?;

    let backlog = Backlog::start(&[":8080", "--verify", "-d", "1s"])?;
    let limit = MemoryLimit::new(64 << 20)?;
    limit.hold(backlog.pid())?;
    let account = backlog.finish()?;
    let by = format!("nginx {}", nginx.master());
    is_open(
        account.check(&[&by, "has the backlogs that it is configured with"])?,
        &[
            "pipe is no regular file",
            "loop includes itself",
            "sparse has more than 1024 KiB",
            "user 65534, not to root",
            "more",
        ],
    )?;
    // What is said is believed; what may be said elsewhere is left open.
    ensure!(account.check(&[&by, "1000 on 127.0.0.1:8080"])?["holds"] == true);
    let silent =
        account.lines.iter().any(|line| line["claim"].as_str().is_some_and(|claim| claim.contains(":9704")));
    ensure!(!silent, "{:#?}", account.lines);
    nothing_leaks(&format!("{:?}\n{}", account.lines, account.stderr))?;

    let master = nginx.master().to_string();
    let tracer = Tracer::start(&["-p", &master, "-v"])?;
    let limit = MemoryLimit::new(64 << 20)?;
    limit.hold(tracer.pid())?;
    ensure!(nginx.client().get("/")?.status == 200);
    let account = tracer.stop()?;
    let notice = format!("nginx {master} may fail to say what fails (");
    let notice: Vec<_> = account.stderr.lines().filter(|line| line.contains(&notice)).collect();
    ensure!(notice.len() == 1 && notice[0].contains("pipe is no regular file"), "{}", account.stderr);
    nothing_leaks(&account.stderr)
}

fn nothing_leaks(said: &str) -> Result<()> {
    let secret = fs::read_to_string("/etc/shadow")?;
    let leaks = secret.lines().any(|line| said.contains(line));
    ensure!(!leaks, "a line of /etc/shadow was told");
    Ok(())
}

/// A file that configures a pool with a status page.
fn pool_file(namespace: &Namespace, port: u16) -> Result<String> {
    let file = namespace.folder("pool")?.join("www.conf");
    fs::write(
        &file,
        format!("[www]\nlisten = 127.0.0.1:{port}\nlisten.backlog = 64\npm.status_path = /status\n"),
    )?;
    Ok(file.to_str().context("a path that is no text")?.to_owned())
}

#[test]
fn an_endless_page_at_a_pools_address_is_not_asked_for_from_nobody() -> Result<()> {
    let namespace = Namespace::new()?;
    let file = pool_file(&namespace, 9705)?;
    for walls in [Walls::None, Walls::Own] {
        let attacker = Attacker::start(&namespace, walls, "configuration", &["endless", "9705"])?;
        let account = verify(&[":9705", "--fpm-pool", &file])?;
        let page = account.check(&["the status page of the pool www"])?;
        let reason = format!("attacker {} listens there: it runs as user 65534", attacker.pid());
        is_open(page, &["it was not asked", &reason])?;
        // It is in another network than ours, and nobody says that it is php-fpm.
        is_open(account.check(&["the pool www has a backlog of 64"])?, &["nobody listens there"])?;
    }
    Ok(())
}

#[test]
fn an_endless_page_is_not_read_to_its_end() -> Result<()> {
    let namespace = Namespace::new()?;
    let file = pool_file(&namespace, 9706)?;
    // Root's, and started as php-fpm is.
    let mut command = namespace.command(env!("CARGO_BIN_EXE_attacker"));
    command.args(["kept", "configuration", "endless", "9706", "-y", &file]);
    command.stdin(Stdio::piped()).stdout(Stdio::null());
    let _running = namespace.start(command)?;
    namespace.wait_for_listener(&Endpoint::v4(9706))?;
    let backlog = Backlog::start(&[":9706", "--verify", "--fpm-pool", &file, "-d", "1s"])?;
    let limit = MemoryLimit::new(64 << 20)?;
    limit.hold(backlog.pid())?;
    let account = backlog.finish()?;
    let page = account.check(&["the status page of the pool www"])?;
    is_open(page, &["the answer was larger than 64 KiB and was not read further"])
}

#[test]
fn a_listener_at_the_same_address_in_another_network_is_not_asked() -> Result<()> {
    let (namespace, other) = (Namespace::new()?, Namespace::new()?);
    let address = Endpoint::v4(9707);
    let fpm = |namespace: &Namespace, backlog| {
        Fpm::on(namespace).listen(address.clone()).backlog(backlog).pool("pm.status_path = /status").start()
    };
    let (mut ours, theirs) = (fpm(&namespace, 64)?, fpm(&other, 7)?);
    let _attacker = Attacker::start(&namespace, Walls::Own, "configuration", &["endless", "9707"])?;
    let file = ours.pool_file();
    let arguments = [":9707", "--fpm-pool", file.to_str().context("a path that is no text")?];
    let account = verify(&arguments)?;
    ensure!(account.check(&["the pool www has a backlog of 64"])?["holds"] == true);
    let page = account.check(&["the status page of the pool www"])?;
    ensure!(page["holds"] == true && page["figures"].to_string().contains("backlog is 64"), "{page}");

    // Without it nobody else is taken for it.
    ours.stop(nix::sys::signal::Signal::SIGTERM)?;
    let account = verify(&arguments)?;
    is_open(account.check(&["the pool www has a backlog of 64"])?, &["nobody listens there"])?;
    let stranger =
        format!("{} {} listens there: another file configures it", name(&theirs)?, theirs.master());
    is_open(account.check(&["the status page of the pool www"])?, &["it was not asked", &stranger])
}

fn name(fpm: &Fpm) -> Result<String> {
    let comm = fs::read_to_string(Path::new("/proc").join(fpm.master().to_string()).join("comm"))?;
    Ok(comm.trim_end().to_owned())
}
