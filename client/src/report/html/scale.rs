//! Scale of an axis: where numbers lie and which are named; draws nothing.

/// Kind of a scale.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Linear,
    /// For positive numbers over several powers of ten.
    Logarithmic,
}

/// Axis from `min` to `max`, drawn from `start` to `end`.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scale {
    kind: Kind,
    min: f64,
    max: f64,
    start: f64,
    end: f64,
}

impl Scale {
    /// Linear axis from 0, or from `min` if that is given, to a bit above `max`.
    pub(super) fn linear(min: f64, max: f64, (start, end): (f64, f64)) -> Scale {
        let max = if max > min { max } else { min + 1.0 };
        Scale { kind: Kind::Linear, min, max, start, end }
    }

    /// Axis of positive numbers: logarithmic if they span more than a factor of 30.
    pub(super) fn fitting(min: f64, max: f64, pixels: (f64, f64)) -> Scale {
        match min > 0.0 && max / min > 30.0 {
            true => Scale { kind: Kind::Logarithmic, min, max, start: pixels.0, end: pixels.1 },
            false => Scale::linear(0.0, max, pixels),
        }
    }

    pub(super) fn at(self, number: f64) -> f64 {
        let number = number.clamp(self.min, self.max);
        let share = match self.kind {
            Kind::Linear => (number - self.min) / (self.max - self.min),
            Kind::Logarithmic => (number / self.min).ln() / (self.max / self.min).ln(),
        };
        self.start + share * (self.end - self.start)
    }

    /// Numbers to name: multiples of 1, 2 or 5 times a power of ten, about five of them.
    pub(super) fn ticks(self) -> Vec<f64> {
        match self.kind {
            Kind::Linear => {
                let raw = (self.max - self.min) / 5.0;
                let power = 10_f64.powf(raw.log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= raw);
                let step = step.unwrap_or(raw);
                let first = (self.min / step).ceil() as i64;
                // Floats may hold one more than fits.
                (first..first + 12)
                    .map(|place| place as f64 * step)
                    .take_while(|tick| *tick <= self.max * 1.0001)
                    .collect()
            }
            Kind::Logarithmic => {
                let powers = self.min.log10().floor() as i32..=self.max.log10().ceil() as i32;
                let is_wide = self.max / self.min > 1e3;
                let factors: &[f64] = if is_wide { &[1.0] } else { &[1.0, 2.0, 5.0] };
                let all = powers.flat_map(|power| factors.iter().map(move |factor| factor * 10_f64.powi(power)));
                all.filter(|tick| (self.min..=self.max).contains(tick)).collect()
            }
        }
    }
}

/// Number as short as an axis needs it.
pub(super) fn short(number: f64) -> String {
    let digits = match number.abs() {
        0.0 => 0,
        size if size < 0.1 => 3,
        size if size < 10.0 => 1,
        _ => 0,
    };
    let text = format!("{number:.digits$}");
    if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.').to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_numbers_inside() {
        assert_eq!(Scale::linear(0.0, 47.0, (0.0, 1.0)).ticks(), [0.0, 10.0, 20.0, 30.0, 40.0]);
        assert_eq!(Scale::fitting(3.0, 9_000.0, (0.0, 1.0)).ticks(), [10.0, 100.0, 1000.0]);
        assert_eq!(Scale::fitting(30.0, 2000.0, (0.0, 1.0)).ticks(), [50.0, 100.0, 200.0, 500.0, 1000.0, 2000.0]);
        assert!(!Scale::linear(0.0, 0.0, (0.0, 1.0)).ticks().is_empty());
    }

    #[test]
    fn numbers_lie_between_the_ends() {
        let scale = Scale::fitting(1.0, 100.0, (0.0, 10.0));
        assert_eq!([0.0, 1.0, 10.0, 100.0, 1e9].map(|number| scale.at(number)), [0.0, 0.0, 5.0, 10.0, 10.0]);
        assert_eq!([0.001, 0.25, 5.0, 1000.0].map(short), ["0.001", "0.2", "5", "1000"]);
    }
}
