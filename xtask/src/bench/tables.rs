//! The tables, in Markdown, which a terminal shows well, too.

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};

use super::{budget::Budget, figures::Figures, machine::Machine};

/// The cases in which throughput is compared, as the rig names them and as a person does.
pub(crate) const CASES: [(&str, &str); 5] = [
    ("fastcgi_tcp", "FastCGI over TCP"),
    ("fastcgi_unix", "FastCGI over unix sockets"),
    ("http_keepalive", "HTTP, keepalive"),
    ("unrelated", "Redis, none of nginx's"),
    ("refused", "every connection refused"),
];

/// Those in which only BPF run time is measured.
pub(crate) const BPF_CASES: [(&str, &str); 1] = [("unrelated_connects", "Redis, a connection per request")];

/// Who watches.
pub(crate) const TOOLS: [(&str, &str); 4] = [
    ("why502", "`why502 live`"),
    ("tcpdump", "`tcpdump -w`, upstream's port"),
    ("strace", "`strace -f -e trace=network`, nginx's workers"),
    ("bpftrace", "`bpftrace`, every socket's states"),
];

/// What was broken, as a question.
const FAILURES: [(&str, &str); 5] = [
    ("refused", "that nobody listened"),
    ("worker_killed", "who killed the worker"),
    ("accept_queue_overflow", "that the accept queue was full"),
    ("never_accepted", "that no worker accepted"),
    ("slow_worker", "what the slow worker waited for"),
];

/// Everything, as it stands in docs/cost.md.
pub(crate) fn all(figures: &Figures, budgets: &[Budget], machine: &Machine) -> String {
    [
        format!("On {}:", machine.shown()),
        budget_table(budgets),
        "Throughput and latency are those of the watched second over the unwatched one beside it: median (quartiles).".to_owned(),
        throughput(figures),
        "The same five failures, watched by all of them at once: is it said in one line of what the tool tells?".to_owned(),
        explained(figures),
        counted(figures),
        run_time(figures),
        "A FastCGI exchange over TCP, where there is more of everything:".to_owned(),
        growth(figures),
        "What the program itself takes, and a storm of refused connections, first as fast as nginx can:".to_owned(),
        itself(figures),
        storm(figures),
    ]
    .join("\n\n")
}

fn budget_table(budgets: &[Budget]) -> String {
    let mut table = table(&["budget", "limit", "measured", ""], 4);
    for budget in budgets {
        table.add_row([budget.name(), &budget.limit(), &budget.figure(), budget.verdict()]);
    }
    table.to_string()
}

fn throughput(figures: &Figures) -> String {
    let header = [
        "watched by",
        "load",
        "throughput",
        "p50",
        "p99",
        "unwatched, per s",
        "the tool's own CPU, % of a core",
    ];
    let mut table = table(&header, 2);
    for (tool, named) in TOOLS {
        if let Some(note) = figures.note(tool) {
            table.add_row([named, "", note]);
        }
        for (case, what) in CASES {
            let ratio =
                |measure| figures.spread(case, tool, measure).map_or(String::new(), |ratio| ratio.shown(2));
            let median = |measure| figures.spread(case, tool, measure).map(|spread| spread.median);
            if let (Some(throughput), Some(rate)) =
                (figures.spread(case, tool, "throughput_ratio"), median("unwatched_per_s"))
            {
                let cpu = median("cpu_percent").map_or(String::new(), |percent| format!("{percent:.1}"));
                let (p50, p99) = (ratio("p50_ratio"), ratio("p99_ratio"));
                table.add_row([named, what, &throughput.shown(3), &p50, &p99, &format!("{rate:.0}"), &cpu]);
            }
        }
    }
    table.to_string()
}

fn explained(figures: &Figures) -> String {
    let mut header = vec!["says"];
    header.extend(TOOLS.iter().map(|(tool, _)| *tool));
    let mut table = table(&header, header.len());
    let of = |failure: &str, tool: &str| figures.values(failure, tool, "explained").first().copied();
    for (failure, what) in FAILURES {
        let mut row = vec![what.to_owned()];
        row.extend(TOOLS.iter().map(|(tool, _)| match of(failure, tool) {
            Some(explained) if explained > 0.0 => "yes".to_owned(),
            Some(_) => "no".to_owned(),
            None => "not measured".to_owned(),
        }));
        table.add_row(row);
    }
    let mut row = vec!["explained".to_owned()];
    row.extend(TOOLS.iter().map(|(tool, _)| {
        let count: f64 = FAILURES.iter().filter_map(|(failure, _)| of(failure, tool)).sum();
        format!("{count:.0} of {}", FAILURES.len())
    }));
    table.add_row(row);
    table.to_string()
}

fn run_time(figures: &Figures) -> String {
    let header =
        ["load", "hooks run per exchange", "ns per run", "ns per exchange", "without the counting itself"];
    let mut table = table(&header, 1);
    for (case, what) in CASES.iter().chain(&BPF_CASES) {
        if let Some((runs, ns, total)) = totals(figures, case) {
            let own = figures.without_counting(case, "bpf_ns_per_exchange");
            let own = own.map_or(String::new(), |ns| format!("{ns:.0}"));
            table.add_row([what, runs.as_str(), &ns, &total, &own]);
        }
    }
    table.to_string()
}

/// What the next figures are, and what the counting adds to them.
pub(crate) fn counted(figures: &Figures) -> String {
    let floor = figures.spread("counting", "empty_program", "bpf_ns_per_run");
    let floor = floor.map_or(String::new(), |floor| {
        format!("; the counting itself is in it, with {:.0} ns of each run", floor.median)
    });
    format!("How long the BPF programs run, as the kernel counts it{floor}:")
}

/// Runs per exchange, ns per run and ns per exchange of all programs, as text.
pub(crate) fn totals(figures: &Figures, case: &str) -> Option<(String, String, String)> {
    let median = |measure| Some(figures.spread(case, "why502", measure)?.median);
    Some((
        format!("{:.2}", median("bpf_runs_per_exchange")?),
        format!("{:.0}", median("bpf_ns_per_run")?),
        format!("{:.0}", median("bpf_ns_per_exchange")?),
    ))
}

fn growth(figures: &Figures) -> String {
    let header = ["where there are", "hooks run per exchange", "ns per exchange", "times the first"];
    let mut table = table(&header, 1);
    for (stem, what) in
        [("open_connections_", "open, idle upstream connections"), ("listeners_", "listeners")]
    {
        let mut first = None;
        for case in figures.cases("bpf_ns_per_exchange") {
            let Some(count) = case.strip_prefix(stem) else { continue };
            let Some(spread) = figures.spread(case, "why502", "bpf_ns_per_exchange") else { continue };
            let times = spread.median / *first.get_or_insert(spread.median);
            // More of them than elsewhere are somebody else's events: then this machine was not quiet.
            let runs = figures.spread(case, "why502", "bpf_runs_per_exchange");
            let runs = runs.map_or(String::new(), |runs| format!("{:.2}", runs.median));
            table.add_row([format!("{count} {what}"), runs, spread.shown(0), format!("{times:.2}")]);
        }
    }
    table.to_string()
}

fn itself(figures: &Figures) -> String {
    let header = [
        "load",
        "attached in, ms",
        "resident at the start, MiB",
        "resident, MiB",
        "at its peak, MiB",
        "kernel maps, MiB",
        "lost",
    ];
    let mut table = table(&header, 1);
    for (case, what) in CASES {
        let median = |measure, decimals: usize| {
            let spread = figures.spread(case, "why502", measure)?;
            Some(format!("{:.decimals$}", spread.median))
        };
        let lost = figures.values(case, "why502", "lost").iter().sum::<f64>();
        let memory = ["start_peak_mib", "resident_mib", "peak_mib", "maps_mib"];
        if let (Some(attach), [Some(start), Some(resident), Some(peak), Some(maps)]) =
            (median("attach_ms", 0), memory.map(|measure| median(measure, 1)))
        {
            table.add_row([what, attach.as_str(), &start, &resident, &peak, &maps, &format!("{lost:.0}")]);
        }
    }
    table.to_string()
}

fn storm(figures: &Figures) -> String {
    let header = ["storm", "failures per s", "failures", "told", "lost", "why502's CPU per failure, us"];
    let mut table = table(&header, 1);
    for (case, what) in [("storm_of_nginx", "as fast as nginx can"), ("storm_paced", "paced")] {
        let one = |measure, decimals: usize| {
            let spread = figures.spread(case, "why502", measure);
            spread.map_or("not measured".to_owned(), |spread| format!("{:.decimals$}", spread.median))
        };
        let [rate, made, emitted, lost] =
            ["failures_per_s", "failures", "told", "lost"].map(|name| one(name, 0));
        table.add_row([what.to_owned(), rate, made, emitted, lost, one("cpu_us_per_failure", 1)]);
    }
    table.to_string()
}

/// An empty table; columns after the first `words` are numbers.
pub(crate) fn table(header: &[&str], words: usize) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN).set_header(header.to_vec());
    for column in table.column_iter_mut().skip(words) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    fn figures() -> Result<Figures> {
        let line = |case: &str, subject: &str, measure: &str, value: f64| {
            format!(r#"{{"case":"{case}","subject":"{subject}","measure":"{measure}","value":{value}}}"#)
        };
        let lines = [
            line("fastcgi_tcp", "why502", "throughput_ratio", 0.985),
            line("fastcgi_tcp", "why502", "p50_ratio", 1.01),
            line("fastcgi_tcp", "why502", "p99_ratio", 1.02),
            line("fastcgi_tcp", "why502", "unwatched_per_s", 17_000.0),
            line("open_connections_10", "why502", "bpf_ns_per_exchange", 1_000.0),
            line("open_connections_10000", "why502", "bpf_ns_per_exchange", 1_050.0),
            line("refused", "tcpdump", "explained", 1.0),
            line("worker_killed", "tcpdump", "explained", 0.0),
            r#"{"case":"fastcgi_tcp","subject":"bpftrace","note":"does not work here"}"#.to_owned(),
        ];
        Figures::parse(lines.iter().map(String::as_str))
    }

    fn row<'a>(table: &'a str, words: &str) -> Vec<&'a str> {
        let line = table.lines().find(|line| line.contains(words)).unwrap_or_default();
        line.trim_matches('|').split('|').map(str::trim).collect()
    }

    #[test]
    fn throughput_stands_beside_what_does_not_work() -> Result<()> {
        let table = throughput(&figures()?);
        let why502 = row(&table, "FastCGI over TCP");
        assert_eq!(why502[2..4], ["0.985 (0.985 to 0.985)", "1.01 (1.01 to 1.01)"]);
        assert_eq!(row(&table, "bpftrace")[2], "does not work here");
        Ok(())
    }

    #[test]
    fn growth_is_given_as_a_ratio_to_the_first() -> Result<()> {
        let table = growth(&figures()?);
        assert_eq!(row(&table, "10000 open")[3], "1.05");
        Ok(())
    }

    #[test]
    fn what_a_tool_explained_is_counted() -> Result<()> {
        let table = explained(&figures()?);
        assert_eq!(row(&table, "explained")[2], "1 of 5");
        assert_eq!(row(&table, "who killed")[1..3], ["not measured", "no"]);
        Ok(())
    }
}
