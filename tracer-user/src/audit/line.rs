//! One line of nginx's error log.

use std::{fmt, net::SocketAddr};

use jiff::civil::DateTime;
use nix::errno::Errno;

use super::kind::Kind;
use crate::model::{
    budget,
    upstream::{Upstream, UpstreamFilter},
};

/// `2026/11/20 22:18:16`.
const TIME_LENGTH: usize = 19;

/// nginx cuts its lines here, the line break included (`NGX_MAX_ERROR_STR`), and a long URI stands before the upstream.
pub(super) const CUT_LENGTH: usize = 2048 - 1;

/// A line, as far as the audit needs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// Whether it is of level info or below, so that this log shows all of that level.
    pub is_info: bool,
    /// The failed exchange it reports, if it reports one.
    pub failure: Option<Failure>,
}

/// A failed exchange as nginx reports it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// When, by nginx's local time.
    pub time: DateTime,
    /// The nginx worker, as its own pid namespace counts.
    pub pid: u32,
    /// What kind of failure.
    pub kind: Kind,
    /// Whether it surely is one.
    pub certain: bool,
    /// The errno by name, if one is given.
    pub errno: Option<String>,
    /// The message, up to the client's address.
    pub text: String,
    /// The upstream.
    pub upstream: Named,
}

/// An upstream as the log names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Named {
    /// An address.
    Inet(SocketAddr),
    /// A unix socket's path; after a timeout the URI follows it without a seam.
    Unix(String),
    /// The line was cut before its end.
    CutOff,
    /// The line names several, and all but one are the client's words.
    OneOf(Vec<Named>),
}

impl Line {
    /// Reads a line; none if nginx's error log has no such lines.
    pub fn parse(line: &str) -> Option<Self> {
        let (time, rest) = line.split_at_checked(TIME_LENGTH)?;
        let (level, rest) = rest.strip_prefix(" [")?.split_once("] ")?;
        let is_info = matches!(level, "info" | "debug");
        Some(Self { is_info, failure: failure(line, time, level, rest) })
    }
}

/// `17425#17425: *7 connect() failed (111: Connection refused) while connecting to upstream, client: 127.0.0.1, server: ,
/// request: "GET / HTTP/1.0", upstream: "fastcgi://127.0.0.1:9009", host: "x"`
fn failure(line: &str, time: &str, level: &str, rest: &str) -> Option<Failure> {
    let (text, context) = rest.split_once(", client: ")?;
    let (pid, text) = text.split_once('#')?;
    let (_, text) = text.split_once(": ")?;
    let text = match text.strip_prefix('*') {
        Some(numbered) => numbered.split_once(' ')?.1,
        None => text,
    };
    let errno = errno(text);
    let (kind, certain) = match level {
        "error" | "crit" | "alert" | "emerg" => (Kind::of_error(text, errno.as_deref())?, true),
        "info" => Kind::of_info(text)?,
        _ => return None,
    };
    Some(Failure {
        time: DateTime::strptime("%Y/%m/%d %H:%M:%S", time).ok()?,
        pid: pid.parse().ok()?,
        kind,
        certain,
        errno,
        text: text.to_owned(),
        upstream: upstream(context, line.len() >= CUT_LENGTH)?,
    })
}

/// The number in `failed (111: Connection refused)`, by name.
pub(super) fn errno(text: &str) -> Option<String> {
    let (_, rest) = text.split_once(" (")?;
    let number = rest.split_once(':')?.0.parse().ok()?;
    Some(format!("{:?}", Errno::from_raw(number)))
}

/// What stands before the upstream.
pub(super) const FIELD: &str = ", upstream: \"";

/// Each `upstream: "fastcgi://127.0.0.1:9000"` in the line, which a stream proxy writes without the scheme. nginx writes one, between the
/// request and the host; but request, host and referrer are the client's words, copied as they came, and may look the same (the request
/// before nginx 1.21.1, which lets spaces through, the referrer to this day). So any may be nginx's own, or, where the line was cut, what
/// is not there any more.
pub(super) fn upstream(context: &str, is_cut: bool) -> Option<Named> {
    let mut all: Vec<Named> = Vec::new();
    let fields = context.match_indices(FIELD).filter_map(|(place, _)| context.get(place + FIELD.len()..));
    for named in fields.filter_map(|field| named(field, is_cut)) {
        if all.len() == budget::NAMED_UPSTREAMS {
            all.push(Named::CutOff);
            break;
        }
        if !all.contains(&named) {
            all.push(named);
        }
    }
    if is_cut && !all.contains(&Named::CutOff) {
        all.push(Named::CutOff);
    }
    match all.len() {
        0 | 1 => all.pop(),
        _ => Some(Named::OneOf(all)),
    }
}

/// What follows the opening quote.
fn named(field: &str, is_cut: bool) -> Option<Named> {
    let (named, is_whole) = match field.split_once('"') {
        Some((named, _)) => (named, true),
        None if is_cut => (field, false),
        None => return None,
    };
    let named = named.split_once("://").map_or(named, |(_, named)| named);
    if let Some(path) = named.strip_prefix("unix:") {
        // nginx allows no colon in the path; behind one, a URI follows.
        return Some(match path.split_once(':') {
            Some((path, _)) => Named::Unix(path.to_owned()),
            None if is_whole => Named::Unix(path.to_owned()),
            None => Named::CutOff,
        });
    }
    let end = named.find(['/', '?']);
    Some(match end {
        None if !is_whole => Named::CutOff,
        _ => Named::Inet(named[..end.unwrap_or(named.len())].parse().ok()?),
    })
}

impl Named {
    /// Whether this may be the upstream.
    pub fn may_be(&self, upstream: &Upstream) -> bool {
        match (self, upstream) {
            (Self::Inet(named), Upstream::Inet(_)) => UpstreamFilter::Address(*named).matches(upstream),
            (Self::Unix(named), Upstream::Unix(path)) => begins_with_path(named, &path.to_string_lossy()),
            (Self::CutOff, _) => true,
            (Self::OneOf(all), _) => all.iter().any(|one| one.may_be(upstream)),
            (Self::Inet(_), Upstream::Unix(_) | Upstream::Named(_))
            | (Self::Unix(_), Upstream::Inet(_) | Upstream::Named(_)) => false,
        }
    }

    /// Whether this may be some unix socket.
    pub fn may_be_unix(&self) -> bool {
        match self {
            Self::Unix(_) | Self::CutOff => true,
            Self::Inet(_) => false,
            Self::OneOf(all) => all.iter().any(Self::may_be_unix),
        }
    }

    /// Whether the line names several.
    pub fn is_ambiguous(&self) -> bool {
        matches!(self, Self::OneOf(_))
    }

    /// Bytes that it takes besides itself.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Inet(_) | Self::CutOff => 0,
            Self::Unix(path) => path.len(),
            Self::OneOf(all) => all.iter().map(|one| size_of::<Self>() + one.bytes()).sum(),
        }
    }

    /// Whether it is among the filters, if that can be said.
    pub fn is_among(&self, filters: &[UpstreamFilter]) -> Option<bool> {
        let matches = |filter: &UpstreamFilter| match (self, filter) {
            (Self::Inet(named), _) => filter.matches(&Upstream::Inet(*named)),
            (Self::Unix(_), UpstreamFilter::Unix(path)) => self.may_be(&Upstream::Unix(path.clone())),
            (Self::Unix(_) | Self::CutOff | Self::OneOf(_), _) => false,
        };
        match self {
            _ if filters.is_empty() => Some(true),
            Self::CutOff => None,
            Self::OneOf(all) => {
                let mut among = all.iter().map(|one| one.is_among(filters));
                let first = among.next()??;
                among.all(|one| one == Some(first)).then_some(first)
            }
            _ => Some(filters.iter().any(matches)),
        }
    }

    /// As it is shown, if it is known.
    pub fn shown(&self) -> Option<String> {
        (!matches!(self, Self::CutOff | Self::OneOf(_))).then(|| self.to_string())
    }
}

fn begins_with_path(named: &str, path: &str) -> bool {
    named.strip_prefix(path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix(path) => f.write_str(path),
            Self::CutOff | Self::OneOf(_) => f.write_str("?"),
        }
    }
}

#[cfg(test)]
mod tests;
