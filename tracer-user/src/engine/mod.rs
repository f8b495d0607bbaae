//! What every command that traces runs in: one event loop, one reader of a ring buffer, one account of what was lost.

mod losses;
mod ring;
mod session;

pub use losses::{Missed, SETTLING, losses};
pub use ring::Ring;
pub use session::{Ends, Flow, Run, Session, at, follow, run};
