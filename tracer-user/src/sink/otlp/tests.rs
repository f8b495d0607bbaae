//! What a collector gets, decoded again.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
    thread,
};

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, metrics::v1::ExportMetricsServiceRequest},
    metrics::v1::metric::Data,
};
use prost::Message;

use super::*;
use crate::{
    model::facts::Sources,
    sink::{
        metrics::{METRICS, Metrics},
        samples,
    },
};

#[test]
fn a_verdict_comes_out_as_it_went_in() {
    let records = [samples::killed(), samples::hostile()].map(|verdict| Record::of(&verdict, 99));
    let request = logs::request(&records).encode_to_vec();
    let request = ExportLogsServiceRequest::decode(&*request).unwrap();
    let of = &request.resource_logs[0];
    let names: Vec<_> =
        of.resource.iter().flat_map(|of| &of.attributes).map(|own| own.key.as_str()).collect();
    assert_eq!(names, ["service.name", "service.version", "host.name"]);
    let records = &of.scope_logs[0].log_records;
    assert_eq!(records.len(), 2);
    let first = &records[0];
    assert_eq!((first.time_unix_nano, first.observed_time_unix_nano), (1_795_174_766_123_456_789, 99));
    assert_eq!((first.severity_number, first.severity_text.as_str()), (17, "ERROR"));
    assert!(first.attributes.iter().any(|own| own.key == "error.type"));
    assert_eq!(first.event_name, "why502.verdict");
}

#[test]
fn every_metric_of_the_table_is_sent_as_what_it_is() {
    let mut counted = Metrics::new(&Sources::default(), 100);
    counted.verdict(&samples::killed()).unwrap();
    counted.summary(&Default::default()).unwrap();
    let _drops = counted.shared().drops_of("otlp");
    let request = metrics::request(&Reading::now(counted.shared())).encode_to_vec();
    let request = ExportMetricsServiceRequest::decode(&*request).unwrap();
    let sent = &request.resource_metrics[0].scope_metrics[0].metrics;
    for metric in sent {
        let known = METRICS.iter().find(|known| known.name == metric.name).unwrap();
        let is_it = match metric.data.as_ref().unwrap() {
            Data::Sum(sum) => known.kind.name() == "counter" && sum.is_monotonic,
            Data::Gauge(_) => matches!(known.kind.name(), "gauge" | "info"),
            Data::Histogram(histogram) => {
                let point = &histogram.data_points[0];
                assert_eq!(point.bucket_counts.len(), point.explicit_bounds.len() + 1);
                known.kind.name() == "histogram"
            }
            _ => false,
        };
        assert!(is_it, "{metric:?}");
    }
    let has = |name: &str| sent.iter().any(|metric| metric.name == name);
    assert!(has("why502_failures_total") && has("why502_verdicts_dropped_total") && has("why502_build_info"));
}

#[test]
fn a_partial_success_says_how_many_were_refused() {
    use opentelemetry_proto::tonic::collector::logs::v1::{
        ExportLogsPartialSuccess, ExportLogsServiceResponse,
    };
    let partial_success =
        Some(ExportLogsPartialSuccess { rejected_log_records: 2, error_message: "too long".to_owned() });
    let body = ExportLogsServiceResponse { partial_success }.encode_to_vec();
    assert_eq!(logs::refused(&body), Some((2, "too long".to_owned())));
    assert_eq!(logs::refused(b""), None);
    assert_eq!(logs::refused(b"{}"), None);
}

/// The answer of a client to a server that says this, whatever it is asked.
fn answered(says: &'static [u8]) -> Answer {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = [0; 4096];
        let length = stream.read(&mut head).unwrap();
        stream.write_all(says).unwrap();
        String::from_utf8_lossy(&head[..length]).into_owned()
    });
    let answer = Client::new(collector).unwrap().post("/v1/logs", &logs::request(&[]));
    let head = server.join().unwrap();
    assert!(head.starts_with("POST /v1/logs HTTP/1.1\r\n"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf\r\n"), "{head}");
    answer
}

#[test]
fn what_is_no_answer_is_tried_again_and_what_is_one_is_believed() {
    assert!(matches!(answered(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"), Answer::Taken(_)));
    assert!(matches!(answered(b"HTTP/1.1 400 Bad Request\r\n\r\n"), Answer::Refused(_)));
    for nonsense in [&b""[..], b"\x00\x01", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"] {
        assert!(matches!(answered(nonsense), Answer::Later { after: None, .. }), "{nonsense:?}");
    }
    // Nobody listens there.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let client = Client::new(format!("http://{gone}").parse().unwrap()).unwrap();
    assert!(matches!(client.post("/v1/logs", &logs::request(&[])), Answer::Later { .. }));
}
