//! `why502 serve --otlp`: verdicts and metrics at a collector of OpenTelemetry, which may refuse, hang, or be away.

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::collector::{Answer, LogRecord, attributes};
use rig::refusing::{fail, refusing};
use rig::service::{Service, verdicts};
use rig::tracer::{Run, run};
use rig::{Collector, Endpoint, Fpm, Location, Namespace, Nginx, process};
use serde_json::Value;

/// A service for one nginx that sends to a collector; and its lines go to a file.
fn serve(nginx: &Nginx, url: &str, more: &[&str]) -> Result<Service> {
    let folder = Service::folder()?;
    let json = folder.path().join("verdicts.json").display().to_string();
    let pid = nginx.master().to_string();
    Service::start(folder, &[&["-p", &pid, "--otlp", url, "--json-path", &json], more].concat())
}

/// The URL of a port at which nobody listens yet, and the port.
fn nobody() -> Result<(String, u16)> {
    let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    Ok((format!("http://127.0.0.1:{port}"), port))
}

/// Checks that the collector has each verdict of the file once, and no other.
fn each_once(records: &[LogRecord], service_folder: &std::path::Path) -> Result<()> {
    let verdicts = verdicts(&service_folder.join("verdicts.json"))?;
    let mut sent: Vec<_> = records
        .iter()
        .map(|record| {
            let of = |name: &str| record.attributes.get(name).cloned().unwrap_or_default();
            (record.body.clone(), of("error.type"), of("network.local.port"))
        })
        .collect();
    let mut emitted: Vec<_> = verdicts
        .iter()
        .map(|verdict| {
            let port = verdict.nginx.local.as_deref().and_then(|local| local.rsplit_once(':'));
            let port = port.map_or(String::new(), |(_, port)| port.to_owned());
            (verdict.explanation.clone(), verdict.name(), port)
        })
        .collect();
    sent.sort();
    emitted.sort();
    ensure!(sent == emitted, "{sent:#?}, but {emitted:#?}");
    Ok(())
}

#[test]
fn each_verdict_arrives_once_with_its_attributes_and_metrics_equal_the_verdicts() -> Result<()> {
    let namespace = Namespace::new()?;
    let fpm = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/php/", &fpm))
        .location(Location::fastcgi("/none/", &Endpoint::v4(9009)))
        .location(Location::fpm("/slow/", &fpm).read_timeout(Duration::from_secs(1)))
        .start()?;
    let collector = Collector::start(0, &[])?;
    let service = serve(&nginx, &collector.url(), &["--otlp-interval", "1s"])?;
    let client = nginx.client();
    fail(&client, 5)?;
    ensure!(client.get("/php/ok.php")?.status == 200);
    let asked = client.ask("/php/sleep.php?s=20&tag=killed")?;
    let worker = fpm.worker_on("killed")?;
    process::send(worker, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    ensure!(client.get("/slow/sleep.php?s=3&tag=slow")?.status == 504);
    let asked = client.ask("/php/sleep.php?s=3&tag=left")?;
    fpm.worker_on("left")?;
    asked.abort()?;
    service.wait_for("why502_failures_total", &[], 8.0)?;
    collector.wait_for(8)?;
    let ended = service.stop()?;
    ensure!(ended.stderr.contains("8 verdicts went to the collector"), "{}", ended.stderr);
    ensure!(ended.stderr.contains(", 0 did not"), "{}", ended.stderr);

    let records = collector.records()?;
    each_once(&records, ended.folder.path())?;
    let find = |name: &str| {
        let found = records.iter().find(|record| record.attributes["error.type"].starts_with(name));
        found.with_context(|| format!("no {name}: {records:#?}"))
    };
    let killed = find("reset/worker_killed")?;
    let upstream = fpm.endpoint().to_string();
    let (address, port) = upstream.rsplit_once(':').context("an address")?;
    for (name, value) in [
        ("http.response.status_code", "502"),
        ("server.address", address),
        ("server.port", port),
        ("network.transport", "tcp"),
        ("why502.worker.pid", &worker.to_string()),
        ("why502.worker.signal", "SIGKILL"),
        ("why502.confidence", "proven"),
        ("process.executable.name", "nginx"),
    ] {
        ensure!(killed.attributes.get(name).is_some_and(|own| own == value), "{name}: {killed:#?}");
    }
    let pid = killed.attributes["process.pid"].parse()?;
    ensure!(process::children(nginx.master())?.contains(&pid), "{killed:#?}");
    ensure!(
        killed.whole["severityText"] == "ERROR" && killed.whole["severityNumber"] == "SEVERITY_NUMBER_ERROR"
    );
    ensure!(killed.whole["eventName"] == "why502.verdict", "{killed:#?}");
    ensure!(find("client_abort/")?.whole["severityText"] == "INFO");
    let ns = |record: &LogRecord, name: &str| -> Result<u64> {
        Ok(record.whole[name].as_str().with_context(|| format!("{record:?}"))?.parse()?)
    };
    for record in &records {
        ensure!(ns(record, "timeUnixNano")? <= ns(record, "observedTimeUnixNano")?, "{record:#?}");
    }
    for path in ["/v1/logs", "/v1/metrics"] {
        let request = collector.requests(path)?.pop().context("a request")?;
        let message = request["message"]
            .as_object()
            .and_then(|message| message.values().next())
            .context("a message")?;
        let resource = attributes(&message[0]["resource"]["attributes"])?;
        ensure!(resource["service.name"] == "why502" && !resource["host.name"].is_empty(), "{resource:?}");
        ensure!(!resource["service.version"].is_empty(), "{resource:?}");
    }
    metrics_equal(&collector, ended.folder.path())
}

/// Checks the last metrics, which were sent when the service ended, against the file of verdicts.
fn metrics_equal(collector: &Collector, folder: &std::path::Path) -> Result<()> {
    let mut emitted = BTreeMap::<_, u64>::new();
    for verdict in verdicts(&folder.join("verdicts.json"))? {
        *emitted.entry((verdict.name(), verdict.confidence.clone())).or_default() += 1;
    }
    let whole = |point: &Value| -> Result<u64> {
        Ok(point["asInt"].as_str().with_context(|| point.to_string())?.parse()?)
    };
    let mut counted = BTreeMap::<_, u64>::new();
    for (labels, point) in collector.metric("why502_failures_total")? {
        let key = (format!("{}/{}", labels["cause"], labels["detail"]), labels["confidence"].clone());
        *counted.entry(key).or_default() += whole(&point)?;
    }
    ensure!(emitted == counted, "{emitted:#?}, but {counted:#?}");
    let failures: u64 = emitted.values().sum();
    let times = collector.metric("why502_failure_seconds")?;
    let all =
        times.iter().map(|(_, point)| Ok(point["count"].as_str().context("a count")?.parse::<u64>()?));
    ensure!(all.sum::<Result<u64>>()? == failures, "{times:#?}");
    let exchanges = collector.metric("why502_exchanges_total")?;
    ensure!(
        exchanges.iter().map(|(_, point)| whole(point)).sum::<Result<u64>>()? == failures + 1,
        "{exchanges:#?}"
    );
    let dropped = collector.metric("why502_verdicts_dropped_total")?;
    ensure!(dropped.len() == 3, "{dropped:#?}");
    for (labels, point) in &dropped {
        // A zero is left out of JSON, or not.
        ensure!(labels["sink"] == "otlp" && whole(point).unwrap_or(0) == 0, "{dropped:#?}");
    }
    Ok(())
}

#[test]
fn what_waits_for_a_collector_that_is_away_arrives_when_it_comes() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let (url, port) = nobody()?;
    let service = serve(&nginx, &url, &[])?;
    fail(&nginx.client(), 5)?;
    // Tracing, lines and metrics go on meanwhile.
    service.wait_to_say("takes no verdicts: it cannot be reached", 1)?;
    fail(&nginx.client(), 5)?;
    service.wait_for("why502_failures_total", &[], 10.0)?;
    let collector = Collector::start(port, &[])?;
    collector.wait_for(10)?;
    service.wait_to_say("takes verdicts again; 0 are missing there", 1)?;
    let ended = service.stop()?;
    each_once(&collector.records()?, ended.folder.path())
}

#[test]
fn what_does_not_fit_in_the_queue_is_counted_and_is_what_is_missing() -> Result<()> {
    const FAILURES: usize = 40;
    let (_namespace, nginx) = refusing()?;
    let (url, port) = nobody()?;
    let service = serve(&nginx, &url, &["--otlp-queue", "5"])?;
    fail(&nginx.client(), FAILURES)?;
    service.wait_for("why502_failures_total", &[], FAILURES as f64)?;
    let full = [("sink", "otlp"), ("reason", "queue_full")];
    let dropped = service.sum("why502_verdicts_dropped_total", &full)? as usize;
    // Five wait, and at most five are on their way.
    ensure!((FAILURES - 10..FAILURES - 4).contains(&dropped), "{dropped}");
    let collector = Collector::start(port, &[])?;
    collector.wait_for(FAILURES - dropped)?;
    let ended = service.stop()?;
    ensure!(collector.records()?.len() == FAILURES - dropped);
    let (came, missing) = (FAILURES - dropped, format!(", {dropped} did not"));
    ensure!(ended.stderr.contains(&format!("{came} verdicts went to the collector")), "{}", ended.stderr);
    ensure!(ended.stderr.contains(&missing), "{}", ended.stderr);
    Ok(())
}

#[test]
fn what_the_collector_refuses_is_lost_and_what_it_postpones_is_not() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let answers = [Answer::Status(400), Answer::After(503, 2), Answer::Status(429)];
    let collector = Collector::start(0, &answers)?;
    let service = serve(&nginx, &collector.url(), &[])?;
    fail(&nginx.client(), 1)?;
    service.wait_to_say("refuses verdicts: it answered 400 Bad Request", 1)?;
    let refused = [("sink", "otlp"), ("reason", "refused")];
    service.wait_for("why502_verdicts_dropped_total", &refused, 1.0)?;
    fail(&nginx.client(), 1)?;
    let records = collector.wait_for(1)?;
    let requests = collector.requests("/v1/logs")?;
    let statuses: Vec<_> = requests.iter().map(|request| request["status"].as_u64()).collect();
    ensure!(statuses == [Some(400), Some(503), Some(429), Some(200)], "{statuses:?}");
    // It was left alone for as long as it asked; and the second verdict alone came, each time the same.
    let at = |number: usize| requests[number]["at"].as_f64().context("a moment");
    ensure!(at(2)? - at(1)? >= 2.0, "{requests:#?}");
    ensure!(requests[1]["message"] == requests[3]["message"] && records.len() == 1, "{requests:#?}");
    let ended = service.stop()?;
    ensure!(ended.stderr.contains("1 verdict went to the collector"), "{}", ended.stderr);
    ensure!(ended.stderr.contains(", 1 did not"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn a_collector_that_hangs_holds_up_neither_the_tracing_nor_the_end() -> Result<()> {
    let (_namespace, nginx) = refusing()?;
    let collector = Collector::start(0, &[Answer::Never, Answer::Status(200), Answer::Never])?;
    let service = serve(&nginx, &collector.url(), &[])?;
    fail(&nginx.client(), 1)?;
    collector.wait_for_requests(1)?;
    fail(&nginx.client(), 2)?;
    service.wait_for("why502_failures_total", &[], 3.0)?;
    service.wait_to_say("takes no verdicts: it has not answered within 10 s", 1)?;
    collector.wait_for(1)?;
    // The others are on their way when the run ends.
    collector.wait_for_requests(3)?;
    let ended = service.stop()?;
    ensure!(ended.stderr.contains("did not answer before the end"), "{}", ended.stderr);
    ensure!(ended.stderr.contains("1 verdict went to the collector"), "{}", ended.stderr);
    ensure!(ended.stderr.contains(", 2 did not"), "{}", ended.stderr);
    Ok(())
}

#[test]
fn tls_is_refused_with_what_to_do() -> Result<()> {
    let Run { stderr, status, .. } = run(&["serve", "--otlp", "https://collector.example:4318"])?;
    ensure!(
        status.code() == Some(2) && stderr.contains("run a collector or an agent on this host"),
        "{stderr}"
    );
    Ok(())
}
