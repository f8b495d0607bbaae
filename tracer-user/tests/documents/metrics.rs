//! The tables of metrics and of attributes in `docs/serve.md`.

use why502::sink::{ATTRIBUTES, metrics::METRICS};

use crate::page::Page;

#[test]
fn each_metric_is_in_the_table_as_the_program_has_it() {
    let page = Page::read("docs/serve.md");
    let starts = ["| `why502_", "| `process_"];
    let rows: Vec<_> =
        page.text.lines().filter(|line| starts.iter().any(|start| line.starts_with(start))).collect();
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

#[test]
fn each_attribute_is_in_the_table_as_the_program_has_it() {
    let page = Page::read("docs/serve.md");
    let (_, after) = page.text.split_once("| attribute | meaning |\n| --- | --- |\n").expect("the table");
    let rows: Vec<_> = after.lines().take_while(|line| line.starts_with('|')).collect();
    let wanted: Vec<_> =
        ATTRIBUTES.iter().map(|(name, meaning)| format!("| `{name}` | {meaning} |")).collect();
    assert_eq!(rows, wanted);
}
