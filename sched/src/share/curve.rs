//! Latency of a lane as a function of its share, fitted to a few windows; knows neither lanes nor targets.

/// a / (share − offset) + b, with a > 0 and b, offset ≥ 0: the forms that Algorithm 1 of semi-PD refits (arXiv 2504.19867).
///
/// TPOT(y) = a / y + b, for the part of a step that computes and the part that no share shortens. TTFT(x) =
/// a / (x − λ) + b is the response time 1 / (μ − r) of an M/M/1 queue whose service rate μ is proportional to x: λ is
/// the share that the arriving prompts keep busy, and with less of the device the queue only grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Curve {
    a: f64,
    b: f64,
    offset: f64,
}

/// A measured latency.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Point {
    /// Share of the lane.
    pub(super) share: f64,
    /// Latency, in any unit.
    pub(super) latency: f64,
    /// How much it counts.
    pub(super) weight: f64,
}

/// Offsets that are tried, as parts of the smallest share seen. The first of those that fit equally well is taken:
/// points of one or two shares cannot tell λ, and a lane that is late is likely to be half busy or more.
const OFFSETS: [f64; 20] =
    [0.5, 0.55, 0.45, 0.6, 0.4, 0.65, 0.35, 0.7, 0.3, 0.75, 0.25, 0.8, 0.2, 0.85, 0.15, 0.9, 0.1, 0.95, 0.05, 0.0];

/// The part of a latency that no share shortens, if only one share was seen: that of the paper's TPOT at half a device.
const FIXED_PART: f64 = 0.25;

impl Curve {
    /// Fits a / share + b. `None` without points, or if latency does not fall with the share.
    pub(super) fn without_queue(points: &[Point]) -> Option<Curve> {
        let curve = Curve::with_offset(points, 0.0)?;
        let first = points.first()?.share;
        if points.iter().any(|point| point.share != first) {
            return Some(curve);
        }
        Some(Curve { a: curve.a * (1.0 - FIXED_PART), b: curve.at(first) * FIXED_PART, offset: 0.0 })
    }

    /// Fits a / (share − λ) + b, otherwise as [`Curve::without_queue`].
    pub(super) fn with_queue(points: &[Point]) -> Option<Curve> {
        let least = points.iter().map(|point| point.share).fold(f64::INFINITY, f64::min);
        let mut best: Option<(f64, Curve)> = None;
        for curve in OFFSETS.iter().filter_map(|part| Curve::with_offset(points, part * least)) {
            let error = curve.error(points);
            if best.is_none_or(|(smallest, _)| error < smallest - 1e-12) {
                best = Some((error, curve));
            }
        }
        best.map(|(_, curve)| curve)
    }

    /// Fits a / (share − λ) + b with a λ that was measured, to the points where the queue does not only grow.
    pub(super) fn with_load(points: &[Point], load: f64) -> Option<Curve> {
        let stable: Vec<Point> = points.iter().filter(|point| point.share > load).copied().collect();
        Curve::with_offset(&stable, load)
    }

    /// Predicted latency; infinite where the queue would only grow.
    pub(super) fn at(&self, share: f64) -> f64 {
        if share <= self.offset { f64::INFINITY } else { self.a / (share - self.offset) + self.b }
    }

    /// Least squares in u = 1 / (share − offset). With one share, or if the line would begin below zero, b is 0.
    fn with_offset(points: &[Point], offset: f64) -> Option<Curve> {
        let (mut w, mut wu, mut wz, mut wuu, mut wuz) = (0.0, 0.0, 0.0, 0.0, 0.0);
        for Point { share, latency, weight } in points {
            let u = 1.0 / (share - offset);
            w += weight;
            wu += weight * u;
            wz += weight * latency;
            wuu += weight * u * u;
            wuz += weight * u * latency;
        }
        let spread = w * wuu - wu * wu;
        let slope = if spread > 1e-9 * w * wuu { (w * wuz - wu * wz) / spread } else { wuz / wuu };
        let b = (wz - slope * wu) / w;
        let (a, b) = if b < 0.0 || spread <= 1e-9 * w * wuu { (wuz / wuu, 0.0) } else { (slope, b) };
        (a.is_finite() && a > 0.0).then_some(Curve { a, b, offset })
    }

    /// Sum of squared errors, each in proportion to what was measured.
    fn error(&self, points: &[Point]) -> f64 {
        let relative = |point: &Point| (self.at(point.share) - point.latency) / point.latency.max(f64::MIN_POSITIVE);
        points.iter().map(|point| point.weight * relative(point).powi(2)).sum()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn points(shares: &[f64], latency: impl Fn(f64) -> f64) -> Vec<Point> {
        shares.iter().map(|share| Point { share: *share, latency: latency(*share), weight: 1.0 }).collect()
    }

    #[test]
    fn the_published_curves_are_found_again() {
        let tpot = |y: f64| 0.6284 / y + 0.3818;
        let curve = Curve::without_queue(&points(&[0.3, 0.5, 0.8], tpot)).unwrap();
        assert!((curve.at(0.4) - tpot(0.4)).abs() < 1e-9);
        let ttft = |x: f64| 0.6809 / (x - 0.15) + 0.022;
        let curve = Curve::with_queue(&points(&[0.3, 0.5, 0.6, 0.8], ttft)).unwrap();
        assert!((curve.at(0.4) - ttft(0.4)).abs() < 1e-6, "{curve:?}");
        assert_eq!(curve.at(0.15), f64::INFINITY);
    }

    #[test]
    fn one_share_gives_a_level_and_none_gives_nothing() {
        let curve = Curve::without_queue(&points(&[0.5, 0.5], |_| 3.0)).unwrap();
        assert_eq!((curve.at(0.5), curve.at(0.25)), (3.0, 0.75 * 6.0 + 0.25 * 3.0));
        let curve = Curve::with_queue(&points(&[0.5], |_| 3.0)).unwrap();
        assert_eq!((curve.at(0.5), curve.at(0.75), curve.at(0.25)), (3.0, 1.5, f64::INFINITY));
        assert_eq!((Curve::without_queue(&[]), Curve::with_queue(&[])), (None, None));
    }

    #[test]
    fn where_the_load_is_known_only_shares_above_it_tell() {
        let ttft = |x: f64| 0.2 / (x - 0.4) + 0.1;
        let curve = Curve::with_load(&points(&[0.35, 0.5, 0.8], |x| if x < 0.4 { 9.0 } else { ttft(x) }), 0.4).unwrap();
        assert!((curve.at(0.6) - ttft(0.6)).abs() < 1e-9 && curve.at(0.4) == f64::INFINITY, "{curve:?}");
        assert_eq!(Curve::with_load(&points(&[0.3], |_| 9.0), 0.4), None);
    }

    #[test]
    fn latency_that_rises_with_the_share_is_no_curve() {
        assert_eq!(Curve::without_queue(&points(&[0.3, 0.6], |share| share * share)), None);
    }

    proptest! {
        #[test]
        fn more_share_never_takes_longer(
            latencies in prop::collection::vec((1_u32..100, 0.001_f64..1e6, 0.01_f64..1.0), 1..12)
        ) {
            let points: Vec<Point> = latencies
                .iter()
                .map(|(percent, latency, weight)| Point { share: f64::from(*percent) / 100.0, latency: *latency, weight: *weight })
                .collect();
            for curve in [Curve::without_queue(&points), Curve::with_queue(&points)].into_iter().flatten() {
                let mut last = f64::INFINITY;
                for percent in 1..100 {
                    let latency = curve.at(f64::from(percent) / 100.0);
                    prop_assert!(!latency.is_nan() && latency <= last && latency >= 0.0);
                    last = latency;
                }
            }
        }
    }
}
