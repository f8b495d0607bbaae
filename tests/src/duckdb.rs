//! DuckDB, as somebody who knows nothing of why502 would read evidence with it.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::process;

/// The rows of a query, each an object.
pub fn query(sql: &str) -> Result<Vec<Value>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/duckdb");
    ensure!(folder.join("duckdb").is_dir(), "DuckDB is not in {}: run cargo xtask setup", folder.display());
    let script = "import duckdb, json, sys\n\
        cursor = duckdb.sql(sys.argv[1])\n\
        for row in cursor.fetchall():\n    print(json.dumps(dict(zip(cursor.columns, row)), default=str))";
    let mut python = process::command(process::find_program(&["python3"])?);
    python.args(["-c", script, sql]).env("PYTHONPATH", folder);
    let text = process::output(python)?;
    text.lines().map(|line| serde_json::from_str(line).with_context(|| format!("no JSON: {line}"))).collect()
}
