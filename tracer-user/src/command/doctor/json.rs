//! One JSON object: a contract with the programs that read it.
//!
//! The types stand apart from the model, as those of the verdicts do.

use serde::Serialize;

use super::{
    Report,
    confidence::{self, Level},
    sight::{How, Sight},
};
use crate::{
    confine, load,
    model::privileges::{Holder, KEPT, Privilege},
    procfs::{masters::Master, settings},
};

/// The version of the contract.
const VERSION: u32 = 1;

#[derive(Serialize)]
struct Doctor<'a> {
    v: u32,
    r#type: &'static str,
    kernel: &'a str,
    btf: bool,
    btf_file: Option<String>,
    lockdown: Option<&'static str>,
    missing_capabilities: Option<Vec<String>>,
    tracefs: bool,
    seccomp: bool,
    landlock: bool,
    kept: Vec<Kept>,
    tracing: bool,
    obstacle: Option<&'a str>,
    facts: Vec<Seen<'a>>,
    causes: Vec<Cause>,
    settings: Vec<Setting<'a>>,
    processes: Vec<Process<'a>>,
    listeners: Option<usize>,
}

#[derive(Serialize)]
struct Kept {
    capability: String,
    threads: &'static str,
    why: &'static str,
}

#[derive(Serialize)]
struct Seen<'a> {
    fact: &'static str,
    meaning: &'static str,
    source: Option<&'a str>,
    on_demand: bool,
    reason: Option<&'a str>,
    instead: Option<&'static str>,
}

#[derive(Serialize)]
struct Cause {
    cause: &'static str,
    detail: &'static str,
    standing: &'static str,
    everywhere: bool,
    reason: Option<&'static str>,
}

#[derive(Serialize)]
struct Setting<'a> {
    name: &'static str,
    value: Option<u64>,
    meaning: &'a str,
}

#[derive(Serialize)]
struct Process<'a> {
    pid: i32,
    comm: &'a str,
    workers: usize,
    listeners: Option<&'a [String]>,
    other_network_namespace: Option<bool>,
    word: Option<&'a str>,
    unheard: Option<&'a str>,
}

/// The report as one line.
///
/// # Errors
/// If it has no JSON form, which it has.
pub fn line(report: &Report) -> serde_json::Result<String> {
    Ok(serde_json::to_string(&Doctor::from(report))? + "\n")
}

// The model is taken apart in full below, so that whoever adds a field to it must decide what readers get to see.

impl<'a> From<&'a Report> for Doctor<'a> {
    fn from(report: &'a Report) -> Self {
        let Report { host, sight, standings, settings, masters } = report;
        let super::host::Host {
            kernel,
            has_btf,
            given_btf,
            lockdown,
            missing_capabilities,
            has_tracefs,
            means,
        } = host;
        let &confine::Means { seccomp, landlock } = means;
        let sight = sight.as_ref();
        Self {
            v: VERSION,
            r#type: "doctor",
            kernel,
            btf: *has_btf,
            btf_file: given_btf.map(|path| path.display().to_string()),
            lockdown: match lockdown {
                load::Lockdown::Off => Some("none"),
                load::Lockdown::Integrity => Some("integrity"),
                load::Lockdown::Confidentiality => Some("confidentiality"),
                load::Lockdown::Unknown => None,
            },
            missing_capabilities: missing_capabilities.as_deref().map(load::names_of_capabilities),
            tracefs: *has_tracefs,
            seccomp,
            landlock,
            kept: KEPT.iter().map(Kept::from).collect(),
            tracing: sight.is_ok(),
            obstacle: sight.err().map(String::as_str),
            facts: sight.map(facts).unwrap_or_default(),
            causes: standings.iter().map(Cause::from).collect(),
            settings: settings.iter().map(Setting::from).collect(),
            processes: masters.iter().map(|master| process(master, sight.ok())).collect(),
            listeners: sight.ok().map(Sight::listeners),
        }
    }
}

fn facts(sight: &Sight) -> Vec<Seen<'_>> {
    sight
        .facts()
        .map(|(fact, how)| {
            let (source, on_demand, reason) = match how {
                How::Always(source) => (Some(source), false, None),
                How::OnDemand(source) => (Some(source), true, None),
                How::Never(reason) => (None, false, Some(reason)),
            };
            Seen {
                fact: fact.name(),
                meaning: fact.meaning(),
                source: source.map(String::as_str),
                on_demand,
                reason: reason.map(String::as_str),
                instead: sight.instead(fact),
            }
        })
        .collect()
}

impl From<&Privilege> for Kept {
    fn from(privilege: &Privilege) -> Self {
        let &Privilege { capability, holder, why } = privilege;
        let threads = match holder {
            Holder::Each => "all",
            Holder::EachThatWrites => "if_needed",
            Holder::Apart => "apart",
        };
        Self { capability: capability.to_string(), threads, why }
    }
}

impl From<&confidence::Standing> for Cause {
    fn from(standing: &confidence::Standing) -> Self {
        let &confidence::Standing { cause, level, everywhere, reason } = standing;
        let standing = match level {
            Level::Proven => "proven",
            Level::Partly => "partly",
            Level::OnDemand => "on_demand",
            Level::Inferred => "inferred",
            Level::NotSeen => "not_seen",
        };
        Self { cause: cause.cause(), detail: cause.detail(), standing, everywhere, reason }
    }
}

impl<'a> From<&'a settings::Setting> for Setting<'a> {
    fn from(settings::Setting { name, value, meaning }: &'a settings::Setting) -> Self {
        Self { name, value: *value, meaning }
    }
}

fn process<'a>(
    Master { pid, comm, workers, listeners, is_elsewhere }: &'a Master,
    sight: Option<&'a Sight>,
) -> Process<'a> {
    let heard = sight.and_then(|sight| sight.hears(*pid));
    Process {
        pid: *pid,
        comm,
        workers: *workers,
        listeners: listeners.as_deref(),
        other_network_namespace: *is_elsewhere,
        word: heard.and_then(Result::ok),
        unheard: heard.and_then(Result::err),
    }
}
