//! Median and quartiles.

/// How a measure spreads.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Spread {
    /// A quarter of the values is at most this.
    pub(crate) low: f64,
    /// Half of them is.
    pub(crate) median: f64,
    /// Three quarters are.
    pub(crate) high: f64,
}

impl Spread {
    /// Between two values it interpolates. None if there are no values.
    pub(crate) fn of(values: &[f64]) -> Option<Self> {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let last = sorted.len().checked_sub(1)?;
        let at = |share: f64| {
            let place = share * last as f64;
            let (below, above) = (sorted[place.floor() as usize], sorted[place.ceil() as usize]);
            below + (above - below) * place.fract()
        };
        Some(Self { low: at(0.25), median: at(0.5), high: at(0.75) })
    }

    /// As text: the median, and the quartiles in brackets.
    pub(crate) fn shown(&self, decimals: usize) -> String {
        let Self { low, median, high } = self;
        format!("{median:.decimals$} ({low:.decimals$} to {high:.decimals$})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quartiles_of_an_odd_number_are_values() {
        let spread = Spread::of(&[5.0, 1.0, 3.0, 2.0, 4.0]);
        assert_eq!(spread, Some(Spread { low: 2.0, median: 3.0, high: 4.0 }));
    }

    #[test]
    fn quartiles_lie_between_values() {
        let spread = Spread::of(&[1.0, 2.0, 3.0, 4.0]);
        assert_eq!(spread, Some(Spread { low: 1.75, median: 2.5, high: 3.25 }));
    }

    #[test]
    fn one_value_is_its_own_spread_and_none_has_none() {
        assert_eq!(Spread::of(&[7.0]), Some(Spread { low: 7.0, median: 7.0, high: 7.0 }));
        assert_eq!(Spread::of(&[]), None);
    }

    #[test]
    fn one_outlier_moves_no_median() {
        let spread = Spread::of(&[0.99, 0.98, 0.99, 0.2, 0.99]).map(|spread| spread.median);
        assert_eq!(spread, Some(0.99));
    }

    #[test]
    fn it_is_shown_with_its_quartiles() {
        let shown = Spread { low: 0.974, median: 0.981, high: 1.0 }.shown(2);
        assert_eq!(shown, "0.98 (0.97 to 1.00)");
    }
}
