//! Sweep: a pure machine that searches the highest rates at which enough requests meet their targets. Sends nothing.

/// Shares of requests that must meet their targets; the sweep finds the highest rate for each.
pub const LEVELS: [f64; 2] = [0.90, 0.99];

/// Bracket that is narrow enough: its upper rate is at most this factor above the lower.
const CLOSE: f64 = 1.05;
/// Factor between rates while no upper end is known.
const GROWTH: f64 = 2.0;

/// Bounds of a sweep.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SweepBounds {
    /// Lowest rate, in requests per second.
    pub rate_min: f64,
    /// Highest rate.
    pub rate_max: f64,
    /// Most points.
    pub points_max: usize,
}

/// Measured point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Point {
    /// Requests per second.
    pub rate_per_s: f64,
    /// Share of requests that met all targets of their class.
    pub attainment: f64,
}

/// Search for the highest rate of each level.
///
/// While nothing fails, the rate doubles; then the bracket between the highest rate that holds and the lowest that
/// fails is halved geometrically, the widest bracket first. Attainment is taken to fall with the rate: of a level, only
/// rates below its lowest failure hold.
#[derive(Debug)]
pub struct Sweep {
    bounds: SweepBounds,
    points: Vec<Point>,
}

impl Sweep {
    /// Starts a sweep; bounds that cannot work are an error.
    pub fn new(bounds: SweepBounds) -> Result<Sweep, crate::Error> {
        let SweepBounds { rate_min, rate_max, points_max } = bounds;
        if rate_min > 0.0 && rate_min < rate_max && rate_max.is_finite() && points_max > 0 {
            return Ok(Sweep { bounds, points: Vec::new() });
        }
        let problem = format!("sweep from {rate_min} to {rate_max} requests/s in {points_max} points");
        Err(crate::Error::Settings(format!("{problem}: expected 0 < --rate-min < --rate-max and at least one point")))
    }

    /// Takes in a measured point.
    pub fn on(&mut self, point: Point) {
        self.points.push(point);
    }

    /// Rate of the next point; `None` if the sweep has ended.
    #[must_use]
    pub fn next_rate(&self) -> Option<f64> {
        if self.points.len() >= self.bounds.points_max {
            return None;
        }
        let next = LEVELS.iter().filter_map(|level| self.next_for(*level));
        // The widest bracket first.
        next.max_by(|(_, width), (_, other)| width.total_cmp(other)).map(|(rate, _)| rate)
    }

    /// Highest measured rate that holds a level; `None` if even the lowest rate does not.
    #[must_use]
    pub fn best(&self, level: f64) -> Option<Point> {
        let failing = self.lowest_failing(level);
        let holds = |point: &&Point| point.attainment >= level && point.rate_per_s < failing;
        self.points.iter().filter(holds).max_by(|a, b| a.rate_per_s.total_cmp(&b.rate_per_s)).copied()
    }

    /// Lowest measured rate at which a level is missed; infinite without any.
    #[must_use]
    pub fn lowest_failing(&self, level: f64) -> f64 {
        let failing = self.points.iter().filter(|point| point.attainment < level).map(|point| point.rate_per_s);
        failing.fold(f64::INFINITY, f64::min)
    }

    /// Next rate for a level and the width of its bracket.
    fn next_for(&self, level: f64) -> Option<(f64, f64)> {
        let SweepBounds { rate_min, rate_max, .. } = self.bounds;
        let failing = self.lowest_failing(level);
        let Some(best) = self.best(level) else {
            // Nothing is known yet, or the lowest rate fails: then there is nothing to find.
            return failing.is_infinite().then_some((rate_min, f64::INFINITY));
        };
        if failing.is_infinite() {
            let is_over = best.rate_per_s >= rate_max;
            return (!is_over).then_some(((best.rate_per_s * GROWTH).min(rate_max), f64::INFINITY));
        }
        let width = failing / best.rate_per_s;
        (width > CLOSE).then_some(((failing * best.rate_per_s).sqrt(), width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sweeps a server whose attainment is given by a function of the rate; returns the rates.
    fn sweep(bounds: (f64, f64, usize), attainment: impl Fn(f64) -> f64) -> (Sweep, Vec<f64>) {
        let (rate_min, rate_max, points_max) = bounds;
        let mut sweep = Sweep::new(SweepBounds { rate_min, rate_max, points_max }).unwrap();
        let mut rates = Vec::new();
        while let Some(rate_per_s) = sweep.next_rate() {
            rates.push(rate_per_s);
            sweep.on(Point { rate_per_s, attainment: attainment(rate_per_s) });
        }
        (sweep, rates)
    }

    fn best(sweep: &Sweep) -> [Option<f64>; 2] {
        LEVELS.map(|level| sweep.best(level).map(|point| point.rate_per_s))
    }

    #[test]
    fn both_knees_are_found() {
        let (sweep, rates) = sweep((1.0, 1000.0, 40), |rate| (1.0 - (rate - 60.0).max(0.0) / 400.0).max(0.0));
        // 99 % holds up to 64 requests/s, 90 % up to 100.
        let [at_90, at_99] = best(&sweep).map(Option::unwrap);
        assert!((95.0..=100.0).contains(&at_90) && (60.5..=64.0).contains(&at_99), "{at_90} {at_99} {rates:?}");
        assert_eq!(rates[..7], [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0]);
        assert!(rates.len() <= 17, "{rates:?}");
    }

    #[test]
    fn a_sweep_ends_at_its_bounds() {
        let (idle, rates) = sweep((1.0, 10.0, 40), |_| 1.0);
        assert_eq!((best(&idle), rates), ([Some(10.0), Some(10.0)], vec![1.0, 2.0, 4.0, 8.0, 10.0]));
        let (dead, rates) = sweep((1.0, 10.0, 40), |_| 0.0);
        assert_eq!((best(&dead), rates), ([None, None], vec![1.0]));
        let (_, rates) = sweep((1.0, 1e6, 3), |_| 1.0);
        assert_eq!(rates.len(), 3);
    }

    #[test]
    fn a_lucky_point_above_a_failure_does_not_count() {
        let (sweep, _) = sweep((1.0, 64.0, 30), |rate| if (7.0..9.0).contains(&rate) { 0.5 } else { 1.0 });
        assert!(best(&sweep)[0].unwrap() < 8.0);
    }

    #[test]
    fn bounds_that_cannot_work_are_refused() {
        let bounds = SweepBounds { rate_min: 5.0, rate_max: 5.0, points_max: 3 };
        assert_eq!(
            Sweep::new(bounds).unwrap_err().to_string(),
            "sweep from 5 to 5 requests/s in 3 points: expected 0 < --rate-min < --rate-max and at least one point"
        );
    }
}
