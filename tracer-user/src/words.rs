//! Figures and names as a person reads them.

/// A span of time with its unit, three digits: `412 us`, `45.2 ms`, `3.26 s`.
pub fn span(ns: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e3, "us"), (1e6, "ms"), (1e9, "s")];
    #[expect(clippy::cast_precision_loss, reason = "three digits are shown")]
    let exact = ns as f64;
    for (unit, name) in UNITS {
        let value = exact / unit;
        if value < 999.5 || name == "s" {
            let decimals = if name == "us" || value >= 99.95 {
                0
            } else if value >= 9.995 {
                1
            } else {
                2
            };
            return format!("{value:.decimals$} {name}");
        }
    }
    unreachable!("the last unit takes everything")
}

/// `1 byte`, `552 bytes`.
pub fn count(number: u64, singular: &str) -> String {
    let ending = if number == 1 { "" } else { "s" };
    format!("{number} {singular}{ending}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_keep_three_digits_and_a_unit() {
        let shown: Vec<_> =
            [0, 45_000, 999_499, 1_234_000, 99_960_000, 3_259_000_000, 75_000_000_000].map(span).into();
        assert_eq!(shown, ["0 us", "45 us", "999 us", "1.23 ms", "100 ms", "3.26 s", "75.0 s"]);
    }

    #[test]
    fn counts_have_a_plural() {
        assert_eq!((count(1, "byte"), count(8, "byte")), ("1 byte".into(), "8 bytes".into()));
    }
}
