//! What docs/fleet.md says of many hosts: its queries on the evidence of two, by the engines of DuckDB and ClickHouse.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use rig::recorder::{Recorder, report};
use rig::tracer::run;
use rig::{Endpoint, Fpm, Location, Namespace, Nginx, clickhouse, duckdb, process};
use serde_json::Value;
use tempfile::TempDir;

/// One host of the fleet: a worker of its pool is killed, and some connections are refused. Leaves its evidence in `folder`.
fn host(folder: &Path, name: &str, refused: usize) -> Result<()> {
    let namespace = Namespace::new()?;
    let pool = Fpm::on(&namespace).start()?;
    let nginx = Nginx::on(&namespace)
        .location(Location::fpm("/", &pool))
        .location(Location::http("/nobody/", &Endpoint::v4(9009)))
        .start()?;
    let recorder = Recorder::start(&["-p", &nginx.master().to_string()])?;
    let client = nginx.client();
    let asked = client.ask("/sleep.php?s=20&tag=killed")?;
    process::send(pool.worker_on("killed")?, Signal::SIGKILL)?;
    ensure!(asked.answer()?.status == 502);
    ensure!(client.storm("/nobody/", refused, 1)? == [(502, refused)].into());
    recorder.wait_for(1 + refused)?;
    let recorded = recorder.stop()?;
    recorded.is_orderly()?;
    ensure!(report(&[&recorded.file()])?.verdicts.len() == 1 + refused);
    let file = folder.join(name).with_extension("zst");
    fs::copy(recorded.file(), &file)?;
    let lines = run(&["report", "-o", "json", file.to_str().context("UTF-8")?])?;
    ensure!(lines.status.success(), "{}", lines.stderr);
    fs::write(file.with_extension("jsonl"), lines.stdout.join("\n") + "\n")?;
    Ok(())
}

/// The statements of the page, in order: those for DuckDB, and those for ClickHouse.
fn statements() -> Result<(Vec<String>, Vec<String>)> {
    let page = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/fleet.md"))?;
    let (before, after) = page.split_once("\n## ClickHouse\n").context("a section about ClickHouse")?;
    let of = |text: &str| -> Vec<String> {
        let blocks = text.split("```sql\n").skip(1).filter_map(|rest| rest.split_once("\n```"));
        blocks
            .flat_map(|(block, _)| block.split(";\n").map(|one| one.trim_end_matches(';').to_owned()))
            .collect()
    };
    Ok((of(before), of(after)))
}

#[test]
fn verdicts_and_evidence_of_several_hosts_are_read_with_sql() -> Result<()> {
    let folder = TempDir::with_prefix("why502-fleet-")?;
    host(folder.path(), "web1", 3)?;
    host(folder.path(), "web2", 2)?;
    let (duck, click) = statements()?;
    ensure!(duck.len() == 1 && click.len() == 5, "{duck:?} {click:?}");

    let files = folder.path().join("*.zst");
    let rows = duckdb::query(&duck[0].replace("*.zst", files.to_str().context("UTF-8")?))?;
    let ends = |rows: &[Value], host: &str, upstream: &str| {
        let row = rows.iter().find(|row| row["host"] == host && row["upstream"] == upstream)?;
        row["ends"].as_u64()
    };
    let refused = "127.0.0.1:9009";
    ensure!(
        ends(&rows, "web1.zst", refused) == Some(3) && ends(&rows, "web2.zst", refused) == Some(2),
        "{rows:?}"
    );

    let answers = clickhouse::run(folder.path(), &click)?;
    let [_, _, failures, killed, evidence] = &answers[..] else { anyhow::bail!("{answers:?}") };
    let shown: Vec<_> =
        failures.iter().map(|row| [&row["failure"], &row["failures"], &row["hosts"]]).collect();
    ensure!(
        shown
            == [
                [&"refused/no_listener".into(), &5.into(), &2.into()],
                [&"reset/worker_killed".into(), &2.into(), &2.into()]
            ] as [[&Value; 3]; 2],
        "{failures:?}"
    );
    for (row, host) in killed.iter().zip(["web1.jsonl", "web2.jsonl"]) {
        ensure!(row["host"] == host && row["signal"] == "SIGKILL" && row["killed"] == 1, "{killed:?}");
        ensure!(row["killer"].as_str().is_some_and(|name| !name.is_empty()), "{killed:?}");
    }
    ensure!(killed.len() == 2, "{killed:?}");
    ensure!(
        ends(evidence, "web1.zst", refused) == Some(3) && ends(evidence, "web2.zst", refused) == Some(2),
        "{evidence:?}"
    );
    Ok(())
}
