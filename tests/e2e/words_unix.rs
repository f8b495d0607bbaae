//! Unix upstreams that nobody named with `-u`: watched from their first exchange on, also where only system calls show them (issue 19).

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::error_log;
use rig::nginx::Program;
use rig::process::{self, find_program};
use rig::reconcile::pair_off_words;
use rig::{Client, Endpoint, Fpm, Location, Namespace, Nginx, Sight, Tracer, When, wait};

const IN_USE: &str = "unix-socket upstreams are in use";

fn socket(namespace: &Namespace, name: &str) -> Endpoint {
    Endpoint::Unix(namespace.scratch().join(name))
}

/// Whether system calls must be watched for unix sockets to be seen.
fn is_on_demand() -> Result<bool> {
    Ok(*Sight::here()?.when("unix_sockets")? == When::OnDemand)
}

/// Waits until unix sockets are watched, for a reason, if that takes system calls.
fn wait_until_watched(tracer: &Tracer, reason: &str) -> Result<()> {
    let said = format!("{IN_USE}, {reason}");
    if is_on_demand()? {
        wait::until_true("unix sockets to be watched", || Ok(tracer.complaints().contains(&said)))?;
    }
    Ok(())
}

/// A copy of nginx under a name of its own, and that name: whoever traces all that are called so traces no other nginx on this host, whose
/// unix upstreams would be watched and reported instead.
fn renamed(namespace: &Namespace) -> Result<(PathBuf, &'static str)> {
    const NAME: &str = "nginx-unix";
    let program = namespace.scratch().join(NAME);
    fs::copy(find_program(&["nginx"])?, &program)?;
    Ok((program, NAME))
}

fn configuration(nginx: &Nginx) -> PathBuf {
    nginx.error_log().with_file_name("nginx.conf")
}

#[test]
fn an_upstream_that_is_down_from_the_start_is_explained_from_the_first_request_on() -> Result<()> {
    let namespace = Namespace::new()?;
    fs::set_permissions(namespace.scratch(), Permissions::from_mode(0o755))?;
    let (missing, stale) = (socket(&namespace, "missing"), socket(&namespace, "stale"));
    drop(UnixListener::bind(namespace.scratch().join("stale"))?);
    fs::set_permissions(namespace.scratch().join("stale"), Permissions::from_mode(0o666))?;
    let private =
        Fpm::on(&namespace).listen(socket(&namespace, "private")).pool("listen.mode = 0600").start()?;
    let full = Fpm::on(&namespace).backlog(1).listen(socket(&namespace, "full")).start()?;
    full.freeze()?;
    let nginx = Nginx::on(&namespace)
        .user("nobody nogroup")
        .location(Location::fastcgi("/missing/", &missing))
        .location(Location::fastcgi("/stale/", &stale))
        .location(Location::fpm("/private/", &private))
        .location(Location::fpm("/full/", &full))
        .start()?;
    let path = namespace.scratch().join("full");
    let fillers = [UnixStream::connect(&path)?, UnixStream::connect(&path)?];
    let tracer = Tracer::of(nginx.master())?;
    let faults = [
        ("/missing/", &missing, "refused/socket_missing", "ENOENT"),
        ("/private/ok.php", private.endpoint(), "refused/permission_denied", "EACCES"),
        ("/stale/", &stale, "refused/no_listener", "ECONNREFUSED"),
        ("/full/ok.php", full.endpoint(), "accept_queue_overflow/unix_backlog_full", "EAGAIN"),
    ];
    for (path, ..) in faults {
        ensure!(nginx.client().get(path)?.status == 502);
    }
    tracer.wait_for(faults.len())?;
    let account = tracer.stop()?;
    drop(fillers);
    account.is_orderly()?;
    ensure!(account.summary["exchanges"] == faults.len(), "{}", account.summary);
    ensure!(account.summary["system_calls"] == is_on_demand()?, "{}", account.summary);
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    for (_, upstream, name, errno) in faults {
        let verdict = account.only(upstream)?;
        verdict.says(name, "proven", 502, Some(errno))?;
        verdict.blames(None, None, None)?;
    }
    let queue = account.only(full.endpoint())?.queue.clone().context("a queue")?;
    ensure!((queue.depth, queue.limit) == (Some(2), Some(1)), "{queue:?}");
    Ok(())
}

#[test]
fn each_request_that_a_restart_of_php_fpm_cuts_off_is_explained_from_the_first_on() -> Result<()> {
    const REQUESTS: usize = 12;
    let namespace = Namespace::new()?;
    let endpoint = socket(&namespace, "fpm");
    // Without a timeout, php-fpm's master sends SIGKILL after SIGTERM at once.
    let set_up = || {
        let workers = Fpm::on(&namespace).workers(REQUESTS).listen(endpoint.clone());
        workers.control_timeout(Duration::from_secs(10))
    };
    let mut fpm = set_up().start()?;
    let nginx = Nginx::on(&namespace).workers(2).location(Location::fpm("/php/", &fpm)).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let client = nginx.client();
    let (mut asked, mut workers) = (Vec::new(), Vec::new());
    for number in 0..REQUESTS {
        asked.push(client.ask(&format!("/php/sleep.php?s=20&tag={number}"))?);
        workers.push(fpm.worker_on(&number.to_string())?);
    }
    let master = fpm.master();
    fpm.stop(Signal::SIGTERM)?;
    for asked in asked {
        ensure!(asked.answer()?.status == 502);
    }
    let _fpm = set_up().start()?;
    tracer.wait_for(REQUESTS)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let about = account.about(&endpoint);
    ensure!(about.len() == REQUESTS, "{about:#?}");
    for verdict in about {
        verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
        let worker = workers.iter().position(|pid| verdict.worker_pid() == Some(*pid));
        let worker = workers.swap_remove(worker.with_context(|| format!("another worker: {verdict:#?}"))?);
        verdict.blames(Some(worker), Some("SIGTERM"), Some(master))?;
    }
    Ok(())
}

#[test]
fn a_timeout_is_explained_on_the_first_exchange() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let location = Location::fpm("/php/", &fpm).read_timeout(Duration::from_millis(800));
    let nginx = Nginx::on(&namespace).location(location).start()?;
    let tracer = Tracer::of(nginx.master())?;
    let asked = nginx.client().ask("/php/sleep.php?s=3&tag=slow")?;
    let worker = fpm.worker_on("slow")?;
    ensure!(asked.answer()?.status == 504);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&nginx.failures(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("read_timeout/slow_worker", "proven", 504, Some("ETIMEDOUT"))?;
    verdict.blames(Some(worker), None, None)
}

/// Kills the worker that serves the first request, and holds the verdict against nginx's line.
fn first_exchange_is_explained(
    client: &Client,
    fpm: &Fpm,
    tracer: Tracer,
    log: impl FnOnce() -> Vec<error_log::Failure>,
) -> Result<()> {
    let asked = client.ask("/php/sleep.php?s=20&tag=victim")?;
    let worker = fpm.worker_on("victim")?;
    process::send(worker, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    tracer.wait_for(1)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    pair_off_words(&log(), &account.verdicts)?;
    let verdict = account.only(fpm.endpoint())?;
    verdict.says("reset/worker_killed", "proven", 502, Some("ECONNRESET"))?;
    verdict.blames(Some(worker), Some("SIGKILL"), Some(std::process::id().cast_signed()))
}

#[test]
fn an_nginx_that_begins_later_is_explained_from_its_first_exchange_on() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let (program, name) = renamed(&namespace)?;
    let begins = || {
        let nginx = Nginx::on(&namespace).program(Program::File(program.clone()));
        nginx.location(Location::fpm("/php/", &fpm)).start()
    };
    let tracer = Tracer::start(&["--comm", name, "--no-uprobe"])?;
    let nginx = begins()?;
    wait_until_watched(&tracer, &format!("as the configuration of nginx {} says", nginx.master()))?;
    tracer.stop()?.is_orderly()?;
    drop(nginx);
    let tracer = Tracer::start(&["--comm", name])?;
    let nginx = begins()?;
    wait_until_watched(&tracer, &format!("as the configuration of nginx {} says", nginx.master()))?;
    first_exchange_is_explained(&nginx.client(), &fpm, tracer, || nginx.failures())
}

/// An nginx as a service manager starts it: what was executed ends, and its child is the master.
fn daemon(namespace: &Namespace, program: &Path, fpm: &Fpm) -> Result<PathBuf> {
    let folder = namespace.folder("daemon")?;
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .map(|kind| format!("{kind}_temp_path {};", folder.join(kind).display()))
        .concat();
    let text = format!(
        "user root; daemon on; pid nginx.pid; error_log error.log info; events {{}} http {{ {temporary} access_log off; \
         server {{ listen 127.0.0.1:8081; location /php/ {{ rewrite ^/php/(.*)$ /$1 break; fastcgi_pass {upstream}; \
         fastcgi_param SCRIPT_FILENAME {docroot}$fastcgi_script_name; fastcgi_param QUERY_STRING $query_string; \
         fastcgi_param REQUEST_METHOD $request_method; }} }} }}",
        upstream = fpm.endpoint().for_nginx(),
        docroot = fpm.docroot().display(),
    );
    fs::write(folder.join("nginx.conf"), text)?;
    let mut command = namespace.command(program);
    command.arg("-p").arg(&folder).args(["-c", "nginx.conf", "-e", "error.log"]);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let status = namespace.start(command)?.wait()?;
    ensure!(status.success(), "nginx did not become a daemon: {status}");
    Ok(folder)
}

#[test]
fn an_nginx_that_becomes_a_daemon_is_explained_from_its_first_exchange_on() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let (program, name) = renamed(&namespace)?;
    let tracer = Tracer::start(&["--comm", name])?;
    let folder = daemon(&namespace, &program, &fpm)?;
    let read = |name: &str| fs::read_to_string(Path::new(&folder).join(name)).unwrap_or_default();
    // Either of the two is looked at: what was executed may have gone by then.
    wait_until_watched(&tracer, "as the configuration of nginx ")?;
    let client = Client::new(&namespace, ([127, 0, 0, 1], 8081).into());
    first_exchange_is_explained(&client, &fpm, tracer, || error_log::parse(&read("error.log")))?;
    process::send(read("nginx.pid").trim().parse()?, Signal::SIGTERM)
}

#[test]
fn a_reload_that_brings_a_unix_upstream_is_explained_from_its_first_exchange_on() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    let before = Endpoint::v4(9009);
    let nginx = Nginx::on(&namespace).location(Location::fpm("/php/", &fpm)).start()?;
    let text = fs::read_to_string(configuration(&nginx))?;
    fs::write(configuration(&nginx), text.replace(&fpm.endpoint().for_nginx(), &before.for_nginx()))?;
    nginx.reload()?;
    let tracer = Tracer::of(nginx.master())?;
    ensure!(!tracer.complaints().contains(IN_USE), "{}", tracer.complaints());
    fs::write(configuration(&nginx), text)?;
    nginx.reload()?;
    wait_until_watched(&tracer, &format!("as the configuration of nginx {} says", nginx.master()))?;
    first_exchange_is_explained(&nginx.client(), &fpm, tracer, || nginx.failures())
}

#[test]
fn where_the_configuration_is_not_believed_an_open_connection_shows_or_the_first_use() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).listen(socket(&namespace, "fpm")).start()?;
    // It stays open until it is killed, however long a start takes.
    let patient = Location::fpm("/php/", &fpm).read_timeout(10 * wait::bound());
    let nginx = Nginx::on(&namespace).location(patient).start()?;
    fs::set_permissions(configuration(&nginx), Permissions::from_mode(0o666))?;
    let master = nginx.master().to_string();

    let tracer = Tracer::start(&["-p", &master, "-v"])?;
    if is_on_demand()? {
        let said = tracer.complaints();
        let notices: Vec<_> =
            said.lines().filter(|line| line.contains("whether nginx uses unix sockets")).collect();
        ensure!(notices.len() == 1 && notices[0].contains("nginx.conf may be written by others"), "{said}");
        ensure!(!said.contains(IN_USE), "{said}");
        ensure!(nginx.client().get("/php/ok.php")?.status == 200);
        wait::until_true("its use to be seen", || Ok(tracer.complaints().contains(&format!("{IN_USE}: "))))?;
    }
    tracer.stop()?.is_orderly()?;

    let open = nginx.client().ask("/php/sleep.php?s=1000&tag=open")?;
    let other = fpm.worker_on("open")?;
    let tracer = Tracer::of(nginx.master())?;
    let said = tracer.complaints();
    ensure!(!is_on_demand()? || said.contains(&format!("{IN_USE}, to which nginx ")), "{said}");
    first_exchange_is_explained(&nginx.client(), &fpm, tracer, || nginx.failures())?;
    process::send(other, Signal::SIGKILL)?;
    ensure!(open.answer()?.status == 502);
    Ok(())
}
