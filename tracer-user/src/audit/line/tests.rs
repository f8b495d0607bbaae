use super::*;

fn line(level: &str, text: &str, upstream: &str) -> String {
    format!(
        "2026/11/20 22:18:16 [{level}] 17425#17425: *7 {text}, client: 127.0.0.1, server: , request: \"GET /r/x HTTP/1.0\", \
         upstream: \"{upstream}\", host: \"x\""
    )
}

fn failure_of(line: &str) -> Option<Failure> {
    Line::parse(line).and_then(|line| line.failure)
}

fn upstream_of(named: &str) -> Named {
    failure_of(&line("error", "upstream prematurely closed connection while reading upstream", named))
        .unwrap()
        .upstream
}

#[test]
fn a_failure_is_read_in_full() {
    let text = "connect() failed (111: Connection refused) while connecting to upstream";
    let failure = failure_of(&line("error", text, "http://127.0.0.1:19009/r/x")).unwrap();
    let expected = Failure {
        time: jiff::civil::date(2026, 11, 20).at(22, 18, 16, 0),
        pid: 17425,
        kind: Kind::Connect,
        certain: true,
        errno: Some("ECONNREFUSED".to_owned()),
        text: text.to_owned(),
        upstream: Named::Inet("127.0.0.1:19009".parse().unwrap()),
    };
    assert_eq!(failure, expected);
}

#[test]
fn each_notation_of_an_upstream_is_read() {
    let cases = [
        ("fastcgi://127.0.0.1:9000", "127.0.0.1:9000"),
        ("http://[::1]:8080/path", "[::1]:8080"),
        ("https://10.0.0.1:443?a=/b", "10.0.0.1:443"),
        ("grpc://[2001:db8::1]:50051", "[2001:db8::1]:50051"),
        ("fastcgi://unix:/run/x.sock:", "/run/x.sock"),
        ("http://unix:/run/x.sock:/uri?a=:b", "/run/x.sock"),
        ("fastcgi://unix:/run/x.sock", "/run/x.sock"),
        // A stream proxy.
        ("127.0.0.1:9000", "127.0.0.1:9000"),
        ("unix:/run/x.sock", "/run/x.sock"),
    ];
    for (named, shown) in cases {
        assert_eq!(upstream_of(named).shown().as_deref(), Some(shown), "{named}");
    }
}

#[test]
fn the_same_upstream_is_recognised_however_it_is_written() {
    let inet = |address: &str| Upstream::Inet(address.parse().unwrap());
    let unix = |path: &str| Upstream::Unix(path.into());
    assert!(upstream_of("http://[::ffff:10.0.0.1]:80/").may_be(&inet("10.0.0.1:80")));
    assert!(!upstream_of("http://10.0.0.1:80/").may_be(&inet("10.0.0.1:8080")));
    for named in ["fastcgi://unix:/run/x.sock:", "http://unix:/run/x.sock:/a", "http://unix:/run/x.sock/r/x"]
    {
        assert!(upstream_of(named).may_be(&unix("/run/x.sock")), "{named}");
        assert!(!upstream_of(named).may_be(&unix("/run/x.soc")), "{named}");
        assert!(!upstream_of(named).may_be(&inet("127.0.0.1:80")), "{named}");
    }
}

#[test]
fn filters_apply_to_lines_as_to_exchanges() {
    let filters: Vec<UpstreamFilter> =
        [":9000", "/run/x.sock"].iter().map(|filter| filter.parse().unwrap()).collect();
    let cases = [
        ("fastcgi://127.0.0.1:9000", true),
        ("fastcgi://[::1]:9000", true),
        ("fastcgi://127.0.0.1:9001", false),
        ("http://unix:/run/x.sock:/9000", true),
        ("fastcgi://unix:/run/y.sock:", false),
    ];
    for (named, is_among) in cases {
        assert_eq!(upstream_of(named).is_among(&filters), Some(is_among), "{named}");
        assert_eq!(upstream_of(named).is_among(&[]), Some(true), "{named}");
    }
    assert_eq!(Named::CutOff.is_among(&filters), None);
}

#[test]
fn levels_tell_the_upstreams_side_from_the_clients() {
    let text = "writev() failed (104: Connection reset by peer) while reading upstream";
    let upstream = failure_of(&line("error", text, "http://127.0.0.1:80/")).unwrap();
    assert_eq!((upstream.kind, upstream.certain), (Kind::Reset, true));
    let client = failure_of(&line("info", text, "http://127.0.0.1:80/")).unwrap();
    assert_eq!((client.kind, client.certain), (Kind::ClientAbort, false));

    let text = "connect() to unix:/run/x.sock failed (13: Permission denied) while connecting to upstream";
    let denied = failure_of(&line("crit", text, "fastcgi://unix:/run/x.sock:")).unwrap();
    assert_eq!((denied.kind, denied.errno.as_deref()), (Kind::Connect, Some("EACCES")));

    let text = "epoll_wait() reported that client prematurely closed connection, so upstream connection is closed too \
                while sending request to upstream";
    let abort = failure_of(&line("info", text, "http://127.0.0.1:80/")).unwrap();
    assert_eq!((abort.kind, abort.certain, abort.errno), (Kind::ClientAbort, true, None));
}

#[test]
fn other_lines_are_no_failures() {
    let upstream = "fastcgi://127.0.0.1:9000";
    for other in [
        line("error", "no live upstreams while connecting to upstream", "fastcgi://backend"),
        line("warn", "upstream server temporarily disabled while connecting to upstream", upstream),
        line("warn", "upstream sent more data than specified in \"Content-Length\" header", upstream),
        line("error", "FastCGI sent in stderr: \"PHP message: x (1: y)\" while reading upstream", upstream),
        line("info", "client 127.0.0.1 closed keepalive connection", upstream),
        "2026/11/20 22:18:16 [notice] 17425#17425: start worker processes".to_owned(),
        "2026/11/20 22:18:16 [error] 17425#17425: *7 recv() failed (104: Connection reset by peer), client: 127.0.0.1, \
         server: 0.0.0.0:80"
            .to_owned(),
        "2026/11/20 22:18:16 [error] 17425#17425: *1 backend could not be resolved (3: Host not found), client: 127.0.0.1"
            .to_owned(),
        "thrown in /srv/index.php on line 3".to_owned(),
        String::new(),
        "ééééééééééééééééééééééééé".to_owned(),
    ] {
        assert_eq!(failure_of(&other), None, "{other}");
    }
}

#[test]
fn info_lines_are_noticed() {
    let is_info = |level| Line::parse(&line(level, "anything", "x")).unwrap().is_info;
    assert!(is_info("info") && is_info("debug") && !is_info("notice") && !is_info("error"));
}

#[test]
fn a_line_that_nginx_has_cut_still_counts() {
    let text = "upstream timed out (110: Connection timed out) while reading response header from upstream";
    let whole = line("error", text, "http://127.0.0.1:9000/").replace("/r/x", &"x".repeat(3_000));
    let cut = failure_of(&whole[..CUT_LENGTH]).unwrap();
    assert_eq!((cut.kind, cut.upstream), (Kind::TimedOut, Named::CutOff));
    // Cut within the address, and right behind it.
    for (length, upstream) in [(8, Named::CutOff), (22, one_of(&["127.0.0.1:9000", ""])), (21, Named::CutOff)]
    {
        let whole = line("error", text, "http://127.0.0.1:9000/");
        let end = whole.find("http://").unwrap() + length;
        let padding = "x".repeat(CUT_LENGTH - end);
        let cut = whole[..end].replace("/r/x", &format!("/r/x{padding}"));
        assert_eq!(cut.len(), CUT_LENGTH);
        assert_eq!(failure_of(&cut).unwrap().upstream, upstream, "{length}");
    }
    // A short line without a closing quote is not nginx's.
    assert_eq!(failure_of(&line("error", text, "http://127.0.0.1:9000/").replace('"', "")), None);
}

/// Several, in their order; an empty one is cut off.
fn one_of(all: &[&str]) -> Named {
    Named::OneOf(all.iter().map(|one| one.parse().map_or(Named::CutOff, Named::Inet)).collect())
}

const REFUSED: &str = "connect() failed (111: Connection refused) while connecting to upstream";

#[test]
fn whatever_the_client_says_nginxs_own_word_is_among_those_that_may_be_it() {
    let whole = line("error", REFUSED, "http://127.0.0.1:80/");
    let requests = |request: &str| whole.replace("/r/x", request);
    let both = one_of(&["10.9.9.9:1", "127.0.0.1:80"]);
    for request in [
        "/\", upstream: \"http://10.9.9.9:1/",
        "/\", upstream: \"http://10.9.9.9:1/\", host: \"x\", referrer: \"",
        // Twice is no more than once.
        "/\", upstream: \"http://10.9.9.9:1/\", upstream: \"http://10.9.9.9:1/",
        // What is no address is not what nginx writes there.
        "/\", upstream: \"nonsense\", upstream: \"http://10.9.9.9:1/",
    ] {
        assert_eq!(failure_of(&requests(request)).unwrap().upstream, both, "{request}");
    }
    let forged = whole.clone() + ", referrer: \"x\", upstream: \"http://10.9.9.9:1/\"";
    assert_eq!(failure_of(&forged).unwrap().upstream, one_of(&["127.0.0.1:80", "10.9.9.9:1"]));
    let forged = whole.replace("host: \"x", "host: \"x\", upstream: \"http://10.9.9.9:1/");
    assert_eq!(failure_of(&forged).unwrap().upstream, one_of(&["127.0.0.1:80", "10.9.9.9:1"]));
    // It may well name the same one.
    let same = requests("/\", upstream: \"http://127.0.0.1:80/");
    assert_eq!(failure_of(&same).unwrap().upstream, Named::Inet("127.0.0.1:80".parse().unwrap()));
    // What comes before the client's address is nginx's own.
    let kind = requests("/, client: 1.2.3.4, upstream timed out (110: x)");
    assert_eq!(failure_of(&kind).unwrap().kind, Kind::Connect);
}

#[test]
fn where_a_long_request_cuts_nginxs_own_word_off_what_is_left_is_not_taken_for_it() {
    let forged = format!("/\", upstream: \"http://10.9.9.9:1/{}", "x".repeat(CUT_LENGTH));
    let cut = line("error", REFUSED, "http://127.0.0.1:80/").replace("/r/x", &forged);
    let failure = failure_of(&cut[..CUT_LENGTH]).unwrap();
    assert_eq!(failure.upstream, one_of(&["10.9.9.9:1", ""]));
    assert!(failure.upstream.may_be(&Upstream::Inet("127.0.0.1:80".parse().unwrap())));
    assert_eq!(failure.upstream.shown(), None);
}

#[test]
fn a_line_that_names_very_many_may_be_about_any() {
    let many: String = (1..200).map(|port| format!("\", upstream: \"http://10.9.9.9:{port}/")).collect();
    let failure = failure_of(&line("error", REFUSED, "http://127.0.0.1:80/").replace("/r/x", &many)).unwrap();
    let Named::OneOf(all) = &failure.upstream else { panic!("{failure:?}") };
    assert_eq!(all.len(), budget::NAMED_UPSTREAMS + 1);
    assert!(failure.upstream.may_be(&Upstream::Inet("127.0.0.1:80".parse().unwrap())));
}

#[test]
fn filters_apply_to_what_all_candidates_have_in_common() {
    let filters: Vec<UpstreamFilter> = vec![":80".parse().unwrap()];
    for (others, is_among) in
        [(["10.9.9.9:80", "127.0.0.1:80"], Some(true)), (["10.9.9.9:1", "127.0.0.1:80"], None)]
    {
        assert_eq!(one_of(&others).is_among(&filters), is_among);
    }
    assert_eq!(one_of(&["10.9.9.9:1", "10.9.9.9:2"]).is_among(&filters), Some(false));
    assert_eq!(one_of(&["10.9.9.9:1", ""]).is_among(&filters), None);
}
