//! What `why502 report` makes of an incident: text, and a page that a real browser shows.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::browser::{self, Look};
use rig::recorder::{Recorded, Recorder, report};
use rig::tracer::{Run, run};
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, duckdb, process};

const READ: Duration = Duration::from_millis(1_500);
/// Shorter than the second after which a SYN is sent again.
const CONNECT: Duration = Duration::from_millis(700);

/// Workers that are too slow, so that requests wait behind them and further ones find the queue full; one that is killed; and
/// a pool that nobody has started.
fn incident() -> Result<Recorded> {
    let namespace = Namespace::new()?;
    let busy = Fpm::on(&namespace).workers(2).backlog(4).start()?;
    let plain = Fpm::on(&namespace).listen(Endpoint::v4(9002)).start()?;
    let nginx = Nginx::on(&namespace)
        .workers(2)
        .location(Location::fpm("/shop/", &busy).read_timeout(READ).connect_timeout(CONNECT))
        .location(Location::fpm("/blog/", &plain))
        .location(Location::fastcgi("/old/", &Endpoint::v4(9009)))
        .start()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string()])?;
    let client = nginx.client();
    ensure!(client.storm("/shop/ok.php", 50, 2)? == [(200, 50)].into());
    for _ in 0..3 {
        let slow = (0..2).map(|_| client.ask("/shop/sleep.php?s=2")).collect::<Result<Vec<_>>>()?;
        let queued = (0..9).map(|_| client.ask("/shop/ok.php")).collect::<Result<Vec<_>>>()?;
        for one in slow.into_iter().chain(queued) {
            ensure!([200, 504].contains(&one.answer()?.status));
        }
    }
    let asked = client.ask("/blog/sleep.php?s=20&tag=killed")?;
    process::send(plain.worker_on("killed")?, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    for _ in 0..4 {
        ensure!(client.get("/old/")?.status == 502);
    }
    let failures = nginx.failures().len();
    recorder.wait_for(failures)?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    ensure!(failures > 10, "{failures}");
    Ok(recorded)
}

fn page_of(recorded: &Recorded) -> Result<(PathBuf, Vec<String>)> {
    let page = recorded.folder().join("page.html");
    let (file, out) = (recorded.file(), page.clone());
    let arguments = ["report", file.to_str().context("UTF-8")?, "--html", out.to_str().context("UTF-8")?];
    let Run { stdout, stderr, status } = run(&arguments)?;
    ensure!(status.success() && stderr.is_empty(), "{status}: {stderr}");
    Ok((page, stdout))
}

#[test]
fn an_incident_is_reported_as_a_text_and_as_a_page() -> Result<()> {
    let recorded = incident()?;
    let said = report(&[&recorded.file()])?;
    let count = |name: &str| said.verdicts.iter().filter(|verdict| verdict.name() == name).count();
    let (page, text) = page_of(&recorded)?;
    // Where a picture of it is wanted.
    if let Some(folder) = env::var_os("WHY502_PICTURES") {
        let folder = Path::new(&folder);
        fs::copy(recorded.file(), folder.join("incident.zst"))?;
        for (name, size, dark) in
            [("light", (1200, 1500), false), ("dark", (1200, 1500), true), ("phone", (500, 1600), false)]
        {
            browser::picture(&page, Look { size, dark }, &folder.join(format!("{name}.png")))?;
        }
    }

    let text = text.join("\n");
    for name in ["read_timeout/slow_worker", "reset/worker_killed", "refused/no_listener"] {
        ensure!(count(name) > 0, "{name}: {:#?}", said.summary);
        let line = text.lines().find(|line| line.contains(name) && !line.contains("after"));
        let line = line.with_context(|| format!("{name} is not in {text}"))?;
        ensure!(line.trim_start().starts_with(&format!("{} ", count(name))), "{line}");
    }
    ensure!(text.contains("The worker pool on 127.0.0.1:9000") && text.contains("The first one"), "{text}");
    ensure!(text.contains(&format!("{} of them failed", said.verdicts.len())), "{text}");

    let html = fs::read_to_string(&page)?;
    for link in ["http://", "https://", "src=", "@import", "url("] {
        ensure!(!html.contains(link), "{link} in the page");
    }
    let wide = Look { size: (1200, 900), dark: false };
    let script = "
        const rows = [...document.querySelectorAll('#rows details')];
        const visible = () => rows.filter(row => !row.hidden && row.offsetHeight > 0).length;
        const all = visible();
        const filter = document.getElementById('filter');
        filter.value = 'sigkill';
        filter.dispatchEvent(new Event('input'));
        const filtered = visible();
        filter.value = '';
        filter.dispatchEvent(new Event('input'));
        const chip = [...document.querySelectorAll('.legend button')].find(chip => chip.dataset.cause === 'refused');
        chip.click();
        const without = visible();
        chip.click();
        document.querySelector('[data-by=took]').click();
        document.querySelector('[data-by=took]').click();
        const took = [...document.querySelectorAll('#rows details')].map(row => Number(row.dataset.took));
        rows[0].open = true;
        const facts = rows[0].querySelectorAll('.facts li');
        return {
          all, filtered, without, took,
          facts: facts.length, shown: facts[0].offsetHeight > 0,
          bars: document.querySelectorAll('.chart i').length,
          full: document.querySelectorAll('.depths .full').length,
          deaths: document.querySelectorAll('.died').length,
          fetched: performance.getEntriesByType('resource').length,
          ground: getComputedStyle(document.body).backgroundColor,
          overflow: document.documentElement.scrollWidth > innerWidth,
        };";
    let seen = browser::ask(&page, wide, script)?;
    let is = |name: &str, expected: usize| seen[name] == expected;
    ensure!(is("all", said.verdicts.len()) && is("fetched", 0) && is("deaths", 1), "{seen}");
    ensure!(is("filtered", count("reset/worker_killed")), "{seen}");
    ensure!(is("without", said.verdicts.len() - count("refused/no_listener")), "{seen}");
    ensure!(
        seen["facts"].as_u64() > Some(2) && seen["shown"] == true && seen["bars"].as_u64() > Some(3),
        "{seen}"
    );
    let took: Vec<_> =
        seen["took"].as_array().into_iter().flatten().filter_map(|took| took.as_i64()).collect();
    ensure!(took.len() == said.verdicts.len() && took.is_sorted_by(|a, b| a >= b), "{seen}");
    ensure!(seen["overflow"] == false, "{seen}");
    let dark = browser::ask(&page, Look { dark: true, ..wide }, script)?;
    ensure!(dark["ground"] != seen["ground"], "{dark}");
    let phone = browser::ask(
        &page,
        Look { size: (500, 900), dark: false },
        "
        const narrow = document.createElement('style');
        document.documentElement.style.width = '360px';
        return { overflow: document.documentElement.scrollWidth > innerWidth, width: innerWidth };",
    )?;
    ensure!(phone["overflow"] == false, "{phone}");
    Ok(())
}

#[test]
fn duckdb_and_jq_read_evidence_as_it_is() -> Result<()> {
    let recorded = incident()?;
    let said = report(&[&recorded.file()])?;
    let file = recorded.file();
    let file = file.to_str().context("UTF-8")?;
    // As docs/recording.md shows it.
    let lines = format!("read_json('{file}', format = 'newline_delimited', compression = 'zstd')");
    let rows = duckdb::query(&format!(
        "SELECT nginx.upstream, count(*) AS ends, max(nginx.ended_ns - nginx.connect_ns) / 1e9 AS longest_s \
         FROM {lines} WHERE type = 'exchange' GROUP BY ALL ORDER BY ends DESC"
    ))?;
    ensure!(rows.len() == 3 && rows[0]["upstream"] == "127.0.0.1:9000", "{rows:?}");
    let ends: u64 = rows.iter().filter_map(|row| row["ends"].as_u64()).sum();
    ensure!(ends as usize >= said.verdicts.len(), "{ends} ends of {} failures", said.verdicts.len());
    // Identities are numbers that lose nothing.
    let rows = duckdb::query(&format!(
        "SELECT count(*) AS joined FROM {lines} a JOIN {lines} e ON a.sock = e.nginx.sock AND a.connect_ns = e.nginx.connect_ns \
         WHERE a.type = 'aftermath' AND e.type = 'exchange'"
    ))?;
    ensure!(rows[0]["joined"].as_u64() > Some(0), "{rows:?}");
    let rows = duckdb::query(&format!("SELECT max(depth) AS depth FROM {lines} WHERE type = 'depth'"))?;
    ensure!(rows[0]["depth"] == 5, "{rows:?}");

    let mut jq = process::command("/bin/sh");
    jq.args([
        "-c",
        "zstdcat \"$0\" | jq -r 'select(.type == \"exchange\") | .nginx.upstream' | sort | uniq -c",
        file,
    ]);
    let text = process::output(jq)?;
    ensure!(text.lines().count() == 3, "{text}");
    Ok(())
}
