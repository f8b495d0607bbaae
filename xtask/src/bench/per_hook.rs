//! The table of `--per-hook`.

use super::{
    figures::Figures,
    tables::{self, BPF_CASES, CASES},
};

/// Hooks that run less often for each exchange are not named: they are somebody else's events.
const RARE: f64 = 0.005;

/// Every load's hooks, the dearest first.
pub(crate) fn table(figures: &Figures) -> String {
    let mut table =
        tables::table(&["while", "hook", "runs per exchange", "ns per run", "ns per exchange"], 2);
    for (case, what) in CASES.iter().chain(&BPF_CASES) {
        let mut hooks: Vec<_> = figures
            .subjects(case, "ns_per_exchange")
            .into_iter()
            .filter_map(|hook| {
                let median = |measure| Some(figures.spread(case, hook, measure)?.median);
                Some((hook, median("runs_per_exchange")?, median("ns_per_run")?, median("ns_per_exchange")?))
            })
            .collect();
        hooks.sort_by(|one, other| other.3.total_cmp(&one.3));
        for (hook, runs, ns, total) in hooks.into_iter().filter(|hook| hook.1 >= RARE) {
            let runs = format!("{runs:.2}");
            table.add_row([*what, hook, &runs, &format!("{ns:.0}"), &format!("{total:.0}")]);
        }
        if let Some((runs, ns, total)) = tables::totals(figures, case) {
            table.add_row([what, "all, also rare ones", &runs, &ns, &total]);
        }
    }
    format!("{}\n\n{table}", tables::counted(figures))
}

#[cfg(test)]
mod tests {
    use anyhow::Result;

    use super::*;

    #[test]
    fn the_dearest_hook_comes_first_and_rare_ones_have_no_row() -> Result<()> {
        let line = |hook: &str, measure: &str, value: f64| {
            format!(r#"{{"case":"fastcgi_tcp","subject":"{hook}","measure":"{measure}","value":{value}}}"#)
        };
        let hook = |name: &str, runs: f64, ns: f64| {
            [("runs_per_exchange", runs), ("ns_per_run", ns), ("ns_per_exchange", runs * ns)]
                .map(|(measure, value)| line(name, measure, value))
        };
        let lines = [
            hook("tcp_destroy_sock", 2.0, 100.0),
            hook("inet_sock_set_state", 9.0, 100.0),
            hook("signal_generate", 0.001, 1_000.0),
        ]
        .concat();
        let table = table(&Figures::parse(lines.iter().map(String::as_str))?);
        let names: Vec<_> =
            table.lines().skip(4).filter_map(|line| line.split('|').nth(2)).map(str::trim).collect();
        assert_eq!(names, ["inet_sock_set_state", "tcp_destroy_sock"]);
        Ok(())
    }
}
