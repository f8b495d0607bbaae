//! Holds verdicts against nginx's error log: each failure that nginx logged has exactly one verdict, and each
//! verdict is about a failure that nginx logged.

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use nix::errno::Errno;

use crate::error_log::{Failure, Kind};
use crate::tracer::Account;
use crate::{Nginx, Tracer, Verdict, wait};

/// Stops a tracer once it has emitted so many failures, which are all that nginx logged, and holds its account against nginx's log.
pub fn account(tracer: Tracer, nginx: &Nginx, failures: usize) -> Result<Account> {
    tracer.wait_for(failures)?;
    let account = tracer.stop()?;
    account.is_orderly()?;
    ensure!(nginx.failures().len() == failures, "{:#?}", nginx.failures());
    pair_off(&nginx.failures(), &account.verdicts)?;
    Ok(account)
}

/// Succeeds if failures and verdicts pair off without a rest, by nginx worker, upstream, errno, and the text
/// of the log line if the verdict predicts one.
pub fn pair_off(failures: &[Failure], verdicts: &[Verdict]) -> Result<()> {
    pair_off_but_for(0, failures, verdicts)
}

/// The same where so many failures at most may have no verdict.
pub fn pair_off_but_for(missing: usize, failures: &[Failure], verdicts: &[Verdict]) -> Result<()> {
    let mut left: Vec<&Verdict> = verdicts.iter().collect();
    let mut unexplained = Vec::new();
    // Where no upstream was left to try there was no exchange.
    for failure in failures.iter().filter(|failure| failure.kind != Kind::NoLiveUpstreams) {
        // A verdict without a text could be taken from a failure that it alone fits: exact ones first.
        let fit = left.iter().position(|verdict| fits(verdict, failure) && verdict.error_log.is_some());
        match fit.or_else(|| left.iter().position(|verdict| fits(verdict, failure))) {
            Some(index) => drop(left.swap_remove(index)),
            None => unexplained.push(failure),
        }
    }
    ensure!(
        unexplained.len() <= missing && left.is_empty(),
        "{} of {} failures have no verdict, {} of {} verdicts no failure.\nUnexplained: {:#?}\nUnlogged: {:#?}",
        unexplained.len(),
        failures.len(),
        left.len(),
        verdicts.len(),
        &unexplained[..unexplained.len().min(5)],
        &left[..left.len().min(5)],
    );
    Ok(())
}

/// Succeeds if lines and verdicts pair off one to one where nginx's word is heard: by connection number, level, errno, message and what
/// nginx was doing, besides what [`pair_off`] goes by. A client that went is no word at level error, and may have none.
pub fn pair_off_words(failures: &[Failure], verdicts: &[Verdict]) -> Result<()> {
    pair_off_words_but_for(0, failures, verdicts)
}

/// The same where so many lines have no verdict.
pub fn pair_off_words_but_for(missing: usize, failures: &[Failure], verdicts: &[Verdict]) -> Result<()> {
    let mut left: Vec<&Verdict> = verdicts.iter().collect();
    let mut unexplained = Vec::new();
    let mut lines: Vec<&Failure> = failures.iter().collect();
    lines.sort_by_key(|line| (line.pid, line.connection));
    for lines in lines.chunk_by(|line, next| is_said_twice(line, next)) {
        let fit =
            |verdict: &&Verdict| lines.iter().any(|line| fits(verdict, line) && has_word(verdict, line));
        match left.iter().position(fit) {
            Some(index) => drop(left.remove(index)),
            None => unexplained.push(lines),
        }
    }
    ensure!(
        unexplained.len() == missing && left.is_empty(),
        "{} of nginx's {} lines have no verdict, {} of {} verdicts no line.\nUnexplained: {:#?}\nUnlogged: {:#?}",
        unexplained.len(),
        failures.len(),
        left.len(),
        verdicts.len(),
        &unexplained[..unexplained.len().min(5)],
        &left[..left.len().min(5)],
    );
    Ok(())
}

/// Whether a line is a detail of the next one: `upstream sent invalid http2 table index: 100`, and then `upstream sent invalid header`.
fn is_said_twice(line: &Failure, next: &Failure) -> bool {
    let exchange = |line: &Failure| (line.pid, line.connection, line.kind, line.upstream.clone());
    line.kind == Kind::RejectedResponse && exchange(line) == exchange(next)
}

fn has_word(verdict: &Verdict, line: &Failure) -> bool {
    let Some(word) = &verdict.word else { return line.kind == Kind::ClientAbort };
    word.connection == line.connection
        && word.level == line.level
        && word.errno.filter(|number| *number != 0) == line.errno
        && word.doing == line.doing
        && is_heard_as(&line.message, &word.message)
        && (verdict.group.is_none() || verdict.group == line.group || line.group.is_none())
}

/// Whether a message is what the tracer heard, which has an ellipsis for each argument that it does not read.
fn is_heard_as(message: &str, heard: &str) -> bool {
    let mut pieces = heard.split('…');
    let Some(mut rest) = pieces.next().and_then(|first| message.strip_prefix(first)) else { return false };
    let mut last = None;
    for piece in pieces {
        let Some((_, after)) = rest.split_once(piece) else { return false };
        (rest, last) = (after, Some(piece));
    }
    // What is left out at the end may be anything.
    rest.is_empty() || last == Some("")
}

fn fits(verdict: &Verdict, failure: &Failure) -> bool {
    let upstream = failure.upstream.as_ref().map(ToString::to_string);
    verdict.nginx.pid == failure.pid
        && upstream.is_none_or(|upstream| verdict.address() == Some(&upstream) || is_not_attempted(verdict))
        && verdict.error_log.as_ref().is_none_or(|text| is_heard_as(&failure.text, text))
        && verdict.errno == errno(failure)
}

/// nginx names the upstream also where it had no means to make a connection.
fn is_not_attempted(verdict: &Verdict) -> bool {
    verdict.upstream.is_none() && verdict.cause == "not_attempted"
}

/// The name of the errno in the log line.
fn errno(failure: &Failure) -> Option<String> {
    failure.errno.map(|number| format!("{:?}", Errno::from_raw(number)))
}

/// What nginx has logged once it logs no more: every request is answered then, or its client has left.
pub fn settled(nginx: &Nginx) -> Result<Vec<Failure>> {
    let mut before = nginx.failures().len();
    wait::until("nginx to have logged everything", || {
        thread::sleep(Duration::from_millis(300));
        let failures = nginx.failures();
        let is_settled = failures.len() == before;
        before = failures.len();
        Ok(is_settled.then_some(failures))
    })
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;
    use crate::verdict::Word;
    use crate::{error_log, verdict};

    /// A log line that the contract's example explains.
    const LINE: &str = "2026/11/20 11:39:26 [error] 24945#24945: *1 recv() failed (104: Connection reset by peer) while \
        reading response header from upstream, client: 127.0.0.1, server: , request: \"GET / HTTP/1.0\", \
        upstream: \"fastcgi://127.0.0.1:19001\", host: \"x\"\n";

    #[test]
    fn words_pair_off_by_what_nginx_said() -> Result<()> {
        let verdict = Verdict::read(&verdict::example()?)?;
        let word = verdict.word.clone().context("a word")?;
        let saying = |word| Verdict { word, ..verdict.clone() };
        let one = error_log::parse(&LINE.replace("*1 ", "*17 "));
        pair_off_words(&one, std::slice::from_ref(&verdict))?;
        let others = [
            None,
            Some(Word { connection: 18, ..word.clone() }),
            Some(Word { errno: None, ..word.clone() }),
            Some(Word { message: "recv".into(), ..word.clone() }),
            Some(Word { doing: None, ..word.clone() }),
        ];
        for other in others {
            assert!(pair_off_words(&one, &[saying(other.clone())]).is_err(), "{other:?} passes");
        }
        assert!(pair_off_words(&one, &[verdict.clone(), verdict.clone()]).is_err());
        assert!(pair_off_words(&[one.clone(), one].concat(), &[verdict]).is_err());
        Ok(())
    }

    #[test]
    fn what_is_not_read_of_a_message_may_be_anything() {
        for (message, heard) in [
            ("recv() failed", "recv() failed"),
            ("connect() to unix:/x failed", "connect() to … failed"),
            ("16 worker_connections are not enough", "… worker_connections are not enough"),
            ("x could not be resolved (3: Host not found)", "x could not be resolved (…: …)"),
            ("upstream sent too large http2 frame: 20000", "upstream sent too large http2 frame: …"),
        ] {
            assert!(is_heard_as(message, heard) && is_heard_as(message, message), "{message} {heard}");
        }
        for (message, heard) in
            [("recv() failed", "send() failed"), ("recv() failed", "recv()"), ("open() failed", "… fail")]
        {
            assert!(!is_heard_as(message, heard), "{message} {heard}");
        }
    }

    #[test]
    fn each_failure_needs_a_verdict_and_each_verdict_a_failure() -> Result<()> {
        let verdict = Verdict::read(&verdict::example()?)?;
        let (one, two) = (error_log::parse(LINE), error_log::parse(&LINE.repeat(2)));
        let of_another =
            Verdict { nginx: verdict::NginxEnd { pid: 1, ..verdict.nginx.clone() }, ..verdict.clone() };
        let of_other_text = Verdict { error_log: Some("another".into()), ..verdict.clone() };
        let without_text = Verdict { error_log: None, ..verdict.clone() };
        pair_off(&one, std::slice::from_ref(&verdict))?;
        pair_off(&two, &[without_text, verdict.clone()])?;
        for (failures, verdicts) in [
            (&one, vec![]),
            (&two, vec![verdict.clone()]),
            (&one, vec![verdict.clone(), verdict.clone()]),
            (&one, vec![of_another]),
            (&one, vec![of_other_text]),
        ] {
            assert!(pair_off(failures, &verdicts).is_err(), "{failures:#?} {verdicts:#?}");
        }
        Ok(())
    }
}
