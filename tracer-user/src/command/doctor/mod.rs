//! `why502 doctor`: what this kernel lets the program see, and what that costs in confidence.

mod confidence;
mod host;
mod json;
mod sight;
mod text;

use std::process::ExitCode;

use anyhow::Context as _;

use crate::{
    args::{Doctor, Format},
    load::take_types,
    model::failure::Failure,
    procfs::{masters, settings},
    sink::Look,
    terminal,
};

/// Everything that is said.
#[derive(Clone, Debug)]
pub struct Report {
    /// The kernel, and what this process may do.
    pub host: host::Host,
    /// What hooks see, or why none can be attached.
    pub sight: Result<sight::Sight, String>,
    /// How sure each cause can be; empty where tracing is impossible.
    pub standings: Vec<confidence::Standing>,
    /// The settings that matter.
    pub settings: Vec<settings::Setting>,
    /// Whom there is to trace.
    pub masters: Vec<masters::Master>,
}

/// Attaches every hook, detaches them again, and reports. The exit status is 0 if every cause that a kernel can prove can be
/// proven here, from the start, and 1 if not.
///
/// # Errors
/// Where this host cannot be traced; the report is written even so.
pub fn run(args: &Doctor) -> Result<ExitCode, Failure> {
    take_types(args.btf.as_deref())?;
    let masters = masters::masters();
    let nginx: Vec<_> = masters.iter().filter(|master| master.is_nginx()).map(|master| master.pid).collect();
    let sight = match sight::Sight::now(&args.hooks_only, !args.no_uprobe, &nginx) {
        Ok(sight) => Ok(sight),
        Err(Failure::CannotTrace(obstacle)) => Err(obstacle),
        Err(failure) => return Err(failure),
    };
    let report = Report {
        host: host::Host::now(),
        standings: sight.as_ref().map(confidence::standings).unwrap_or_default(),
        sight,
        settings: settings::now(),
        masters,
    };
    let (text, stdout) = match args.output {
        Format::Text => (text::render(&report, &Look::of_stdout(false)), terminal::text()),
        Format::Json => (json::line(&report).context("the report has no JSON form")?, terminal::json()),
    };
    terminal::print(stdout, text.as_bytes())?;
    let is_worse = report.standings.iter().any(confidence::Standing::is_worse_here);
    match report.sight {
        Ok(_) if is_worse => Ok(ExitCode::from(1)),
        Ok(_) => Ok(ExitCode::SUCCESS),
        Err(obstacle) => Err(Failure::CannotTrace(obstacle)),
    }
}
