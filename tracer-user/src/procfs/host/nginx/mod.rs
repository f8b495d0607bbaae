//! nginx: how a master was started, and its configuration as text.

mod access_logs;
mod compiled;
mod configuration;
mod groups;
mod invocation;
mod levels;
pub(crate) mod log_format;
mod lua;
mod rules;
mod statement;
mod unix;
mod upstreams;

use std::path::{Path, PathBuf};

pub(crate) use access_logs::{AccessLog, access_logs};
pub(crate) use configuration::{Configuration, Directive, Gaps};
pub(crate) use groups::{counts_statuses, groups};
pub(crate) use rules::{Rules, rules};
pub(crate) use statement::Fault;
pub(crate) use upstreams::passes;

use procfs::process::Process;

use super::{Master, Refusal};
use crate::procfs::processes::still;
use compiled::CompiledIn;
use invocation::Invocation;

/// Reads the configuration of a master that is believed to be nginx's, as its files say it now.
///
/// # Errors
/// If the master is no nginx, or its configuration cannot be read.
pub(crate) fn configuration(master: &Master) -> Result<Configuration, Refusal> {
    let compiled = CompiledIn::of(master.executable())?;
    let invocation = Invocation::of(master.command_line())?;
    let main = main_file(master, &compiled, &invocation)?;
    Configuration::read(master.root(), &main, invocation.directives.as_deref())
}

/// The master behind a process of nginx's: itself, unless it calls itself something else than a master. None if it has gone; one that
/// cannot be looked at answers for itself, and is refused.
pub(crate) fn master_of(pid: u32) -> Option<u32> {
    let found = Process::new(pid.cast_signed()).and_then(|process| Ok((process.cmdline()?, process.stat()?)));
    match still(found) {
        // One that has ended and was not waited for has no title any more.
        Ok(Some((line, stat))) => line
            .first()
            .map(|title| if invocation::is_childs(title) { stat.ppid.cast_unsigned() } else { pid }),
        Ok(None) => None,
        Err(_) => Some(pid),
    }
}

/// Which file it is: a relative one goes from the prefix (`ngx_process_options`, src/core/nginx.c).
fn main_file(master: &Master, compiled: &CompiledIn, invocation: &Invocation) -> Result<PathBuf, Refusal> {
    let file = invocation.file.as_deref().unwrap_or(&compiled.file);
    let prefix: &Path = invocation.prefix.as_deref().unwrap_or(&compiled.prefix);
    master.absolute(&prefix.join(file))
}
