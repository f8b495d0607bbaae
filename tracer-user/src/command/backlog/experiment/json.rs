//! JSON Lines: a contract with the programs that read it.

use std::io::{self, Write};

use serde::Serialize;

use super::Finding;

#[derive(Serialize)]
struct Line<'a> {
    v: u32,
    r#type: &'static str,
    claim: &'a str,
    holds: bool,
    measured: &'a str,
}

pub(super) fn write(out: &mut impl Write, findings: &[Finding]) -> io::Result<()> {
    for Finding { claim, holds, measured } in findings {
        serde_json::to_writer(&mut *out, &Line { v: 1, r#type: "claim", claim, holds: *holds, measured })?;
        writeln!(out)?;
    }
    Ok(())
}
