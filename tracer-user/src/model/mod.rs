//! What the program speaks of.

pub mod budget;
pub mod clock;
pub mod facts;
pub mod failure;
pub mod inquiry;
pub mod stream;
pub mod verdict;
pub mod words;
