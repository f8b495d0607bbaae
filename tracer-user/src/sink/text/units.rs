//! Times with their units.

use jiff::{SignedDuration, SignedDurationRound, Unit};

use crate::model::words::span;

/// A moment after connect, or before it, as in `+3.257 s`, `-0.4 ms`, `+45 us`.
pub fn moment(us: i64) -> String {
    let sign = if us < 0 { '-' } else { '+' };
    match us.unsigned_abs() {
        us @ 0..100 => format!("{sign}{us} us"),
        us @ 100..999_950 => format!("{sign}{:.1} ms", us as f64 / 1e3),
        us => format!("{sign}{:.3} s", us as f64 / 1e6),
    }
}

/// How long a run was: `3.26 s`, and from a minute on `1h 12m 5s`.
pub fn run(ns: u64) -> String {
    let us = ns / 1_000;
    let whole = SignedDuration::from_micros(us.try_into().unwrap_or(i64::MAX));
    match whole.round(SignedDurationRound::new().smallest(Unit::Second)) {
        Ok(whole) if whole >= SignedDuration::from_mins(1) => format!("{whole:#}"),
        _ => span(ns),
    }
}

/// `12,345`.
pub fn grouped(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `1 record`, `2 records`.
pub fn counted(count: u64, thing: &str) -> String {
    format!("{} {thing}{}", grouped(count), if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_have_a_sign() {
        let cases = [
            (0, "+0 us"),
            (-45, "-45 us"),
            (-400, "-0.4 ms"),
            (999_960, "+1.000 s"),
            (3_256_900, "+3.257 s"),
            (i64::MIN, "-9223372036854.775 s"),
        ];
        for (us, text) in cases {
            assert_eq!(moment(us), text, "{us}");
        }
    }

    #[test]
    fn a_run_is_reported_in_hours_and_minutes() {
        let cases = [
            (3_260_000_000, "3.26 s"),
            (59_499_000_000, "59.5 s"),
            (59_960_000_000, "1m"),
            (90_500_000_000, "1m 31s"),
            (4_325_000_000_000, "1h 12m 5s"),
        ];
        for (ns, text) in cases {
            assert_eq!(run(ns), text, "{ns}");
        }
    }

    #[test]
    fn counts_are_grouped_by_thousands() {
        for (count, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(grouped(count), text);
        }
    }
}
