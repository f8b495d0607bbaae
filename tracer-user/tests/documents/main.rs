//! The documents: their links lead somewhere, their commands are run or marked as not run, what `docs/claims.md` measures is measured again,
//! and the Chinese pages say the same as the English ones.

mod claims;
mod commands;
mod links;
mod metrics;
mod page;
mod translations;
