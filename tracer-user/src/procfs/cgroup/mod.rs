//! Who is who: the container, pod or systemd unit that a process is of, by its control group.

mod finder;
mod ids;

pub use finder::{Finder, of_process, text as cgroups_of};
pub use ids::mount_of;
