//! Values of several rounds of one measurement.

use serde_json::{Value, json};

use crate::value::rounded;

/// One value per round, in the unit of its field.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    /// Runs `rounds` rounds of `measure`, up to the first failure.
    pub(crate) fn take<E>(rounds: usize, mut measure: impl FnMut() -> Result<f64, E>) -> Result<Samples, E> {
        (0..rounds).map(|_| measure()).collect::<Result<Vec<_>, E>>().map(Samples)
    }

    /// Converts the values to another unit.
    pub(crate) fn map(&self, convert: impl Fn(f64) -> f64) -> Samples {
        Samples(self.0.iter().copied().map(convert).collect())
    }

    pub(crate) fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            odd if odd % 2 == 1 => sorted[middle],
            _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        json!({
            "median": rounded(self.median()),
            "min": rounded(self.0.iter().copied().fold(f64::NAN, f64::min)),
            "max": rounded(self.0.iter().copied().fold(f64::NAN, f64::max)),
            "rounds": self.0.len(),
        })
    }
}

impl From<Vec<f64>> for Samples {
    fn from(rounds: Vec<f64>) -> Samples {
        Samples(rounds)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Samples(vec![3.0, 1.0, 2.0]).median(), 2.0);
        assert_eq!(Samples(vec![4.0, 1.0, 2.0, 3.0]).median(), 2.5);
        assert!(Samples(vec![]).median().is_nan());
    }

    #[test]
    fn the_extremes_are_reported() {
        let json = Samples(vec![3.0, 1.0, 2.0]).map(|value| value * 2.0).to_json();
        assert_eq!(json, json!({"median": 4.0, "min": 2.0, "max": 6.0, "rounds": 3}));
    }

    #[test]
    fn a_failed_round_ends_the_measurement() {
        let mut rounds = 0;
        let taken = Samples::take(5, || {
            rounds += 1;
            if rounds == 2 { Err("lost") } else { Ok(1.0) }
        });
        assert_eq!((taken, rounds), (Err("lost"), 2));
    }
}
