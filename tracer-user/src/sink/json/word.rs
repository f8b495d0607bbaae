//! What nginx said.

use serde::Serialize;

use crate::model::verdict;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Word<'a> {
    level: &'a str,
    errno: Option<u32>,
    message: &'a str,
    r#while: Option<&'a str>,
    connection: u64,
}

impl<'a> From<&'a verdict::Word> for Word<'a> {
    fn from(verdict::Word { level, errno, message, doing, connection }: &'a verdict::Word) -> Self {
        Self { level, errno: *errno, message, r#while: doing.as_deref(), connection: *connection }
    }
}
