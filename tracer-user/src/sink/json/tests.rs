use super::*;
use crate::{
    model::{
        answers::{Answers, Kind},
        audit::Report,
        pressure::{GroupPressure, Pressure, Quota, Stall, Stalls},
        verdict::{Summary, Verdict},
    },
    sink::samples,
};

fn lines(write: impl FnOnce(&mut Json<&mut Vec<u8>>) -> io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut Json::new(&mut out)).unwrap();
    let lines = String::from_utf8(out).unwrap();
    for line in lines.lines() {
        assert!(schema::fits(line), "{line}");
    }
    lines
}

#[test]
fn a_line_that_lacks_a_field_or_says_something_else_does_not_fit_the_schema() {
    let line = lines(|json| json.verdict(&samples::killed()));
    for (field, instead) in [
        (r#""kept":null,"#, ""),
        (r#""proven""#, r#""sure""#),
        (r#""verdict""#, r#""word""#),
        (r#""status":502"#, r#""status":"502""#),
    ] {
        let other = line.replacen(field, instead, 1);
        assert_ne!(other, line);
        assert!(!schema::fits(&other), "{other}");
    }
}

#[test]
fn a_verdict_is_what_the_contract_says() {
    let golden = concat!(
        r#"{"v":1,"type":"verdict","time":"2026-11-20T11:39:26.123456Z","cause":"reset","detail":"worker_killed","#,
        r#""confidence":"proven","nginx":{"pid":24945,"comm":"nginx","unit":null,"container":null,"pod":null,"local":"127.0.0.1:52654"},"#,
        r#""upstream":{"family":"inet","addr":"127.0.0.1:19001"},"group":null,"request":null,"status":502,"errno":"ECONNRESET","#,
        r#""error_log":"recv() failed (104: Connection reset by peer) while reading response header from upstream","word":null,"servers":[],"outer":null,"#,
        r#""worker":{"pid":24940,"comm":"php-fpm8.2","unit":"php8.2-fpm.service","container":null,"pod":null,"signal":"SIGTERM","doing":null},"#,
        r#""killer":{"pid":24938,"comm":"php-fpm8.2","unit":null,"container":null,"pod":null},"pressure":null,"#,
        r#""us":{"connected":45,"accepted":60,"first_sent":52,"first_received":null,"ended":3259000,"worker_ended":3259010},"#,
        r#""bytes":{"sent":552,"received":0,"unread":8},"queue":{"depth":0,"limit":4},"kept":null,"near":null,"closed":null,"holders":null,"reached":null,"#,
        r#""evidence":[{"us":-400,"source":"raw_tp/inet_sock_set_state","fact":"nginx 24945 called connect"},"#,
        r#"{"us":3256900,"source":"raw_tp/signal_generate","fact":"php-fpm8.2 24938 sent SIGTERM to 24940"}],"#,
        r#""explanation":"php-fpm master 24938 sent SIGTERM to worker 24940, 3.257 s into the request; "#,
        r#"8 bytes were still unread, so the kernel reset the connection and nginx read ECONNRESET.","#,
        r#""advice":"request_terminate_timeout of the pool on 127.0.0.1:19001 "#,
        r#"(this request was cut off at about 3 s)."}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.verdict(&samples::killed())), golden);
}

#[test]
fn what_is_unknown_is_null_and_present() {
    let golden = concat!(
        r#"{"v":1,"type":"verdict","time":"2026-11-20T11:39:27.000000Z","cause":"unknown","detail":"evidence_lost","#,
        r#""confidence":"incomplete","nginx":{"pid":24945,"comm":"nginx","unit":null,"container":null,"pod":null,"local":null},"#,
        r#""upstream":{"family":"unix","addr":"/run/php/php8.2-fpm.sock"},"group":null,"request":null,"status":null,"errno":null,"#,
        r#""error_log":null,"word":null,"servers":[],"outer":null,"worker":null,"killer":null,"pressure":null,"us":{"connected":null,"accepted":null,"first_sent":null,"#,
        r#""first_received":null,"ended":null,"worker_ended":null},"bytes":{"sent":0,"received":0,"unread":null},"#,
        r#""queue":null,"kept":null,"near":null,"closed":null,"holders":null,"reached":null,"evidence":[],"explanation":"Facts were lost.","advice":"the summary."}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.verdict(&samples::unknown())), golden);
}

#[test]
fn what_a_slow_worker_was_doing_is_emitted_in_samples() {
    let line = lines(|json| json.verdict(&samples::slow_worker()));
    let golden = concat!(
        r#""worker":{"pid":24940,"comm":"php-fpm8.2","unit":null,"container":null,"pod":null,"signal":null,"#,
        r#""doing":{"samples":60,"waits":[{"on":"10.0.0.5:3306","samples":58}],"running":2}}"#
    );
    assert!(line.contains(golden), "{line}");
}

#[test]
fn an_ipv6_upstream_is_inet6_in_brackets() {
    let line = lines(|json| json.verdict(&samples::never_accepted()));
    assert!(line.contains(r#""upstream":{"family":"inet6","addr":"[2001:db8::7]:9000"}"#), "{line}");
}

#[test]
fn a_line_stays_one_line_whatever_a_name_holds() {
    let line = lines(|json| json.verdict(&samples::hostile()));
    assert_eq!(line.matches('\n').count(), 1);
    assert!(!line.contains('\u{1b}'), "{line:?}");
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["nginx"]["comm"], "ngi\nnx");
}

#[test]
fn a_delayed_exchange_is_what_the_contract_says() {
    let golden = concat!(
        r#"{"v":1,"type":"delayed","time":"2026-11-20T11:39:28.500000Z","nginx":{"pid":24945,"comm":"nginx","unit":null,"container":null,"pod":null},"#,
        r#""upstream":{"family":"inet","addr":"127.0.0.1:19001"},"delay_us":1019000,"syn_retransmits":1,"#,
        r#""queue":{"depth":5,"limit":4},"pressure":null,"explanation":"The accept queue was full."}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.delayed(&samples::delayed())), golden);
}

#[test]
fn a_summary_counts_by_cause_in_the_order_given() {
    let golden = concat!(
        r#"{"v":1,"type":"summary","elapsed_us":90500000,"exchanges":12345,"failures":15,"#,
        r#""causes":{"refused/no_listener":12,"reset/worker_killed":3},"delayed":2,"ended_early":0,"lost":0,"untracked":0,"forgotten":0,"ignored":{"connections":0,"processes":[]},"stepped_back":0,"system_calls":false,"#,
        r#""words":{"said":15,"explained":15,"unexplained":[],"truncated":false,"notes":0,"left_out":0},"answers":null}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.summary(&samples::summary())), golden);
}

#[test]
fn what_clients_were_answered_is_counted_by_status_and_kind() {
    let counts = [((502, Kind::Explained), 3), ((503, Kind::Rule), 2)].into_iter().collect();
    let answers = Some(Answers { counts, left_out: 1 });
    let line = lines(|json| json.summary(&Summary { answers: answers.clone(), ..samples::summary() }));
    let golden = concat!(
        r#""answers":{"statuses":{"499":{"explained":0,"limit_conn":0,"limit_req":0,"return":0,"rewritten":0,"rule":0,"unknown":0,"upstream":0},"#,
        r#""502":{"explained":3,"limit_conn":0,"limit_req":0,"return":0,"rewritten":0,"rule":0,"unknown":0,"upstream":0},"#,
        r#""503":{"explained":0,"limit_conn":0,"limit_req":0,"return":0,"rewritten":0,"rule":2,"unknown":0,"upstream":0},"#,
        r#""504":{"explained":0,"limit_conn":0,"limit_req":0,"return":0,"rewritten":0,"rule":0,"unknown":0,"upstream":0}},"left_out":1}}"#,
    );
    assert!(line.contains(golden), "{line}");
}

#[test]
fn an_audit_is_what_the_contract_says() {
    let golden = concat!(
        r#"{"v":1,"type":"audit","logged":12,"explained":11,"unexplained":[{"time":"2026-11-20T11:39:26.000000Z","#,
        r#""pid":24945,"upstream":"10.0.0.1:80","line":"2026/11/20 11:39:26 [error] 24945#24945: *7 upstream timed out "#,
        r#"(110: Connection timed out) while connecting to upstream, client: 127.0.0.1, server: , "#,
        r#"request: \"GET /\u001b[2J HTTP/1.0\", upstream: \"http://10.0.0.1:80/\""}],"#,
        r#""unlogged":[{"time":"2026-11-20T11:39:26.500000Z","cause":"reset","detail":"worker_killed","pid":24946,"#,
        r#""upstream":"/run/php/php8.2-fpm.sock"}],"truncated":false,"ambiguous":[],"early":1,"unaudited":2,"given_up":0}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.audit(&samples::audit())), golden);
}

#[test]
fn an_audit_that_leaves_some_out_says_so() {
    let one = samples::audit().unexplained.shown.remove(0);
    let many = Report { unexplained: std::iter::repeat_n(one, 1_001).collect(), ..samples::audit() };
    let line = lines(|json| json.audit(&many));
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["truncated"], true);
    assert_eq!(value["unexplained"].as_array().unwrap().len(), 1_000);
}

#[test]
fn a_group_is_named_with_each_server_and_what_took_it_out() {
    let line = lines(|json| json.verdict(&samples::no_live_upstreams()));
    let golden = concat!(
        r#""servers":[{"upstream":{"family":"inet","addr":"127.0.0.1:19001"},"cause":"refused","detail":"no_listener","#,
        r#""ago_us":1200000,"down":false,"max_fails":3,"fail_timeout_us":30000000},"#,
        r#"{"upstream":{"family":"unix","addr":"/run/php/php8.2-fpm.sock"},"cause":null,"detail":null,"ago_us":null,"#,
        r#""down":true,"max_fails":3,"fail_timeout_us":30000000}],"#
    );
    assert!(line.contains(golden) && line.contains(r#""upstream":null,"group":"pair","#), "{line}");
}

#[test]
fn a_note_is_a_line_of_its_own_type() {
    let golden = concat!(
        r#"{"v":1,"type":"note","time":"2026-11-20T11:39:30.000000Z","nginx":{"pid":24945,"comm":"nginx","unit":null,"container":null,"pod":null},"#,
        r#""upstream":{"family":"unix","addr":"/run/php.sock"},"#,
        r#""word":{"level":"error","errno":null,"message":"FastCGI sent in stderr: \"…\"","#,
        r#""while":"reading response header from upstream","connection":17},"explanation":"A FastCGI application wrote."}"#,
        "\n"
    );
    assert_eq!(lines(|json| json.note(&samples::note())), golden);
}

#[test]
fn what_was_short_is_emitted_in_microseconds() {
    let stall = |some| Stall { some: Some(some), full: None };
    let stalls = Stalls { cpu: stall(7), ..Stalls::default() };
    let path = "/system.slice/php8.2-fpm.service".to_owned();
    let quota = Some(Quota { path: path.clone(), throttled_us: 4_100_000, throttled: 41, periods: 50 });
    let group = Some(GroupPressure { us: 4_900_000, path, stalls, quota });
    let pressure = Pressure { us: 5_000_000, host: stalls, running: Some(3), cpus: None, group };
    let line = lines(|output| output.verdict(&Verdict { pressure: Some(pressure), ..samples::killed() }));
    let some = r#""cpu":{"some_us":7,"full_us":null},"io":{"some_us":null,"full_us":null},"memory":{"some_us":null,"full_us":null}"#;
    let expected = format!(
        r#""pressure":{{"us":5000000,"host":{{{some}}},"running":3,"cpus":null,"cgroup":{{"us":4900000,"path":"/system.slice/php8.2-fpm.service",{some},"quota":{{"path":"/system.slice/php8.2-fpm.service","throttled_us":4100000,"throttled_periods":41,"periods":50}}}}}}"#
    );
    assert!(line.contains(&expected), "{line}");
}
