//! What `why502 serve` counts of each failure, and what a Prometheus that scrapes it answers.

use std::fs;
use std::io::{Write, stdout};
use std::path::Path;

use anyhow::{Context, Result, ensure};
use comfy_table::presets::NOTHING;
use comfy_table::{CellAlignment, Table};
use rig::incident::Incident;
use rig::service::{Prometheus, Service};
use rig::{Namespace, wait};

use crate::say;

/// Which causes there were, the commonest first.
const QUERY: &str = "sort_desc(sum by (cause, detail) (why502_failures_total))";
/// How many there were.
const ALL: &str = "sum(why502_failures_total)";

/// Breaks it in every way, lets why502 count and Prometheus answer, and ends it all.
pub fn show(namespace: &Namespace) -> Result<()> {
    let (_stage, service, prometheus) = answered(namespace)?;
    say(&format!(
        "With --hold all of it stays until Ctrl-C, and a browser on this host shows the same: {}",
        prometheus.page_of(QUERY)
    ));
    drop(prometheus);
    service.stop().map(drop)
}

/// The same, but that it runs on until Ctrl-C.
pub fn show_and_hold(namespace: &Namespace) -> Result<()> {
    let (_stage, service, prometheus) = answered(namespace)?;
    say(&format!(
        "All of it stays until Ctrl-C. A browser on this host shows the same: {}",
        prometheus.page_of(QUERY)
    ));
    wait::until_given_up();
    drop(prometheus);
    service.stop().map(drop)
}

/// What was broken and the two that watched, when Prometheus has answered.
fn answered(namespace: &Namespace) -> Result<(Incident, Service, Prometheus)> {
    say("Starting nginx and php-fpm in a network namespace of their own.");
    let mut stage = Incident::set(namespace, say)?;
    let master = stage.nginx().master().to_string();
    let service = Service::start(Service::folder()?, &["-p", &master])?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/why502.rules.yml");
    let prometheus = Prometheus::scraping(service.metrics()?, &fs::canonicalize(rules)?)?;
    say(&format!(
        "why502 serve -p {master}: attached; its metrics are at http://{}/metrics, and the Prometheus at http://{} scrapes them.",
        service.metrics()?,
        prometheus.address()
    ));

    stage.healthy()?;
    let mut expected = 0.0;
    for (scene, its) in Incident::SCENES {
        scene(&mut stage)?;
        expected += f64::from(u32::try_from(its)?);
        service.wait_for("why502_failures_total", &[], expected)?;
    }
    prometheus.wait_for(ALL, |rows| matches!(rows, [(_, all)] if *all == expected))?;

    say(&format!("Prometheus is asked for the failures by cause:\n\n{QUERY}\n"));
    let rows = prometheus.query(QUERY)?;
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(["cause", "failures"]);
    for (labels, failures) in &rows {
        let label = |name: &str| labels.get(name).with_context(|| format!("no {name}: {labels:?}"));
        table.add_row([format!("{}/{}", label("cause")?, label("detail")?), failures.to_string()]);
    }
    if let Some(column) = table.column_mut(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    // A reader who has gone has no use for the rest.
    writeln!(stdout(), "{}", table.trim_fmt()).context("nobody reads the answer any more")?;
    let sum: f64 = rows.iter().map(|(_, failures)| failures).sum();
    ensure!(sum == expected, "{sum} failures are answered, and {expected} were provoked");
    Ok((stage, service, prometheus))
}
