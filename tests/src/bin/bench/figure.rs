//! The figures, one JSON object per line: `case` (what went on), `subject` (who watched, or which of its hooks), `measure` (what was
//! measured, with its unit at the end of its name) and `value`, or a `note` where there can be no value.

use std::io::{Write, stdout};

use anyhow::{Context, Result};
use serde_json::{Value, json};

/// Emits one figure.
pub(crate) fn emit(case: &str, subject: &str, measure: &str, value: f64) -> Result<()> {
    line(&json!({ "case": case, "subject": subject, "measure": measure, "value": value }))
}

/// Emits why there is no figure.
pub(crate) fn note(case: &str, subject: &str, note: &str) -> Result<()> {
    line(&json!({ "case": case, "subject": subject, "note": note }))
}

/// Says what is being done.
pub(crate) fn progress(sentence: &str) {
    eprintln!("bench: {sentence}");
}

fn line(value: &Value) -> Result<()> {
    writeln!(stdout().lock(), "{value}").context("nobody reads the figures any more")
}
