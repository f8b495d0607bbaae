//! What the program speaks of; it depends on nothing else here.

pub mod answers;
pub mod audit;
pub mod budget;
pub mod cause;
pub mod cgroup;
pub mod clock;
pub mod destination;
pub mod doing;
pub mod facts;
pub mod failure;
pub mod from_wire;
pub mod groups;
pub mod hook_kind;
pub mod inquiry;
pub mod near;
pub mod pressure;
pub mod privileges;
pub mod record;
pub mod stranger;
pub mod stream;
pub mod topic;
pub mod upstream;
pub mod verdict;
pub mod waits;
pub mod words;
