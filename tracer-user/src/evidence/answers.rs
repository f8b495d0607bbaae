//! What clients were answered, as lines have it: status, time and servers, and nothing that a client wrote.

use super::{
    Line,
    codec::{Bad, Codec as _, Context, Moment, bad},
    line::Try,
    upstream::{named, upstream_or_group},
};
use crate::model::{
    answers::{self, Answer, Kind, STATUSES},
    budget,
    upstream::Upstream,
};

pub(super) fn encode(answer: &Answer, at: i64, context: Context<'_>) -> Line {
    // What a client wrote is never recorded.
    let Answer { ns, within_ns, status, tries, rule, request: _ } = answer;
    let one = |answers::Try { upstream, status }: &answers::Try| Try {
        upstream: upstream.as_ref().map(|upstream| match upstream {
            Upstream::Named(name) => context.names.group(name).into_owned(),
            place => named(context.names, place),
        }),
        status: *status,
    };
    Line::Answer {
        at,
        ns: Moment::encode(ns, context),
        within_ns: *within_ns,
        status: *status,
        tries: tries.as_ref().map(|tries| tries.iter().map(one).collect()),
        rule: rule.map(|rule| rule.name().to_owned()),
    }
}

pub(super) fn decode(
    ns: u64,
    within_ns: u64,
    status: u16,
    tries: Option<Vec<Try>>,
    rule: Option<&str>,
) -> Result<Answer, Bad> {
    if !STATUSES.contains(&status) || tries.as_ref().is_some_and(|tries| tries.len() > budget::TRIES) {
        return Err(bad("an answer has a status that is not accounted for, or more servers than any has"));
    }
    let one = |Try { upstream, status }: Try| -> Result<answers::Try, Bad> {
        Ok(answers::Try { upstream: upstream.as_deref().map(upstream_or_group).transpose()?, status })
    };
    let tries = tries.map(|tries| tries.into_iter().map(one).collect::<Result<_, _>>()).transpose()?;
    let known = |name: &str| Kind::RULES.into_iter().find(|kind| kind.name() == name);
    let rule = rule.map(|name| known(name).ok_or_else(|| bad("there is no such rule"))).transpose()?;
    Ok(Answer { ns, within_ns, status, tries, rule, request: None })
}
