//! Figures and names as a person reads them.

use jiff::Timestamp;

/// RFC 3339 in UTC, to the microsecond, of nanoseconds since 1970.
pub fn time(unix_ns: i64) -> String {
    let time = Timestamp::from_nanosecond(unix_ns.into()).unwrap_or(Timestamp::UNIX_EPOCH);
    format!("{time:.6}")
}

/// A span of time with its unit, in three digits that count: `412 us`, `45.2 ms`, `3.26 s`.
pub fn span(ns: u64) -> String {
    let us = ns / 1_000;
    match us {
        0..1_000 => format!("{us} us"),
        1_000..999_500 => format!("{} ms", three_digits(us as f64 / 1e3)),
        _ => format!("{} s", three_digits(us as f64 / 1e6)),
    }
}

fn three_digits(value: f64) -> String {
    // The bounds are where rounding would bring one digit more.
    let decimals = if value < 9.995 {
        2
    } else if value < 99.95 {
        1
    } else {
        0
    };
    format!("{value:.decimals$}")
}

/// `1 byte`, `552 bytes`.
pub fn count(number: u64, singular: &str) -> String {
    let ending = match number {
        1 => "",
        _ if singular.ends_with('s') => "es",
        _ => "s",
    };
    format!("{number} {singular}{ending}")
}

/// `once`, `twice`, `3 times`.
pub fn times(number: u64) -> String {
    match number {
        1 => "once".to_owned(),
        2 => "twice".to_owned(),
        more => format!("{more} times"),
    }
}

/// With its first letter large, as a sentence begins. Programs' names keep their own spelling.
pub fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    match letters.next() {
        Some(first) if !text.starts_with("php") && !text.starts_with("nginx") => {
            first.to_uppercase().chain(letters).collect()
        }
        _ => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_three_digits_that_count() {
        let cases = [
            (0, "0 us"),
            (45, "45 us"),
            (999, "999 us"),
            (1_000, "1.00 ms"),
            (9_994, "9.99 ms"),
            (9_996, "10.0 ms"),
            (45_230, "45.2 ms"),
            (99_960, "100 ms"),
            (999_499, "999 ms"),
            (999_500, "1.00 s"),
            (3_259_000, "3.26 s"),
            (60_000_412, "60.0 s"),
            (300_100_000, "300 s"),
            (3_600_000_000, "3600 s"),
        ];
        for (us, text) in cases {
            assert_eq!(span(us * 1_000), text, "{us}");
        }
    }

    #[test]
    fn counts_have_a_plural() {
        assert_eq!((count(1, "byte"), count(8, "byte")), ("1 byte".into(), "8 bytes".into()));
    }
}
