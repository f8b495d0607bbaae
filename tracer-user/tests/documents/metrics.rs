//! The table of metrics in `docs/serve.md`.

use why502::sink::metrics::METRICS;

use crate::page::Page;

#[test]
fn each_metric_is_in_the_table_as_the_program_has_it() {
    let page = Page::read("docs/serve.md");
    let rows: Vec<_> =
        page.text.lines().filter(|line| line.contains("_") && line.starts_with("| `")).collect();
    let wanted: Vec<_> = METRICS
        .iter()
        .map(|metric| {
            let labels: Vec<_> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            format!(
                "| `{}` | {} | {} | {} |",
                metric.name,
                metric.kind.name(),
                labels.join(", "),
                metric.help
            )
        })
        .collect();
    assert_eq!(rows, wanted);
}
