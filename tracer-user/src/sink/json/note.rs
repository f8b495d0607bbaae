//! A word of nginx's that is about no failure.

use serde::Serialize;

use super::{VERSION, process::Process, upstream::Upstream, word::Word};
use crate::model::{verdict, words::time};

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Note<'a> {
    #[cfg_attr(test, schemars(extend("const" = VERSION)))]
    v: u32,
    #[cfg_attr(test, schemars(extend("const" = "note")))]
    r#type: &'static str,
    #[cfg_attr(test, schemars(extend("format" = "date-time")))]
    time: String,
    nginx: Process<'a>,
    upstream: Option<Upstream>,
    word: Word<'a>,
    explanation: &'a str,
}

impl<'a> From<&'a verdict::Note> for Note<'a> {
    fn from(note: &'a verdict::Note) -> Self {
        let verdict::Note { unix_ns, nginx, upstream, word, places, explanation } = note;
        Self {
            v: VERSION,
            r#type: "note",
            time: time(*unix_ns),
            nginx: Process::of(nginx, places),
            upstream: upstream.as_ref().and_then(Upstream::of),
            word: word.into(),
            explanation,
        }
    }
}
