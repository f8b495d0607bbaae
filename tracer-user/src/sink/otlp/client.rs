//! What posts to the collector, and what it makes of the answers, as the specification of OTLP/HTTP says.

use std::{pin::pin, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Request, StatusCode,
    client::conn::http1,
    header::{CONNECTION, CONTENT_TYPE, HOST, HeaderMap, RETRY_AFTER, USER_AGENT},
};
use hyper_util::rt::TokioIo;
use jiff::{Timestamp, fmt::rfc2822};
use prost::Message;
use tokio::{net::TcpStream, runtime::Runtime, time::timeout};

use crate::model::destination::Collector;

/// How long a request may take, from connecting to the last byte of the answer.
const LIMIT: Duration = Duration::from_secs(10);

/// Bytes of an answer that are read.
const LONGEST: usize = 64 << 10;

/// What the collector makes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// It has it; this is what it said.
    Taken(Bytes),
    /// It does not want it, now or later.
    Refused(String),
    /// Not now: it may be tried again, after this time if it said one.
    Later { why: String, after: Option<Duration> },
}

/// Posts, one request after the other.
#[derive(Debug)]
pub(super) struct Client {
    collector: Collector,
    runtime: Runtime,
}

impl Client {
    pub(super) fn new(collector: Collector) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .context("nothing can be sent to a collector")?;
        Ok(Self { collector, runtime })
    }

    /// Posts a message and waits for the answer.
    pub(super) fn post(&self, path: &str, message: &impl Message) -> Answer {
        let body = Bytes::from(message.encode_to_vec());
        let answered = async { timeout(LIMIT, exchange(&self.collector, path, body)).await };
        match self.runtime.block_on(answered) {
            Ok(Ok((status, headers, body))) => answer(status, &headers, body),
            Ok(Err(error)) => Answer::Later { why: format!("{error:#}"), after: None },
            Err(_elapsed) => {
                let why = format!("it has not answered within {} s", LIMIT.as_secs());
                Answer::Later { why, after: None }
            }
        }
    }
}

async fn exchange(
    collector: &Collector,
    path: &str,
    body: Bytes,
) -> anyhow::Result<(StatusCode, HeaderMap, Bytes)> {
    let request = Request::post(format!("{}{path}", collector.path))
        .header(HOST, collector.authority())
        .header(USER_AGENT, concat!("why502/", env!("CARGO_PKG_VERSION")))
        .header(CONTENT_TYPE, "application/x-protobuf")
        .header(CONNECTION, "close")
        .body(Full::new(body))?;
    let stream =
        TcpStream::connect((&*collector.host, collector.port)).await.context("it cannot be reached")?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let answered = async {
        let response = sender.send_request(request).await.context("it gave no answer")?;
        let (head, body) = response.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| anyhow::anyhow!(error))?;
        Ok((head.status, head.headers, body.to_bytes()))
    };
    let (mut answered, mut connection) = (pin!(answered), pin!(connection));
    // What went wrong with the connection is what the request's own error says.
    let mut is_open = true;
    loop {
        tokio::select! {
            biased;
            answer = &mut answered => return answer,
            _closed = &mut connection, if is_open => is_open = false,
        }
    }
}

fn answer(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Answer {
    let why = || format!("it answered {status}");
    match status {
        status if status.is_success() => Answer::Taken(body),
        StatusCode::TOO_MANY_REQUESTS
        | StatusCode::BAD_GATEWAY
        | StatusCode::SERVICE_UNAVAILABLE
        | StatusCode::GATEWAY_TIMEOUT => Answer::Later { why: why(), after: asked(headers) },
        _ => Answer::Refused(why()),
    }
}

/// How long the collector asks to be left alone: seconds, or until a date.
fn asked(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let until = rfc2822::parse(text).ok()?.timestamp();
    Some(Duration::try_from(until.duration_since(Timestamp::now())).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, retry_after: Option<&str>) -> Answer {
        let mut headers = HeaderMap::new();
        if let Some(text) = retry_after {
            headers.insert(RETRY_AFTER, text.parse().unwrap());
        }
        answer(StatusCode::from_u16(status).unwrap(), &headers, Bytes::new())
    }

    #[test]
    fn only_what_may_get_better_is_tried_again() {
        for status in [200, 202] {
            assert!(matches!(of(status, None), Answer::Taken(_)), "{status}");
        }
        for status in [429, 502, 503, 504] {
            assert!(matches!(of(status, None), Answer::Later { after: None, .. }), "{status}");
        }
        for status in [301, 400, 401, 404, 413, 500, 501] {
            assert!(matches!(of(status, Some("1")), Answer::Refused(_)), "{status}");
        }
    }

    #[test]
    fn a_time_is_asked_for_in_seconds_or_by_a_date() {
        let after = |text| match of(503, Some(text)) {
            Answer::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::ZERO));
        assert!(
            after("Fri, 21 Oct 2095 07:28:00 GMT").is_some_and(|after| after > Duration::from_secs(1 << 30))
        );
        for text in ["soon", "-1", "1.5", ""] {
            assert_eq!(after(text), None, "{text}");
        }
    }
}
