//! The schema of the lines: `docs/schema/lines.json`.

use std::{env, fs, path::PathBuf};

use schemars::{JsonSchema, generate::SchemaSettings};

use super::{After, Audit, Delayed, Note, Summary, Verdict, answers::Answer};

/// Any line of `live -o json` and `report -o json`.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, clippy::large_enum_variant, reason = "only its schema is made")]
enum Line {
    Verdict(Verdict<'static>),
    Delayed(Delayed<'static>),
    After(After<'static>),
    Note(Note<'static>),
    Answer(Answer<'static>),
    Audit(Audit<'static>),
    Summary(Summary<'static>),
}

fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/schema/lines.json")
}

/// Whether a line is as the schema says.
pub(super) fn fits(line: &str) -> bool {
    let schema = serde_json::from_str(&fs::read_to_string(path()).unwrap()).unwrap();
    jsonschema::validator_for(&schema).unwrap().is_valid(&serde_json::from_str(line).unwrap())
}

/// `RENEW=1 cargo test -p tracer-user schema` writes it anew.
#[test]
fn the_schema_is_that_of_what_is_written() {
    let generator = SchemaSettings::draft2020_12().for_serialize().into_generator();
    let schema = serde_json::to_string_pretty(&generator.into_root_schema_for::<Line>()).unwrap() + "\n";
    if env::var_os("RENEW").is_some() {
        fs::write(path(), schema).unwrap();
    } else {
        assert_eq!(fs::read_to_string(path()).unwrap(), schema);
    }
}
