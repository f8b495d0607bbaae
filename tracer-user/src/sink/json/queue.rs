//! How full an accept queue was.

use serde::Serialize;

use crate::model::verdict;

#[derive(Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub(super) struct Queue {
    depth: u32,
    limit: u32,
}

impl From<&verdict::Queue> for Queue {
    fn from(&verdict::Queue { depth, limit }: &verdict::Queue) -> Self {
        Self { depth, limit }
    }
}
