//! The rig's figures.

use anyhow::{Context as _, Result};
use serde::Deserialize;

use super::spread::Spread;

/// One line of the rig's.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Figure {
    /// What went on: `fastcgi_tcp`, say.
    case: String,
    /// Who watched, or which hook of why502's.
    subject: String,
    /// What was measured; its unit is at the end of its name.
    #[serde(default)]
    measure: String,
    #[serde(default)]
    value: f64,
    /// Why there are no figures.
    note: Option<String>,
}

/// All that were emitted, in their order.
#[derive(Debug)]
pub(crate) struct Figures(Vec<Figure>);

impl Figures {
    /// Reads the rig's lines.
    pub(crate) fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Self> {
        let parse = |line| serde_json::from_str(line).with_context(|| format!("no figure: {line}"));
        lines.map(parse).collect::<Result<_>>().map(Self)
    }

    /// Every value of one measure, in the order in which they came.
    pub(crate) fn values(&self, case: &str, subject: &str, measure: &str) -> Vec<f64> {
        let is_it = |figure: &&Figure| {
            figure.case == case
                && figure.subject == subject
                && figure.measure == measure
                && figure.note.is_none()
        };
        self.0.iter().filter(is_it).map(|figure| figure.value).collect()
    }

    /// Their median and quartiles, if there are any.
    pub(crate) fn spread(&self, case: &str, subject: &str, measure: &str) -> Option<Spread> {
        Spread::of(&self.values(case, subject, measure))
    }

    /// The median of why502's `bpf_ns_per_run` or `bpf_ns_per_exchange`, less what the kernel's counting itself puts into each run: the
    /// run time of a program that does nothing.
    pub(crate) fn without_counting(&self, case: &str, measure: &str) -> Option<f64> {
        let median = |case, subject, measure| Some(self.spread(case, subject, measure)?.median);
        let floor = median("counting", "empty_program", "bpf_ns_per_run")?;
        let runs = match measure {
            "bpf_ns_per_run" => 1.0,
            _ => median(case, "why502", "bpf_runs_per_exchange")?,
        };
        Some(median(case, "why502", measure)? - runs * floor)
    }

    /// The greatest in one case.
    pub(crate) fn greatest_in(&self, case: &str, subject: &str, measure: &str) -> Option<f64> {
        self.values(case, subject, measure).into_iter().reduce(f64::max)
    }

    /// The greatest in any case.
    pub(crate) fn greatest(&self, subject: &str, measure: &str) -> Option<f64> {
        let is_it = |figure: &&Figure| figure.subject == subject && figure.measure == measure;
        self.0.iter().filter(is_it).map(|figure| figure.value).reduce(f64::max)
    }

    /// Why there are no figures of a tool's.
    pub(crate) fn note(&self, subject: &str) -> Option<&str> {
        self.0.iter().filter(|figure| figure.subject == subject).find_map(|figure| figure.note.as_deref())
    }

    /// Who has figures of one measure in one case, in the order in which they came.
    pub(crate) fn subjects(&self, case: &str, measure: &str) -> Vec<&str> {
        let mut subjects = Vec::new();
        for figure in &self.0 {
            if figure.case == case
                && figure.measure == measure
                && !subjects.contains(&figure.subject.as_str())
            {
                subjects.push(figure.subject.as_str());
            }
        }
        subjects
    }

    /// The cases that have figures of one measure, in the order in which they came.
    pub(crate) fn cases(&self, measure: &str) -> Vec<&str> {
        let mut cases = Vec::new();
        for figure in &self.0 {
            if figure.measure == measure && !cases.contains(&figure.case.as_str()) {
                cases.push(figure.case.as_str());
            }
        }
        cases
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_found_by_case_subject_and_measure() -> Result<()> {
        let figures = Figures::parse(
            [
                r#"{"case":"fastcgi_tcp","subject":"why502","measure":"throughput_ratio","value":0.98}"#,
                r#"{"case":"fastcgi_tcp","subject":"why502","measure":"throughput_ratio","value":1.0}"#,
                r#"{"case":"fastcgi_unix","subject":"why502","measure":"throughput_ratio","value":0.5}"#,
                r#"{"case":"fastcgi_tcp","subject":"bpftrace","note":"does not work here"}"#,
            ]
            .into_iter(),
        )?;
        assert_eq!(figures.values("fastcgi_tcp", "why502", "throughput_ratio"), [0.98, 1.0]);
        assert_eq!(figures.greatest("why502", "throughput_ratio"), Some(1.0));
        assert_eq!(figures.note("bpftrace"), Some("does not work here"));
        assert_eq!(figures.note("why502"), None);
        assert_eq!(figures.cases("throughput_ratio"), ["fastcgi_tcp", "fastcgi_unix"]);
        assert_eq!(figures.subjects("fastcgi_tcp", "throughput_ratio"), ["why502"]);
        assert!(figures.spread("fastcgi_tcp", "strace", "throughput_ratio").is_none());
        Ok(())
    }

    #[test]
    fn the_counting_is_taken_off_each_run() -> Result<()> {
        let figures = Figures::parse(
            [
                r#"{"case":"counting","subject":"empty_program","measure":"bpf_ns_per_run","value":30}"#,
                r#"{"case":"fastcgi_tcp","subject":"why502","measure":"bpf_ns_per_run","value":50}"#,
                r#"{"case":"fastcgi_tcp","subject":"why502","measure":"bpf_runs_per_exchange","value":20}"#,
                r#"{"case":"fastcgi_tcp","subject":"why502","measure":"bpf_ns_per_exchange","value":1000}"#,
            ]
            .into_iter(),
        )?;
        assert_eq!(figures.without_counting("fastcgi_tcp", "bpf_ns_per_run"), Some(20.0));
        assert_eq!(figures.without_counting("fastcgi_tcp", "bpf_ns_per_exchange"), Some(400.0));
        assert_eq!(figures.without_counting("unrelated", "bpf_ns_per_run"), None);
        Ok(())
    }

    #[test]
    fn what_is_no_figure_is_reported() {
        assert!(Figures::parse(["ready"].into_iter()).is_err());
    }
}
