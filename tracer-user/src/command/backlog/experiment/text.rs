//! The table for a person.

use anstyle::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};

use super::Finding;
use crate::sink::Look;

pub(super) fn render(findings: &[Finding], look: &Look) -> String {
    let mut table = Table::new();
    table
        .load_style(comfy_table::presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(u16::try_from(look.width).unwrap_or(u16::MAX))
        .set_header(["CLAIM", "HERE", "MEASURED ON THIS KERNEL"])
        .add_rows(findings.iter().map(|Finding { claim, holds, measured }| {
            [(*claim).to_owned(), if *holds { "true" } else { "false" }.to_owned(), measured.clone()]
        }));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let mut text = String::new();
    for (number, line) in table.lines().enumerate() {
        let line = line.trim_end();
        let line = match number {
            0 => look.paint(Style::new().bold(), line, 0),
            _ => ["  true   ", "  false  "].iter().fold(line.to_owned(), |line, word| {
                let colour = if word.contains("true") { AnsiColor::Green } else { AnsiColor::Red };
                line.replacen(word, &look.paint(colour.on_default(), word, 0), 1)
            }),
        };
        text += &line;
        text.push('\n');
    }
    text
}
