//! What the running kernel lets `why502` see, as `why502 doctor` says it: some verdicts are less sure on some kernels, and none is wrong.

use std::collections::BTreeMap;
use std::fs;
use std::sync::OnceLock;

use anyhow::{Context, Result};
use serde_json::Value;

use crate::process;
use crate::tracer;

/// The facts that hooks see, each with when they do, and how sure each cause can be named.
#[derive(Clone, Debug)]
pub struct Sight {
    facts: BTreeMap<String, When>,
    standings: BTreeMap<String, String>,
}

/// When a fact is seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum When {
    /// From the start, by this source.
    Always(String),
    /// Once system calls are watched.
    OnDemand,
    /// Not on this kernel.
    Never,
}

impl Sight {
    /// Asks the doctor, once.
    pub fn here() -> Result<&'static Sight> {
        static HERE: OnceLock<Sight> = OnceLock::new();
        if let Some(sight) = HERE.get() {
            return Ok(sight);
        }
        let sight = Sight::ask()?;
        Ok(HERE.get_or_init(|| sight))
    }

    fn ask() -> Result<Sight> {
        let mut command = process::command(tracer::binary()?);
        command.args(["doctor", "-o", "json"]).args(tracer::only());
        let output = command.output().context("why502 doctor cannot be run")?;
        let said: Value = serde_json::from_slice(&output.stdout)
            .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        let facts = said["facts"].as_array().with_context(|| format!("no facts in {said}"))?;
        let when = |fact: &Value| match fact["source"].as_str() {
            Some(_) if fact["on_demand"] == true => When::OnDemand,
            Some(source) => When::Always(source.to_owned()),
            None => When::Never,
        };
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let causes = said["causes"].as_array().with_context(|| format!("no causes in {said}"))?;
        let name = |cause: &Value| format!("{}/{}", word(&cause["cause"]), word(&cause["detail"]));
        Ok(Sight {
            facts: facts.iter().map(|fact| (word(&fact["fact"]), when(fact))).collect(),
            standings: causes.iter().map(|cause| (name(cause), word(&cause["standing"]))).collect(),
        })
    }

    /// How sure a cause is named here, as `proven` or `inferred`.
    pub fn standing(&self, cause: &str) -> Result<&str> {
        let standing = self.standings.get(cause);
        standing.map(String::as_str).with_context(|| format!("the doctor knows no cause {cause}: {self:?}"))
    }

    /// When a fact, by its name in the doctor's JSON, is seen.
    pub fn when(&self, fact: &str) -> Result<&When> {
        self.facts.get(fact).with_context(|| format!("the doctor knows no fact {fact}: {self:?}"))
    }

    /// The first where packet drops are seen with the kernel's reason (since 5.17), the second elsewhere.
    pub fn by_drops<T>(&self, seen: T, unseen: T) -> Result<T> {
        Ok(if self.has("packet_drops")? { seen } else { unseen })
    }

    /// Whether a packet that the kernel drops for this reason (`enum skb_drop_reason`) is seen, and this kernel has such a reason.
    pub fn names_drop(&self, reason: &str) -> Result<bool> {
        const BTF: &str = "/sys/kernel/btf/vmlinux";
        let types = fs::read(BTF).context(BTF)?;
        let name = format!("SKB_DROP_REASON_{reason}\0");
        Ok(self.has("packet_drops")? && has_within(&types, name.as_bytes()))
    }

    /// Whether a fact is seen from the start.
    pub fn has(&self, fact: &str) -> Result<bool> {
        Ok(matches!(self.when(fact)?, When::Always(_)))
    }
}

fn has_within(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}
