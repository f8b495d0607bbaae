//! What is found through a process of this host: nginx and php-fpm masters, and the files that they are configured by.
//!
//! why502 is root, and a process's name, its arguments and whatever they lead to are the word of whoever started it. So nothing that is
//! found this way is ever executed; only masters that are root's own are believed ([`Master`]); their files are read as text, inside of
//! their own root, where only root could have put them ([`Root`]), and within limits ([`Budget`]). What is not believed is a
//! [`Refusal`], which says why and never quotes what a file says.

mod budget;
mod conntrack;
mod denial;
mod given;
mod held_logs;
mod master;
pub(crate) mod nginx;
pub(crate) mod php_fpm;
mod place;
mod refusal;
mod root;
mod tcp_metrics;
mod texts;

pub(crate) use budget::Budget;
pub(crate) use conntrack::conntrack;
pub(crate) use denial::denial;
pub(crate) use given::{open_given, read_given};
pub(crate) use held_logs::HeldLog;
pub(crate) use master::Master;
pub(crate) use place::place;
pub(crate) use refusal::Refusal;
pub(crate) use root::{Identity, Root};
pub(crate) use tcp_metrics::last_worked_ms;
pub(crate) use texts::text_of;

/// Whether what belongs to this user can be no trap: root's, or of whoever runs why502.
fn is_ours(uid: u32) -> bool {
    uid == 0 || uid == nix::unistd::geteuid().as_raw()
}
