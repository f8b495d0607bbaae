//! The budgets, and whether they hold.

use super::figures::Figures;

/// What tracing may cost.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Budget {
    name: &'static str,
    /// What it may be.
    limit: Limit,
    /// What it is; none if it was not measured.
    value: Option<f64>,
    unit: &'static str,
    decimals: usize,
    /// What else is to be said of the figure.
    note: String,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Limit {
    AtLeast(f64),
    AtMost(f64),
    Below(f64),
}

impl Budget {
    /// What it is about.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// Whether it was measured and holds.
    pub(crate) fn holds(&self) -> bool {
        self.value.is_some_and(|value| match self.limit {
            Limit::AtLeast(limit) => value >= limit,
            Limit::AtMost(limit) => value <= limit,
            Limit::Below(limit) => value < limit,
        })
    }

    /// The limit as text.
    pub(crate) fn limit(&self) -> String {
        let (words, limit) = match self.limit {
            Limit::AtLeast(limit) => ("at least", limit),
            Limit::AtMost(limit) => ("at most", limit),
            Limit::Below(limit) => ("below", limit),
        };
        format!("{words} {limit}{}", self.unit)
    }

    /// The figure as text.
    pub(crate) fn figure(&self) -> String {
        let Self { value, unit, decimals, note, .. } = self;
        let figure = value.map_or("not measured".to_owned(), |value| format!("{value:.decimals$}{unit}"));
        if note.is_empty() { figure } else { format!("{figure} ({note})") }
    }

    /// Whether it holds, as text.
    pub(crate) fn verdict(&self) -> &'static str {
        if self.holds() { "holds" } else { "does not hold" }
    }
}

/// Failures per second at which nothing may be lost, and the share of them that is close enough for a timer.
const FAILURES_PER_S: f64 = 20_000.0;
const CLOSE_ENOUGH: f64 = 0.99;

/// Holds what was measured against every budget.
pub(crate) fn check(figures: &Figures) -> Vec<Budget> {
    let median = |case, measure| figures.spread(case, "why502", measure).map(|spread| spread.median);
    let throughput = |name, case| {
        let spread = figures.spread(case, "why502", "throughput_ratio");
        let note = spread.map_or(String::new(), |s| format!("quartiles {:.3} to {:.3}", s.low, s.high));
        let value = spread.map(|spread| spread.median);
        Budget { name, limit: Limit::AtLeast(0.98), value, unit: "", decimals: 3, note }
    };
    let ns = |name, limit, case, measure| {
        let note = figures.without_counting(case, measure);
        let note = note.map_or(String::new(), |ns| format!("{ns:.0} without the counting itself"));
        let value = median(case, measure);
        Budget { name, limit: Limit::AtMost(limit), value, unit: " ns", decimals: 0, note }
    };
    let healthy = ["fastcgi_tcp", "fastcgi_unix", "http_keepalive", "unrelated"];
    let cpu = healthy.into_iter().map(|case| median(case, "cpu_percent")).collect::<Option<Vec<_>>>();
    let mut budgets = vec![
        throughput("throughput, FastCGI over TCP", "fastcgi_tcp"),
        throughput("throughput, FastCGI over unix sockets", "fastcgi_unix"),
        throughput("throughput, HTTP with keepalive", "http_keepalive"),
        throughput("throughput of unrelated sockets", "unrelated"),
        ns("BPF time per FastCGI exchange, TCP", 2_000.0, "fastcgi_tcp", "bpf_ns_per_exchange"),
        ns("BPF time per FastCGI exchange, unix", 2_000.0, "fastcgi_unix", "bpf_ns_per_exchange"),
        ns("BPF time per unrelated socket event", 60.0, "unrelated", "bpf_ns_per_run"),
        ns("the same, with connects and closes", 60.0, "unrelated_connects", "bpf_ns_per_run"),
        Budget {
            name: "why502's own share of a core, nothing failing",
            limit: Limit::Below(1.0),
            value: cpu.and_then(|cpu| cpu.into_iter().reduce(f64::max)),
            unit: " %",
            decimals: 2,
            note: String::new(),
        },
        memory(figures),
        lost(figures),
        frames(figures),
        flood(figures),
    ];
    budgets.extend(service(figures));
    budgets
}

/// What `why502 serve` may take while nothing happens, and a scrape of it.
fn service(figures: &Figures) -> [Budget; 3] {
    let idle = |measure| figures.greatest_in("idle", "serve", measure);
    let scrape = figures.spread("scrape", "serve", "scrape_ms");
    let slowest = figures.greatest_in("scrape", "serve", "scrape_ms");
    let page = figures.greatest_in("scrape", "serve", "page_kib");
    let (resident, maps) = (idle("resident_mib"), idle("maps_mib"));
    let note = |parts: Option<(f64, f64)>, words: fn(f64, f64) -> String| {
        parts.map_or(String::new(), |(one, other)| words(one, other))
    };
    [
        Budget {
            name: "why502 serve, idle, scraped every 15 s: share of a core",
            limit: Limit::Below(0.1),
            value: idle("cpu_percent"),
            unit: " %",
            decimals: 3,
            note: String::new(),
        },
        Budget {
            name: "why502 serve, idle: memory, kernel maps included",
            limit: Limit::Below(32.0),
            value: resident.zip(maps).map(|(resident, maps)| resident + maps),
            unit: " MiB",
            decimals: 1,
            note: note(resident.zip(maps), |resident, maps| {
                format!("{resident:.1} resident, and {maps:.1} of kernel maps")
            }),
        },
        Budget {
            name: "why502 serve: a scrape at 100 upstreams",
            limit: Limit::Below(5.0),
            value: scrape.map(|scrape| scrape.median),
            unit: " ms",
            decimals: 2,
            note: note(slowest.zip(page), |slowest, page| {
                format!("the slowest of 200 {slowest:.2}; a page of {page:.0} KiB")
            }),
        },
    ]
}

fn memory(figures: &Figures) -> Budget {
    let greatest = |measure| figures.greatest("why502", measure);
    let [peak, maps, resident, at_start] =
        ["peak_mib", "maps_mib", "resident_mib", "start_peak_mib"].map(greatest);
    let note = match (peak, maps, resident, at_start) {
        (Some(peak), Some(maps), Some(resident), Some(at_start)) => format!(
            "{peak:.1} resident at its peak, {resident:.1} in the end, and {maps:.1} of kernel maps; {at_start:.1} resident for a \
             moment at the start, while it reads the kernel's types"
        ),
        _ => String::new(),
    };
    Budget {
        name: "memory, kernel maps included",
        limit: Limit::Below(32.0),
        value: peak.zip(maps).map(|(peak, maps)| peak + maps),
        unit: " MiB",
        decimals: 1,
        note,
    }
}

fn lost(figures: &Figures) -> Budget {
    let one = |measure| figures.spread("storm_paced", "why502", measure).map(|spread| spread.median);
    let rate = one("failures_per_s");
    let reached = rate.is_some_and(|rate| rate >= FAILURES_PER_S * CLOSE_ENOUGH);
    let note = match rate {
        Some(rate) if reached => format!("at {rate:.0} failures per second"),
        Some(rate) => format!("this machine made only {rate:.0} failures per second"),
        None => String::new(),
    };
    Budget {
        name: "records lost at 20,000 failures per second",
        limit: Limit::AtMost(0.0),
        value: one("lost").filter(|_| reached),
        unit: "",
        decimals: 0,
        note,
    }
}

fn frames(figures: &Figures) -> Budget {
    let one = |measure| figures.spread("storm_on_screen", "why502", measure).map(|spread| spread.median);
    let rate = one("failures_per_s");
    let reached = rate.is_some_and(|rate| rate >= FAILURES_PER_S * CLOSE_ENOUGH);
    let memory = one("peak_mib").zip(one("maps_mib")).map(|(peak, maps)| peak + maps);
    let note = match (rate, memory.zip(one("told"))) {
        (Some(rate), Some((memory, emitted))) if reached => {
            format!(
                "at {rate:.0} failures per second, of which {emitted:.0} were told; {memory:.1} MiB, kernel maps included"
            )
        }
        (Some(rate), _) => format!("this machine made only {rate:.0} failures per second"),
        (None, _) => String::new(),
    };
    Budget {
        name: "frames per second of `why502 top` at 20,000 failures per second (it draws ten at most)",
        limit: Limit::AtLeast(9.5),
        value: one("frames_per_s").filter(|_| reached),
        unit: "",
        decimals: 1,
        note,
    }
}

/// Lines of no upstream per second beside which hearing nginx may take a hundredth of the throughput.
const FOREIGN_PER_S: f64 = 5_000.0;

fn flood(figures: &Figures) -> Budget {
    let one = |measure| figures.spread("flood_of_404s", "why502", measure);
    let reached = one("foreign_per_s").is_some_and(|rate| rate.median >= FOREIGN_PER_S * CLOSE_ENOUGH);
    let note = match (one("throughput_ratio"), one("foreign_per_s")) {
        (Some(s), Some(rate)) if !reached => {
            format!("this machine logged only {:.0} lines per second; {:.3} then", rate.median, s.median)
        }
        (Some(s), _) => format!("quartiles {:.3} to {:.3}", s.low, s.high),
        (None, _) => String::new(),
    };
    Budget {
        name: "throughput, FastCGI over TCP, while nginx logs 5,000 other lines a second: heard against not heard",
        limit: Limit::AtLeast(0.99),
        value: one("throughput_ratio").map(|spread| spread.median).filter(|_| reached),
        unit: "",
        decimals: 3,
        note,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(ratio: f64, rate: f64, lost: f64) -> Figures {
        let line = |case: &str, measure: &str, value: f64| {
            format!(r#"{{"case":"{case}","subject":"why502","measure":"{measure}","value":{value}}}"#)
        };
        let lines = [
            line("fastcgi_tcp", "throughput_ratio", ratio),
            line("fastcgi_tcp", "peak_mib", 20.0),
            line("fastcgi_tcp", "maps_mib", 13.0),
            line("fastcgi_tcp", "resident_mib", 15.0),
            line("fastcgi_tcp", "start_peak_mib", 28.0),
            line("storm_paced", "failures_per_s", rate),
            line("storm_paced", "lost", lost),
        ];
        Figures::parse(lines.iter().map(String::as_str)).expect("figures")
    }

    fn find(budgets: &[Budget], start: &str) -> Budget {
        budgets.iter().find(|budget| budget.name.starts_with(start)).expect("a budget").clone()
    }

    #[test]
    fn a_budget_holds_up_to_its_limit() {
        let throughput = |ratio| find(&check(&figures(ratio, 20_000.0, 0.0)), "throughput, FastCGI over TCP");
        assert!(throughput(0.98).holds());
        assert!(!throughput(0.979).holds());
        assert_eq!(throughput(0.979).verdict(), "does not hold");
        assert_eq!(throughput(0.98).figure(), "0.980 (quartiles 0.980 to 0.980)");
    }

    #[test]
    fn what_was_not_measured_does_not_hold() {
        let budget = find(&check(&figures(1.0, 20_000.0, 0.0)), "BPF time per FastCGI exchange");
        assert!(!budget.holds());
        assert_eq!(budget.figure(), "not measured");
    }

    #[test]
    fn memory_is_the_process_and_the_kernels_maps() {
        let budget = find(&check(&figures(1.0, 20_000.0, 0.0)), "memory");
        assert!(!budget.holds());
        assert_eq!(
            budget.figure(),
            "33.0 MiB (20.0 resident at its peak, 15.0 in the end, and 13.0 of kernel maps; 28.0 resident for a moment at the start, \
             while it reads the kernel's types)"
        );
    }

    #[test]
    fn what_the_service_takes_is_judged_apart_from_live() {
        let line = |case: &str, measure: &str, value: f64| {
            format!(r#"{{"case":"{case}","subject":"serve","measure":"{measure}","value":{value}}}"#)
        };
        let lines = [
            line("idle", "cpu_percent", 0.05),
            line("idle", "resident_mib", 14.0),
            line("idle", "maps_mib", 13.0),
            line("idle", "peak_mib", 40.0),
            line("scrape", "scrape_ms", 0.5),
            line("scrape", "scrape_ms", 0.7),
            line("scrape", "scrape_ms", 9.0),
            line("scrape", "page_kib", 60.0),
        ];
        let budgets = check(&Figures::parse(lines.iter().map(String::as_str)).expect("figures"));
        let shown = ["share", "idle: memory", "a scrape"].map(|words| {
            let budget = budgets
                .iter()
                .find(|budget| budget.name.starts_with("why502 serve") && budget.name.contains(words));
            budget.map(|budget| (budget.holds(), budget.figure())).expect("a budget")
        });
        assert_eq!(
            shown,
            [
                (true, "0.050 %".to_owned()),
                (true, "27.0 MiB (14.0 resident, and 13.0 of kernel maps)".to_owned()),
                (true, "0.70 ms (the slowest of 200 9.00; a page of 60 KiB)".to_owned()),
            ]
        );
        assert_eq!(find(&budgets, "memory, kernel").figure(), "not measured");
    }

    #[test]
    fn losses_count_only_at_the_rate_that_is_asked_for() {
        let lost = |rate, lost| find(&check(&figures(1.0, rate, lost)), "records lost");
        assert!(lost(19_900.0, 0.0).holds());
        assert!(!lost(20_000.0, 1.0).holds());
        assert!(!lost(9_000.0, 0.0).holds());
        assert_eq!(
            lost(9_000.0, 0.0).figure(),
            "not measured (this machine made only 9000 failures per second)"
        );
    }
}
