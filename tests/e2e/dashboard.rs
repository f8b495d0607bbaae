//! packaging/grafana/why502.json: every query of the dashboard, answered by a real Prometheus that scrapes `why502 serve`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use rig::incident::Incident;
use rig::service::{Prometheus, Service};
use rig::{Namespace, wait};
use serde_json::Value;

/// What may have no series in this test: nothing is lost here, no handshake need be tried again, and not every kernel measures its programs.
const MAY_BE_ABSENT: [&str; 4] = [
    "why502_lost_records_total",
    "why502_delayed_total",
    "why502_bpf_run_seconds_total",
    "why502_verdicts_dropped_total",
];

/// What Grafana puts in for a variable, where the user has chosen all.
const VARIABLES: [(&str, &str); 5] = [
    ("$__rate_interval", "1m"),
    ("$__range", "5m"),
    ("$job", ".*"),
    ("$instance", ".*"),
    ("$upstream", ".*"),
];

/// A query of the dashboard's.
#[derive(Debug)]
struct Query {
    /// The panel or the variable that asks it.
    of: String,
    /// The query, with variables in it.
    text: String,
    /// The labels that its legend shows.
    shown: Vec<String>,
    /// Whether it may have no answer where the metrics have series.
    may_be_empty: bool,
}

fn dashboard() -> Result<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/grafana/why502.json");
    Ok(serde_json::from_str(&fs::read_to_string(path)?)?)
}

fn list<'a>(value: &'a Value, pointer: &str) -> Result<&'a Vec<Value>> {
    value.pointer(pointer).and_then(Value::as_array).with_context(|| format!("no list at {pointer}"))
}

fn text(value: &Value, name: &str) -> Result<String> {
    value[name].as_str().map(str::to_owned).with_context(|| format!("no {name} in {value:#}"))
}

/// Every query: those of panels, of annotations and of variables.
fn queries(dashboard: &Value) -> Result<Vec<Query>> {
    let mut all = Vec::new();
    for panel in list(dashboard, "/panels")?.iter().filter(|panel| panel["type"] != "row") {
        let targets = list(panel, "/targets")?;
        ensure!(!targets.is_empty(), "a panel that asks nothing: {panel:#}");
        for target in targets {
            let legend = text(target, "legendFormat")?;
            let shown = legend.split("{{").skip(1).filter_map(|rest| rest.split_once("}}"));
            let shown = shown.map(|(label, _)| label.to_owned()).collect();
            let (of, text) = (text(panel, "title")?, text(target, "expr")?);
            all.push(Query { of, text, shown, may_be_empty: false });
        }
    }
    for annotation in list(dashboard, "/annotations/list")? {
        let (of, text) = (text(annotation, "name")?, text(annotation, "expr")?);
        all.push(Query { of, text, shown: Vec::new(), may_be_empty: true });
    }
    for variable in list(dashboard, "/templating/list")?.iter().filter(|one| one["type"] == "query") {
        let asked = text(&variable["query"], "query")?;
        let inside = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        // A selector may have commas as well.
        let (selector, label) = inside.and_then(|inside| inside.rsplit_once(", ")).context(asked.clone())?;
        let text = format!("group by ({label}) ({selector})");
        all.push(Query { of: text.clone(), text, shown: vec![label.to_owned()], may_be_empty: false });
    }
    Ok(all)
}

/// With Grafana's variables put in.
fn substituted(query: &str) -> Result<String> {
    let whole = VARIABLES.iter().fold(query.to_owned(), |query, (name, value)| query.replace(name, value));
    ensure!(!whole.contains('$'), "a variable that the dashboard has not: {whole}");
    Ok(whole)
}

/// The metrics that a query names: whatever has a selector behind it, and whatever is called as ours are.
fn metrics(query: &str) -> BTreeSet<&str> {
    let mut all = BTreeSet::new();
    // Every second part is a label's value.
    for part in query.split('"').step_by(2) {
        let is_other = |character: char| !character.is_ascii_alphanumeric() && !"_:".contains(character);
        let mut rest = part;
        while let Some(start) = rest.find(|character| !is_other(character)) {
            let word = &rest[start..];
            let (name, after) = word.split_at(word.find(is_other).unwrap_or(word.len()));
            if after.starts_with('{') || name.starts_with("why502_") || name.starts_with("process_") {
                all.insert(name);
            }
            rest = after;
        }
    }
    all
}

/// The metrics on a page, and those that have a series.
fn exported(page: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut named: BTreeSet<_> = MAY_BE_ABSENT.into_iter().chain(["up"]).map(str::to_owned).collect();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap_or((line, ""));
        named.insert(name.to_owned());
        if kind == "histogram" {
            named.extend(["bucket", "sum", "count"].map(|part| format!("{name}_{part}")));
        }
    }
    let lines = page.lines().filter(|line| !line.starts_with('#'));
    let mut having: BTreeSet<_> =
        lines.filter_map(|line| line.split(['{', ' ']).next()).map(str::to_owned).collect();
    having.insert("up".to_owned());
    (named, having)
}

#[test]
fn metrics_are_found_in_a_query() {
    let query =
        r#"sum by (le, a) (rate(why502_x_bucket{job="why502_y"}[1m])) / on (job) up{} > 0 and process_z"#;
    assert_eq!(metrics(query), ["process_z", "up", "why502_x_bucket"].into());
    assert_eq!(metrics("misspelt{}"), ["misspelt"].into());
}

#[test]
fn each_query_of_the_dashboard_is_answered_by_a_real_prometheus() -> Result<()> {
    let namespace = Namespace::new()?;
    let mut incident = Incident::set(&namespace, |_| {})?;
    let master = incident.nginx().master().to_string();
    let service = Service::start(Service::folder()?, &["-p", &master, "--metrics-queue-waits"])?;
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/prometheus/why502.rules.yml");
    let prometheus = Prometheus::scraping(service.metrics()?, &fs::canonicalize(rules)?)?;
    incident.healthy()?;
    let mut failures = 0;
    for (scene, its) in Incident::SCENES {
        scene(&mut incident)?;
        failures += its;
    }
    // Prometheus sees no increase from nothing to one, so there is another one once it has seen the first.
    prometheus.wait_for(
        "sum(why502_failures_total)",
        |rows| matches!(rows, [(_, count)] if *count == failures as f64),
    )?;
    ensure!(incident.nginx().client().get("/stopped/ok.php")?.status == 502);
    prometheus.wait_for(
        "sum(increase(why502_failures_total[1m]))",
        |rows| matches!(rows, [(_, more)] if *more > 0.0),
    )?;

    let (named, having) = exported(&service.page()?);
    let absent: BTreeSet<_> = named.difference(&having).map(String::as_str).collect();
    let all = queries(&dashboard()?)?;
    ensure!(all.len() > 25, "{all:#?}");
    let mut asked = BTreeSet::new();
    for Query { of, text, shown, may_be_empty } in &all {
        let query = substituted(text)?;
        let names = metrics(&query);
        ensure!(!names.is_empty(), "{of}: no metric in {query}");
        let unknown: Vec<_> = names.iter().filter(|name| !named.contains(**name)).collect();
        ensure!(unknown.is_empty(), "{of}: nothing exports {unknown:?}");
        asked.extend(names.iter().map(|name| (*name).to_owned()));
        // Whatever it has for an answer, it takes the query.
        let rows = prometheus.query(&query).with_context(|| format!("{of}: {query}"))?;
        let here = names.iter().all(|name| having.contains(*name));
        ensure!(
            here || names.iter().any(|name| MAY_BE_ABSENT.contains(name)),
            "{of}: no series of {names:?} in {absent:?}"
        );
        if here && !may_be_empty {
            // A rate takes two scrapes of the youngest of them.
            let rows = match rows.is_empty() {
                true => wait::until(&format!("{of}: {query}"), || {
                    Ok(Some(prometheus.query(&query)?).filter(|rows| !rows.is_empty()))
                })?,
                false => rows,
            };
            for label in shown {
                ensure!(
                    rows.iter().all(|(labels, _)| labels.contains_key(label)),
                    "{of}: no {label}: {rows:?}"
                );
            }
        }
    }
    // What is exported and shown nowhere is forgotten.
    let is_shown =
        |name: &String| asked.iter().any(|one| one == name || one.strip_suffix("_bucket") == Some(name));
    let types = service.page()?;
    let families = types.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let forgotten: Vec<_> = families.filter(|name| !is_shown(&(*name).to_owned())).collect();
    ensure!(forgotten.is_empty(), "the dashboard shows nothing of {forgotten:?}");
    service.stop().map(drop)
}

#[test]
fn panels_do_not_overlap_and_each_has_a_number_of_its_own() -> Result<()> {
    let dashboard = dashboard()?;
    let mut numbers = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for panel in list(&dashboard, "/panels")? {
        ensure!(numbers.insert(panel["id"].as_u64().context("a number")?), "twice: {}", panel["id"]);
        let at =
            |name: &str| panel["gridPos"][name].as_u64().with_context(|| format!("no {name} in {panel:#}"));
        let (x, y, w, h) = (at("x")?, at("y")?, at("w")?, at("h")?);
        ensure!(x + w <= 24, "too wide: {panel:#}");
        for place in (x..x + w).flat_map(|column| (y..y + h).map(move |line| (column, line))) {
            ensure!(taken.insert(place), "{}: something is there already", panel["title"]);
        }
    }
    Ok(())
}
