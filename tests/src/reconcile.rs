//! Holds verdicts against nginx's error log: each failure that nginx logged has exactly one verdict, and each
//! verdict is about a failure that nginx logged.

use anyhow::{Result, ensure};
use nix::errno::Errno;

use crate::Verdict;
use crate::error_log::{Failure, Kind};

/// Succeeds if failures and verdicts pair off without a rest, by nginx worker, upstream, errno, and the text
/// of the log line if the verdict foretells one.
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

fn fits(verdict: &Verdict, failure: &Failure) -> bool {
    let upstream = failure.upstream.as_ref().map(ToString::to_string);
    verdict.nginx.pid == failure.pid
        && upstream.is_none_or(|upstream| upstream == verdict.upstream.addr)
        && verdict.error_log.as_ref().is_none_or(|text| *text == failure.text)
        && verdict.errno == errno(failure)
}

/// The name of the errno in the log line.
fn errno(failure: &Failure) -> Option<String> {
    failure.errno.map(|number| format!("{:?}", Errno::from_raw(number)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{error_log, verdict};

    /// A log line that the contract's example explains.
    const LINE: &str = "2026/11/20 11:39:26 [error] 24945#24945: *1 recv() failed (104: Connection reset by peer) while \
        reading response header from upstream, client: 127.0.0.1, server: , request: \"GET / HTTP/1.0\", \
        upstream: \"fastcgi://127.0.0.1:19001\", host: \"x\"\n";

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
