//! `why502 serve`: metrics, JSON Lines and a flight recorder, always on.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::recorder::report;
use rig::refusing::{fail, refusing};
use rig::service::{Prometheus, Service, series, verdicts};
use rig::tracer::{Run, run};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, process, wait};

/// The rules that are handed out with it.
fn rules() -> Result<std::path::PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/why502.rules.yml");
    Ok(fs::canonicalize(path)?)
}

/// The pid as an argument.
fn pid(nginx: &Nginx) -> String {
    nginx.master().to_string()
}

#[test]
fn counters_equal_the_verdicts_and_a_real_prometheus_answers_a_query() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/none/", &Endpoint::v4(9009)))
        .location(Location::fpm("/slow/", &fpm).read_timeout(Duration::from_secs(1)))
        .start()?;
    let folder = Service::folder()?;
    let json = folder.path().join("verdicts.json");
    let path = json.to_str().context("UTF-8")?.to_owned();
    let service = Service::start(folder, &["-p", &pid(&nginx), "--json-path", &path])?;
    let prometheus = Prometheus::scraping(service.metrics()?, &rules()?)?;
    // Prometheus shall see it begin.
    prometheus.wait_for("up{job=\"why502\"}", |rows| matches!(rows, [(_, 1.0)]))?;

    let client = nginx.client();
    fail(&client, 5)?;
    for _ in 0..3 {
        ensure!(client.get("/php/ok.php")?.status == 200);
    }
    let asked = client.ask("/php/sleep.php?s=20&tag=killed")?;
    process::send(fpm.worker_on("killed")?, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    ensure!(client.get("/slow/sleep.php?s=3&tag=slow")?.status == 504);
    let asked = client.ask("/php/sleep.php?s=3&tag=left")?;
    fpm.worker_on("left")?;
    asked.abort()?;

    service.wait_for("why502_failures_total", &[], 8.0)?;
    service.wait_for("why502_exchanges_total", &[], 11.0)?;
    let mut emitted = BTreeMap::<_, f64>::new();
    for verdict in verdicts(&json)? {
        let upstream = verdict.address().context("an address")?.to_string();
        let (cause, detail) =
            verdict.name().split_once('/').map(|(a, b)| (a.to_owned(), b.to_owned())).context("a name")?;
        *emitted.entry([upstream, cause, detail, verdict.confidence.clone()]).or_default() += 1.0;
    }
    let page = service.page()?;
    let mut counted = BTreeMap::new();
    for (labels, value) in series(&page, "why502_failures_total")? {
        let of = |name: &str| labels.get(name).cloned().with_context(|| format!("no {name}: {labels:?}"));
        counted.insert([of("upstream")?, of("cause")?, of("detail")?, of("confidence")?], value);
    }
    ensure!(emitted == counted, "{emitted:#?}, but {counted:#?}");
    ensure!(service.sum("why502_failure_seconds_count", &[])? == 8.0, "{page}");
    service.wait_for("why502_client_aborts_total", &[], 1.0)?;
    let upstream = fpm.endpoint().to_string();
    let killed = [("upstream", upstream.as_str()), ("signal", "SIGKILL")];
    service.wait_for("why502_workers_killed_total", &killed, 1.0)?;
    service.wait_for("why502_exchanges_total", &[("upstream", &upstream)], 6.0)?;
    for nothing in ["why502_unexplained_total", "why502_untracked_total", "why502_json_lines_lost_total"] {
        ensure!(service.sum(nothing, &[])? == 0.0, "{page}");
    }
    // A look at accept queues comes once a second.
    wait::until_true("the pool's accept queue", || {
        Ok(!series(&service.page()?, "why502_accept_queue_limit")?.is_empty())
    })?;
    is_clean(&service.page()?)?;

    let by_cause = "sum by (cause, detail) (why502_failures_total)";
    prometheus.wait_for(by_cause, |rows| rows.iter().map(|(_, value)| value).sum::<f64>() == 8.0)?;
    let mut wanted = BTreeMap::<_, f64>::new();
    for ([_, cause, detail, _], count) in &emitted {
        *wanted.entry((cause.clone(), detail.clone())).or_default() += count;
    }
    let answered = prometheus.query(by_cause)?.into_iter();
    let answered: BTreeMap<_, _> = answered
        .map(|(labels, value)| ((labels["cause"].clone(), labels["detail"].clone()), value))
        .collect();
    ensure!(answered == wanted, "{answered:?}, not {wanted:?}");
    // The rules are evaluated, and in the format that Prometheus asked for nothing is missing.
    prometheus.wait_for("cause_detail:why502_failures:rate5m", |rows| !rows.is_empty())?;
    prometheus.wait_for("why502_build_info", |rows| matches!(rows, [(_, 1.0)]))?;
    let ended = service.stop()?;
    ensure!(ended.stderr.contains("8 failures"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn how_long_every_connection_waits_is_a_histogram_that_a_real_prometheus_takes_a_quantile_of() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).backlog(1).start()?;
    let path = Endpoint::Unix(namespace.scratch().join("fpm.sock"));
    let unix = || Fpm::on(&namespace).listen(path.clone()).start();
    let mut of_path = unix()?;
    let nginx = Nginx::on(&namespace)
        // Shorter than the second after which a dropped SYN is sent again.
        .location(Location::fpm("/php/", &fpm).connect_timeout(Duration::from_millis(700)))
        .location(Location::fpm("/unix/", &of_path))
        .start()?;
    let service = Service::start(Service::folder()?, &["-p", &pid(&nginx), "--metrics-queue-waits"])?;
    ensure!(!service.complaints().contains("not counted here"), "{}", service.complaints());
    let prometheus = Prometheus::scraping(service.metrics()?, &rules()?)?;
    let client = nginx.client();
    let count = "why502_accept_queue_wait_seconds_count";
    let (address, path) = (fpm.endpoint().to_string(), path.to_string());
    let (tcp, of_unix) = ([("listener", address.as_str())], [("listener", path.as_str())]);
    for _ in 0..3 {
        ensure!(client.get("/php/ok.php")?.status == 200);
        ensure!(client.get("/unix/ok.php")?.status == 200);
    }
    service.wait_for(count, &tcp, 3.0)?;
    service.wait_for(count, &of_unix, 3.0)?;

    // Another nginx's upstream has the same address where that one lives.
    let elsewhere = Namespace::new()?;
    let other_fpm = Fpm::on(&elsewhere).start()?;
    ensure!(other_fpm.endpoint() == fpm.endpoint(), "{} is elsewhere", other_fpm.endpoint());
    let other = Nginx::on(&elsewhere).location(Location::fpm("/php/", &other_fpm)).start()?;
    for _ in 0..10 {
        ensure!(other.client().get("/php/ok.php")?.status == 200);
    }

    // Two wait that are not nginx's, and so nginx's connection finds no room.
    fpm.freeze()?;
    let before = Instant::now();
    let fillers = namespace.fill_queue(fpm.endpoint(), 2)?;
    let queued = Instant::now();
    ensure!(client.get("/php/ok.php")?.status == 504);
    let least = queued.elapsed().as_secs_f64();
    fpm.thaw()?;
    drop(fillers);
    service.wait_for(count, &tcp, 5.0)?;
    let most = before.elapsed().as_secs_f64();
    let all = service.sum("why502_accept_queue_wait_seconds_sum", &tcp)?;
    ensure!(
        (2.0 * least..5.0 * most).contains(&all),
        "{all} s, two of at least {least} and at most {most} s"
    );
    service.wait_for("why502_accept_queue_overflows_total", &[("stage", "syn_dropped")], 1.0)?;
    let drops = [("listener", address.as_str()), ("stage", "syn")];
    ensure!(service.sum("why502_accept_queue_drops_total", &drops)? >= 1.0, "{}", service.page()?);

    let of_pool = format!("{{listener=\"{address}\"}}");
    prometheus.wait_for(&format!("{count}{of_pool}"), |rows| matches!(rows, [(_, 5.0)]))?;
    let bucket = format!("why502_accept_queue_wait_seconds_bucket{of_pool}");
    let answered = prometheus.query(&format!("histogram_quantile(1, sum by (le) ({bucket}))"))?;
    let [(_, longest)] = answered.as_slice() else { anyhow::bail!("{answered:?}") };
    // The bound above the longest wait; the one below it is half of that.
    ensure!((least..=2.0 * most).contains(longest), "{longest} s, between {least} and {most} s");
    is_clean(&service.page()?)?;

    // Another one at the same path goes on where the one before ended.
    of_path.stop(Signal::SIGQUIT)?;
    let _next = unix()?;
    ensure!(client.get("/unix/ok.php")?.status == 200);
    service.wait_for(count, &of_unix, 4.0)?;
    for reason in ["wait_pushed_out", "listener_untracked", "end_unseen"] {
        let lost = service.sum("why502_accept_queue_waits_lost_total", &[("reason", reason)])?;
        ensure!(lost == 0.0 && service.page()?.contains(reason), "{}", service.page()?);
    }
    service.stop().map(drop)
}

/// Has promtool read a page.
fn is_clean(page: &str) -> Result<()> {
    let mut promtool = process::command(process::find_program(&["promtool"])?);
    promtool.args(["check", "metrics"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut promtool = promtool.spawn()?;
    promtool.stdin.take().context("a pipe")?.write_all(page.as_bytes())?;
    let output = promtool.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    ensure!(output.status.success() && said.trim().is_empty(), "{said}\n{page}");
    Ok(())
}

#[test]
fn it_starts_before_nginx_and_outlives_it() -> Result<()> {
    // An address of this test's own, for it watches every nginx of this host.
    let [.., high, low] = std::process::id().to_be_bytes();
    let upstream: Endpoint = format!("127.201.{high}.{low}:9009").parse()?;
    let service = Service::start(Service::folder()?, &["-u", &upstream.to_string()])?;
    let namespace = Namespace::new()?;
    for round in 1..=2 {
        let nginx = Nginx::on(&namespace).location(Location::fastcgi("/none/", &upstream)).start()?;
        fail(&nginx.client(), 2)?;
        let labels = [("upstream", &*upstream.to_string()), ("detail", "no_listener")];
        service.wait_for("why502_failures_total", &labels, f64::from(2 * round))?;
        drop(nginx);
        namespace.kill_all();
    }
    service.stop()?;
    Ok(())
}

#[test]
fn sighup_takes_up_what_can_be_changed_and_says_what_cannot() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let folder = Service::folder()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (first, second, configuration) = (at("first.json"), at("second.json"), at("why502.toml"));
    fs::write(&configuration, format!("[json]\npath = \"{first}\"\n"))?;
    let service = Service::start(folder, &["-p", &pid(&nginx), "--config", &configuration])?;
    fail(&nginx.client(), 1)?;
    service.wait_for("why502_failures_total", &[], 1.0)?;

    // Somebody else has moved the file away, as logrotate does.
    fs::rename(&first, format!("{first}.old"))?;
    service.signal(Signal::SIGHUP)?;
    service.wait_to_say("the configuration was read again", 1)?;
    ensure!(fs::metadata(&first)?.len() == 0);

    fs::write(&configuration, format!("max-open = 512\n[json]\npath = \"{second}\"\n"))?;
    service.signal(Signal::SIGHUP)?;
    service.wait_to_say("1 option changed that only a new start takes up: max-open", 1)?;
    fail(&nginx.client(), 1)?;
    service.wait_for("why502_failures_total", &[], 2.0)?;
    ensure!(verdicts(Path::new(&second))?.len() == 1 && fs::metadata(&first)?.len() == 0);

    // What is wrong is said by line, and changes nothing.
    fs::write(&configuration, "max-open = 512\n[json]\npth = \"/x\"\n")?;
    service.signal(Signal::SIGHUP)?;
    service.wait_to_say(
        &format!("{configuration}:3: no option is called json.pth; the nearest: json-path"),
        1,
    )?;
    service.wait_to_say("the configuration stays as it was", 1)?;
    fail(&nginx.client(), 1)?;
    service.wait_for("why502_failures_total", &[], 3.0)?;
    ensure!(verdicts(Path::new(&second))?.len() == 2);
    service.stop()?;
    Ok(())
}

#[test]
fn a_trigger_and_sigusr1_write_the_last_minutes_and_a_hook_learns_the_files_name() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let folder = Service::folder()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let (evidence, copies, configuration) = (at("evidence"), at("copies"), at("why502.toml"));
    fs::create_dir(&copies)?;
    let text = format!(
        "[record]\nlast = \"10m\"\ntrigger = [\"failures>=3/10m\"]\ndirectory = \"{evidence}\"\nkeep = 2\n\
         hook = [\"/bin/cp\", \"--target-directory={copies}\"]\n"
    );
    fs::write(&configuration, text)?;
    let service = Service::start(folder, &["-p", &pid(&nginx), "--config", &configuration])?;
    fail(&nginx.client(), 3)?;
    service.wait_to_say("(3 failures within 600 s)", 1)?;
    let copied = || -> Result<Vec<_>> {
        let mut files = fs::read_dir(&copies)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
        files.sort();
        Ok(files)
    };
    wait::until_true("the hook to copy the file", || Ok(copied()?.len() == 1))?;
    wait::until_true("the whole copy", || {
        Ok(report(&[&copied()?[0]]).is_ok_and(|report| report.verdicts.len() == 3))
    })?;
    ensure!(fs::metadata(&evidence)?.permissions().mode() & 0o777 == 0o700);

    for round in 2..=3 {
        fail(&nginx.client(), 1)?;
        service.wait_for("why502_failures_total", &[], f64::from(2 + round))?;
        service.signal(Signal::SIGUSR1)?;
        service.wait_to_say("(SIGUSR1); watching on", usize::try_from(round)? - 1)?;
    }
    // Only the last ones are kept.
    ensure!(fs::read_dir(&evidence)?.count() == 2);
    // A stop is no incident.
    let _ended = service.stop()?;
    ensure!(fs::read_dir(&evidence)?.count() == 2);
    Ok(())
}

#[test]
fn systemd_is_notified_when_it_is_ready_that_it_turns_and_when_it_stops() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let folder = Service::folder()?;
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path)?;
    socket.set_read_timeout(Some(wait::bound()))?;
    let notified = || -> Result<String> {
        let mut buffer = [0; 512];
        let length = socket.recv(&mut buffer).context("nothing is told")?;
        Ok(String::from_utf8_lossy(&buffer[..length]).into_owned())
    };
    let until = |word: &str| wait::until_true(word, || Ok(notified()?.contains(word)));
    let service = Service::in_surroundings(folder, &["-p", &pid(&nginx)], |command| {
        command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "400000").env_remove("WATCHDOG_PID");
    })?;
    let first = notified()?;
    ensure!(first.contains("READY=1"), "{first}");
    for _ in 0..3 {
        until("WATCHDOG=1")?;
    }
    service.signal(Signal::SIGHUP)?;
    until("RELOADING=1")?;
    until("READY=1")?;
    service.signal(Signal::SIGTERM)?;
    until("STOPPING=1")?;
    service.stop().map(drop)
}

#[test]
fn scrapers_that_mean_harm_harm_nobody() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let service = Service::start(Service::folder()?, &["-p", &pid(&nginx)])?;
    let server = service.metrics()?;
    let resident = |service: &Service| service.sum("process_resident_memory_bytes", &[]);
    let before = resident(&service)?;
    let mut crowd = Vec::new();
    for number in 0..1_000 {
        let mut stream = TcpStream::connect(server)?;
        // One that was let go already takes nothing.
        match number % 3 {
            0 => drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nX: ")),
            // Asks, and never reads.
            1 => drop(stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")),
            _ => {}
        }
        crowd.push(stream);
    }
    drop(crowd.last_mut().map(|stream| stream.write_all("a".repeat(8 << 20).as_bytes())));
    fail(&nginx.client(), 20)?;
    service.wait_for("why502_failures_total", &[], 20.0)?;
    let descriptors = process::descriptors(service.pid(), 1_000_000)?;
    let after = resident(&service)?;
    ensure!(after - before < f64::from(16 << 20), "{before} and then {after} bytes");
    ensure!(descriptors < 1_000, "{descriptors} descriptors");
    drop(crowd);
    service.stop()?;
    Ok(())
}

#[test]
fn upstreams_beyond_their_number_are_counted_as_other() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut nginx = Nginx::on(&namespace);
    for port in 9001..=9005 {
        nginx = nginx.location(Location::fastcgi(&format!("/{port}/"), &Endpoint::v4(port)));
    }
    let nginx = nginx.start()?;
    let service = Service::start(Service::folder()?, &["-p", &pid(&nginx), "--metrics-upstreams", "2"])?;
    for port in 9001..=9005 {
        ensure!(nginx.client().get(&format!("/{port}/"))?.status == 502);
    }
    service.wait_for("why502_failures_total", &[("upstream", "other")], 3.0)?;
    service.wait_for("why502_failures_total", &[], 5.0)?;
    service.wait_for("why502_exchanges_total", &[("upstream", "other")], 3.0)?;
    service.stop()?;
    Ok(())
}

#[test]
fn what_is_wrong_with_a_configuration_is_said_before_anything_is_traced() -> Result<()> {
    let folder = Service::folder()?;
    let path = folder.path().join("why502.toml");
    let configuration = path.to_str().context("UTF-8")?;
    fs::write(&path, "max-open = 4096\n\n[metrics]\naddress = \"everywhere\"\n")?;
    for arguments in
        [&["serve", "--config", configuration, "--check"][..], &["serve", "--config", configuration]]
    {
        let Run { stdout, stderr, status } = run(arguments)?;
        ensure!(status.code() == Some(2) && stdout.is_empty(), "{status}: {stderr}");
        ensure!(stderr.contains(&format!("{configuration}:4: metrics.address: an address is")), "{stderr}");
    }
    fs::write(&path, "[record]\nlast = \"1m\"\nhook = [\"sh\"]\n")?;
    let Run { stderr, status, .. } = run(&["serve", "--config", configuration, "--check"])?;
    ensure!(
        status.code() == Some(2) && stderr.contains(&format!("{configuration}:3: the hook")),
        "{status}: {stderr}"
    );
    fs::write(&path, "max-open = 4096\n")?;
    let Run { stderr, status, .. } = run(&["serve", "--config", configuration, "--check"])?;
    ensure!(status.success() && stderr.contains("nothing is wrong"), "{status}: {stderr}");

    // Somebody listens there already.
    let taken = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = taken.local_addr()?.to_string();
    let Run { stderr, status, .. } = run(&["serve", "--metrics", &address])?;
    ensure!(status.code() == Some(1), "{status}: {stderr}");
    ensure!(stderr.contains(&format!("metrics cannot be served at {address}")), "{stderr}");
    Ok(())
}

#[test]
fn the_rules_and_the_unit_are_sound() -> Result<()> {
    let packaging = fs::canonicalize(Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging"))?;
    let mut promtool = process::command(process::find_program(&["promtool"])?);
    promtool.current_dir(packaging.join("prometheus")).args(["test", "rules", "why502.rules.test.yml"]);
    process::output(promtool)?;
    let mut promtool = process::command(process::find_program(&["promtool"])?);
    promtool.args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(rules()?);
    process::output(promtool)?;

    // Only what has systemd can say what a unit is worth.
    let Ok(analyze) = process::find_program(&["systemd-analyze"]) else { return Ok(()) };
    let mut command = process::command(analyze);
    // Tenths of a point: "OK" ends at 5.0, and it has 3.6.
    command.args(["security", "--offline=yes", "--threshold=40"]).arg(packaging.join("why502.service"));
    process::output(command).context("the unit lets it do more than it must").map(drop)
}
