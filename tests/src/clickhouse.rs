//! ClickHouse, as somebody who knows nothing of why502 would read verdicts and evidence with it: by its engine alone (chDB).

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// What each of these statements gives, one after the other in one session: rows, each an object. Files are those of `folder`.
pub fn run(folder: &Path, statements: &[String]) -> Result<Vec<Vec<Value>>> {
    let engine = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/chdb").canonicalize();
    let engine = engine.context("chDB is not in the target folder: run cargo xtask setup")?;
    ensure!(engine.join("chdb").is_dir(), "chDB is not in {}: run cargo xtask setup", engine.display());
    let script = "import json, sys\n\
        from chdb import session\n\
        clickhouse = session.Session(sys.argv[1])\n\
        for statement in json.loads(sys.argv[2]):\n\
        \x20   rows = str(clickhouse.query(statement, 'JSONEachRow')).split('\\n')\n\
        \x20   print(json.dumps([json.loads(row) for row in rows if row]))";
    let tables = tempfile::TempDir::with_prefix("why502-clickhouse-")?;
    let mut python = process::command(process::find_program(&["python3"])?);
    python.args(["-c", script]).arg(tables.path()).arg(serde_json::to_string(statements)?);
    python.env("PYTHONPATH", engine).current_dir(folder);
    let text = process::output(python)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}
