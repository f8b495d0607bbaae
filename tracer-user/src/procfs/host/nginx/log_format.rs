//! A `log_format` of nginx's, and what it says of one line. Pure.

use jiff::{Timestamp, fmt::strtime};

use crate::model::{
    answers::{STATUSES, Try},
    budget,
    upstream::Upstream,
};

/// The format that an `access_log` has unless it names another one (`ngx_http_combined_fmt`, src/http/modules/ngx_http_log_module.c).
pub const COMBINED: &str = "$remote_addr - $remote_user [$time_local] \"$request\" $status $body_bytes_sent \"$http_referer\" \
                            \"$http_user_agent\"";

/// A second has so many ns.
const SECOND: u64 = 1_000_000_000;

/// A format, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Format(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    /// What stands in every line.
    Text(String),
    /// What a variable had for its value.
    Variable(Variable),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Variable {
    Status,
    UpstreamAddr,
    UpstreamStatus,
    Milliseconds,
    Iso8601,
    Local,
    Request,
    Other,
}

/// What a line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// One of [`STATUSES`].
    pub status: u16,
    /// When it was logged, at the earliest (ns since 1970), and how much later that may have been; none where it does not say.
    pub logged: Option<(i64, u64)>,
    /// The servers that were tried; none where the format has no word on them.
    pub tries: Option<Vec<Try>>,
    /// The request line, or what of it the format has.
    pub request: Option<String>,
}

impl Format {
    /// Takes a format apart; none if its lines do not say their status.
    pub fn of(text: &str) -> Option<Self> {
        let mut pieces = Vec::new();
        let mut rest = text;
        while let Some((before, after)) = rest.split_once('$') {
            if !before.is_empty() {
                pieces.push(Piece::Text(before.to_owned()));
            }
            let (name, next) = match after.strip_prefix('{') {
                Some(braced) => braced.split_once('}')?,
                None => {
                    let is_part = |letter: char| letter.is_ascii_alphanumeric() || letter == '_';
                    after.split_at(after.find(|letter| !is_part(letter)).unwrap_or(after.len()))
                }
            };
            pieces.push(Piece::Variable(match name {
                "status" => Variable::Status,
                "upstream_addr" => Variable::UpstreamAddr,
                "upstream_status" => Variable::UpstreamStatus,
                "msec" => Variable::Milliseconds,
                "time_iso8601" => Variable::Iso8601,
                "time_local" => Variable::Local,
                "request" | "request_uri" | "uri" => Variable::Request,
                _ => Variable::Other,
            }));
            rest = next;
        }
        if !rest.is_empty() {
            pieces.push(Piece::Text(rest.to_owned()));
        }
        pieces.contains(&Piece::Variable(Variable::Status)).then_some(Self(pieces))
    }

    /// What a line of this format says; none if it is no such line, or has another status.
    pub fn read(&self, line: &str) -> Option<Said> {
        let (mut status, mut logged, mut addresses, mut statuses) = (None, None, None, None);
        let mut request = None;
        let mut rest = line;
        let mut pieces = self.0.iter().peekable();
        while let Some(piece) = pieces.next() {
            let variable = match piece {
                Piece::Text(text) => {
                    rest = rest.strip_prefix(text.as_str())?;
                    continue;
                }
                Piece::Variable(variable) => variable,
            };
            let value = match pieces.peek() {
                None => std::mem::take(&mut rest),
                // Where one ends and the other begins cannot be known.
                Some(Piece::Variable(_)) => return None,
                Some(Piece::Text(text)) => {
                    let (value, after) = rest.split_at(rest.find(text.as_str())?);
                    rest = after;
                    value
                }
            };
            match variable {
                Variable::Status => status = Some(number(value)?),
                Variable::UpstreamAddr => addresses = Some(list(value)),
                Variable::UpstreamStatus => statuses = Some(list(value)),
                Variable::Milliseconds => logged = milliseconds(value).or(logged),
                Variable::Iso8601 => logged = logged.or_else(|| iso8601(value)),
                Variable::Local => logged = logged.or_else(|| local(value)),
                Variable::Request => request = request.or(Some(value)),
                Variable::Other => {}
            }
        }
        let status = status.filter(|status| STATUSES.contains(status) && rest.is_empty())?;
        Some(Said {
            status,
            logged,
            tries: tries(status, addresses, statuses)?,
            request: request.map(shortened),
        })
    }
}

/// As much of a request line as is shown.
fn shortened(request: &str) -> String {
    request.chars().take(budget::REQUEST_SHOWN).collect()
}

/// The tries of both lists, which are of the same length; none for what nginx does not write. A dash for a status is a try that ended
/// without one, which only a client that left does; a dash for an address is none.
fn tries(
    answered: u16,
    addresses: Option<Vec<&str>>,
    statuses: Option<Vec<&str>>,
) -> Option<Option<Vec<Try>>> {
    let upstream = |word: &str| -> Option<Upstream> {
        Some(match word.strip_prefix("unix:") {
            Some(path) => Upstream::Unix(path.trim_end_matches(':').into()),
            None => match word.parse() {
                Ok(address) => Upstream::Inet(address),
                Err(_) => Upstream::Named(name(word)?.to_owned()),
            },
        })
    };
    let status = |word: &str| if word == "-" { Some(None) } else { number(word).map(Some) };
    let is_none = |words: &[&str]| matches!(words, [] | ["-"]);
    let tries: Vec<Try> = match (addresses, statuses) {
        (None, None) => return Some(None),
        (Some(addresses), _) if is_none(&addresses) => Vec::new(),
        (None, Some(statuses)) if answered != 499 && is_none(&statuses) => Vec::new(),
        (Some(addresses), None) => {
            let one = |word| Some(Try { upstream: Some(upstream(word)?), status: None });
            addresses.into_iter().map(one).collect::<Option<_>>()?
        }
        (None, Some(statuses)) => statuses
            .into_iter()
            .map(|word| Some(Try { upstream: None, status: status(word)? }))
            .collect::<Option<_>>()?,
        (Some(addresses), Some(statuses)) => {
            if addresses.len() != statuses.len() {
                return None;
            }
            let both = addresses.into_iter().zip(statuses);
            both.map(|(address, word)| {
                Some(Try { upstream: Some(upstream(address)?), status: status(word)? })
            })
            .collect::<Option<_>>()?
        }
    };
    (tries.len() <= budget::TRIES).then_some(Some(tries))
}

/// The name of a group, as hosts are named; nothing else that may stand in a line is taken for one.
fn name(word: &str) -> Option<&str> {
    let is_part = |letter: char| letter.is_ascii_alphanumeric() || "._-:[]".contains(letter);
    (word.len() <= budget::GROUP_NAME && word.chars().all(is_part)).then_some(word)
}

/// Servers are separated by commas, and by colons after an internal redirect (`ngx_http_upstream_addr_variable`,
/// src/http/ngx_http_upstream.c). Where none was tried, there is a dash or nothing.
fn list(value: &str) -> Vec<&str> {
    match value {
        "" => Vec::new(),
        _ => value.split(", ").flat_map(|part| part.split(" : ")).collect(),
    }
}

fn number(word: &str) -> Option<u16> {
    (word.len() == 3).then(|| word.parse().ok())?
}

/// `1764370860.123`.
fn milliseconds(word: &str) -> Option<(i64, u64)> {
    let (seconds, thousandths) = word.split_once('.')?;
    let (seconds, thousandths): (i64, i64) = (seconds.parse().ok()?, thousandths.parse().ok()?);
    let ns = seconds.checked_mul(1_000)?.checked_add(thousandths)?.checked_mul(1_000_000)?;
    Some((ns, SECOND / 1_000))
}

/// `2026-11-28T23:01:00+00:00`.
fn iso8601(word: &str) -> Option<(i64, u64)> {
    second(word.parse().ok()?)
}

/// `28/Nov/2026:23:01:00 +0000`.
fn local(word: &str) -> Option<(i64, u64)> {
    second(strtime::parse("%d/%b/%Y:%H:%M:%S %z", word).ok()?.to_timestamp().ok()?)
}

fn second(moment: Timestamp) -> Option<(i64, u64)> {
    Some((i64::try_from(moment.as_nanosecond()).ok()?, SECOND))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(upstream: &str, status: Option<u16>) -> Try {
        let upstream = match upstream.strip_prefix('/') {
            Some(_) => Upstream::Unix(upstream.into()),
            None => Upstream::Inet(upstream.parse().unwrap()),
        };
        Try { upstream: Some(upstream), status }
    }

    #[test]
    fn the_combined_format_says_status_and_second() {
        let format = Format::of(COMBINED).unwrap();
        let line = |status: u16| {
            format!(
                "127.0.0.1 - - [28/Nov/2026:23:01:00 +0000] \"GET / 502 HTTP/1.1\" {status} 157 \"-\" \"a [b] \\x22 502\""
            )
        };
        let said = format.read(&line(504)).unwrap();
        assert_eq!(
            said,
            Said {
                status: 504,
                logged: Some((1_795_906_860 * 1_000_000_000, SECOND)),
                tries: None,
                request: Some("GET / 502 HTTP/1.1".to_owned())
            }
        );
        assert_eq!(format.read(&line(200)), None);
        assert_eq!(format.read("502"), None);
    }

    #[test]
    fn servers_that_were_tried_are_read_with_what_they_answered() {
        let format = Format::of(
            "{\"t\":$msec,\"s\":\"${status}\",\"u\":\"$upstream_addr\",\"us\":\"$upstream_status\"}",
        )
        .unwrap();
        let read = |addresses: &str, statuses: &str| {
            let line =
                format!("{{\"t\":1764370860.123,\"s\":\"502\",\"u\":\"{addresses}\",\"us\":\"{statuses}\"}}");
            format.read(&line).map(|said| said.tries)
        };
        let said = read("10.0.0.1:80, unix:/run/a.sock : [::1]:81", "502, - : 503");
        let tries = vec![one("10.0.0.1:80", Some(502)), one("/run/a.sock", None), one("[::1]:81", Some(503))];
        assert_eq!(said, Some(Some(tries)));
        assert_eq!(read("-", "-"), Some(Some(vec![])));
        assert_eq!(read("", ""), Some(Some(vec![])));
        assert_eq!(read("10.0.0.1:80", "-"), Some(Some(vec![one("10.0.0.1:80", None)])));
        assert_eq!(read("10.0.0.1:80", "502, 502"), None);
        assert_eq!(milliseconds("1764370860.123"), Some((1_764_370_860_123_000_000, 1_000_000)));
        assert_eq!(iso8601("2026-11-28T23:01:00+00:00"), Some((1_795_906_860 * 1_000_000_000, SECOND)));
    }

    #[test]
    fn a_format_without_a_status_and_variables_without_a_seam_are_not_read() {
        assert_eq!(Format::of("$remote_addr $request"), None);
        assert_eq!(Format::of("$remote_addr$status").unwrap().read("127.0.0.1502"), None);
    }
}
