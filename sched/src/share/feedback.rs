//! The controller of semi-PD: moves the share by measured latencies against their targets; knows no step and no clock.
//!
//! Algorithm 1 of semi-PD (arXiv 2504.19867). After each window it refits TTFT(x) = a/(x − λ) + b and TPOT(y) = a/y + b.
//! If one target alone is missed, it gives that lane one step of the device after the other until the curve says that
//! the target is met. Here x and y are parts of one device that add up to all of it, so what the paper normalises at the
//! end, x / (x + y), is what we step through.
//!
//! Two defects of the algorithm as printed are settled here:
//! - It reads the normalised share x′ in its first estimate, before it has assigned it. Here the first estimate is that
//!   of the first step away from the present share: a target that was measured as missed is worth one step, whatever the
//!   curve says about the present share.
//! - Its code gives prefill more when *both* targets are missed; its prose returns. Here the share stays: no share meets
//!   both then, as either lane would need more.
//!
//! Two things are added, as the plain loop oscillates by a step where the targets can just be met: a dead band (a move
//! aims below the target that triggers it, and a target that is met within the band is worth a move if both lanes stay
//! clear of theirs), and limits (`limits.rs`). The other lane's curve bounds a move as well.
//!
//! And λ is measured where steps are seen, not fitted: after a change of the load two or three windows at one share
//! cannot tell it, while the time that prompts take and the number that comes can.

use super::curve::{Curve, Point};
use super::limits::Limits;
use super::split::{Divisions, Parts};
use super::verdict::{Outlook, Verdict};
use super::window::LOAD_MAX;
use super::{Latencies, Measured, Reason, ShareConfig, ShareError, WindowReport};
use crate::Span;
use crate::cost::Phase;

/// Windows after which a measured latency is forgotten: it belongs to an older load.
const WINDOWS_KEPT: u32 = 6;
/// Weight of a window in a fit, relative to that of the next one.
const WEIGHT_PER_WINDOW: f64 = 0.5;

/// The controller.
#[derive(Debug, Clone)]
pub(super) struct Feedback {
    device: Divisions,
    /// Latency that a move aims at, as a part of the target.
    aim: f64,
    /// Most parts that move at once.
    parts_max: u16,
    ttft: Span,
    tpot: Span,
    /// The newest window of each share that is still remembered, newest first.
    seen: Vec<Seen>,
    /// Share of the device that the prompts of the newest window keep busy: the paper's λ, measured.
    load: Option<f64>,
    limits: Limits,
}

/// Latencies of one window, as multiples of their targets.
#[derive(Debug, Clone, Copy)]
struct Seen {
    parts: Parts,
    age: u32,
    ttft: Option<f64>,
    tpot: Option<f64>,
}

/// Curves of both lanes, in multiples of their targets.
struct Curves {
    device: Divisions,
    ttft: Option<Curve>,
    tpot: Option<Curve>,
    load: Option<f64>,
}

/// A latency beside its target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Unknown,
    Met,
    /// Met, within the dead band.
    Near,
    Missed,
}

impl Feedback {
    pub(super) fn new(config: &ShareConfig, device: Divisions) -> Result<Feedback, ShareError> {
        let (ttft, tpot) = config.feedback_targets()?;
        Ok(Feedback {
            device,
            aim: 1.0 - config.feedback.dead_band_percent / 100.0,
            parts_max: device.parts_in_percent(config.feedback.move_percent_max).max(1),
            ttft,
            tpot,
            seen: Vec::new(),
            load: None,
            limits: Limits::default(),
        })
    }

    /// Decides after a window in which prefill had the parts `here`.
    pub(super) fn decide(&mut self, here: Parts, window: &WindowReport) -> Verdict {
        self.remember(here, window);
        let curves = self.curves();
        let (parts, reason) = match (self.judge(window.ttft, self.ttft), self.judge(window.tpot, self.tpot)) {
            (Target::Unknown, Target::Unknown) => (here, Reason::TooFewSamples),
            (Target::Missed, Target::Missed) => (here, Reason::Infeasible),
            (Target::Missed, _) => self.give(&curves, here, Phase::Prefill),
            (_, Target::Missed) => self.give(&curves, here, Phase::Decode),
            (Target::Near, Target::Met) => self.ease(&curves, here, Phase::Prefill),
            (Target::Met, Target::Near) => self.ease(&curves, here, Phase::Decode),
            (Target::Met | Target::Near | Target::Unknown, _) => (here, Reason::TargetsMet),
        };
        let predict = |phase, target| span(curves.at(phase, parts)?, target);
        let predicted =
            Latencies { prefill: predict(Phase::Prefill, self.ttft), decode: predict(Phase::Decode, self.tpot) };
        Verdict { parts, reason, outlook: Outlook { predicted, ..Outlook::of(window) } }
    }

    /// Moves parts to a lane that misses its target: until its curve reaches the aim, while the other lane's curve stays
    /// within its target, but at least one part, as the next window knows better than a curve. No further than shares
    /// that have not been seen to fail the other lane.
    fn give(&self, curves: &Curves, here: Parts, to: Phase) -> (Parts, Reason) {
        let from = to.other();
        let reason = match to {
            Phase::Prefill => Reason::SloMissedPrefill,
            Phase::Decode => Reason::SloMissedDecode,
        };
        let harms = |parts| curves.stays_within(from, parts, 1.0) == Some(false);
        let is_enough = |parts| curves.stays_within(to, parts, self.aim) == Some(true);
        let candidates = (1..=self.parts_max).map_while(|count| self.device.moved(here, count, to));
        let mut chosen = None;
        for parts in candidates.take_while(|parts| !self.limits.rule_out(from, *parts)) {
            if chosen.is_some() && harms(parts) {
                break;
            }
            chosen = Some(parts);
            if is_enough(parts) {
                break;
            }
        }
        chosen.map_or((here, Reason::Infeasible), |parts| (parts, reason))
    }

    /// Moves parts to a lane that meets its target narrowly, if the other lane has enough to give: both stay clear of
    /// their targets then, so nothing is to be moved back.
    fn ease(&self, curves: &Curves, here: Parts, to: Phase) -> (Parts, Reason) {
        let is_clear = |phase, parts| curves.stays_within(phase, parts, self.aim) == Some(true);
        let candidates = (1..=self.parts_max).map_while(|count| self.device.moved(here, count, to));
        let mut clear = candidates
            .take_while(|parts| is_clear(to.other(), *parts) && !self.limits.rule_out(to.other(), *parts))
            .filter(|parts| is_clear(to, *parts));
        clear.next().map_or((here, Reason::TargetsMet), |parts| (parts, Reason::Rebalanced))
    }

    fn judge(&self, measured: Measured, target: Span) -> Target {
        match measured {
            Measured::Unknown => Target::Unknown,
            Measured::AtLeast(span) | Measured::Value(span) if span > target => Target::Missed,
            Measured::AtLeast(_) => Target::Unknown,
            Measured::Value(span) if over(span, target) > self.aim => Target::Near,
            Measured::Value(_) => Target::Met,
        }
    }

    fn remember(&mut self, here: Parts, window: &WindowReport) {
        let ratio = |measured: Measured, target| measured.value().map(|span| over(span, target));
        let (ttft, tpot) = (ratio(window.ttft, self.ttft), ratio(window.tpot, self.tpot));
        self.load = window.prefill_load.map(|load| load * self.device.fraction(Phase::Prefill, here)).or(self.load);
        // Prompts that are late although the share would do have waited behind a queue that is older than this window.
        let is_enough = window.prefill_load.is_some_and(|load| load <= LOAD_MAX);
        let judged = ttft.filter(|ratio| *ratio <= 1.0 || !is_enough);
        self.limits.learn(self.device, Phase::Prefill, here, judged, self.aim);
        self.limits.learn(self.device, Phase::Decode, here, tpot, self.aim);
        let newest = Seen { parts: here, age: 0, ttft, tpot };
        for seen in &mut self.seen {
            seen.age += 1;
        }
        self.seen.retain(|seen| seen.age < WINDOWS_KEPT && seen.parts != here && seen.agrees_with(&newest));
        self.seen.insert(0, newest);
    }

    fn curves(&self) -> Curves {
        let points = |phase: Phase| -> Vec<Point> {
            let point = |seen: &Seen| {
                let weight = WEIGHT_PER_WINDOW.powf(f64::from(seen.age));
                Some(Point { share: self.device.fraction(phase, seen.parts), latency: seen.of(phase)?, weight })
            };
            self.seen.iter().filter_map(point).collect()
        };
        // If the windows contradict each other, the newest one is right.
        let fit =
            |points: &[Point], curve: fn(&[Point]) -> Option<Curve>| curve(points).or_else(|| curve(points.get(..1)?));
        let prompts = points(Phase::Prefill);
        Curves {
            device: self.device,
            ttft: match self.load {
                None => fit(&prompts, Curve::with_queue),
                Some(load) => Curve::with_load(&prompts, load).or_else(|| Curve::with_load(prompts.get(..1)?, load)),
            },
            tpot: fit(&points(Phase::Decode), Curve::without_queue),
            load: self.load,
        }
    }
}

impl Seen {
    fn of(&self, phase: Phase) -> Option<f64> {
        match phase {
            Phase::Prefill => self.ttft,
            Phase::Decode => self.tpot,
        }
    }

    /// False if a lane was faster in the older window although it had less, or slower although it had more: then the
    /// load was another one.
    fn agrees_with(&self, newest: &Seen) -> bool {
        let faster = |phase| self.of(phase).zip(newest.of(phase)).is_some_and(|(old, new)| old < new);
        let slower = |phase| self.of(phase).zip(newest.of(phase)).is_some_and(|(old, new)| old > new);
        let had_less = if self.parts < newest.parts { Phase::Prefill } else { Phase::Decode };
        !faster(had_less) && !slower(had_less.other())
    }
}

impl Curves {
    /// Predicted latency of a lane as a multiple of its target.
    fn at(&self, phase: Phase, parts: Parts) -> Option<f64> {
        let curve = match phase {
            Phase::Prefill => self.ttft,
            Phase::Decode => self.tpot,
        };
        curve.map(|curve| curve.at(self.device.fraction(phase, parts)))
    }

    /// True if a lane's latency is at most `ratio_max` of its target there, and its queue does not grow. `None` if that
    /// is not known.
    fn stays_within(&self, phase: Phase, parts: Parts, ratio_max: f64) -> Option<bool> {
        let by_curve = self.at(phase, parts).map(|ratio| ratio <= ratio_max);
        let by_load = self.load.filter(|_| phase == Phase::Prefill);
        let by_load = by_load.map(|load| load <= LOAD_MAX * self.device.fraction(phase, parts));
        match (by_curve, by_load) {
            (Some(curve), Some(load)) => Some(curve && load),
            (one, other) => one.or(other),
        }
    }
}

fn over(span: Span, target: Span) -> f64 {
    span.us() as f64 / target.us() as f64
}

fn span(ratio: f64, target: Span) -> Option<Span> {
    ratio.is_finite().then(|| Span((ratio * target.us() as f64).round() as u64))
}

#[cfg(test)]
mod tests {
    use super::super::{IdleShare, SharePolicy};
    use super::*;
    use crate::Time;

    const HERE: Parts = Parts(10);

    fn feedback() -> Feedback {
        let config =
            ShareConfig { policy: SharePolicy::Feedback, ttft_ms: 1_000, tpot_ms: 100, ..ShareConfig::default() };
        Feedback::new(&config, Divisions::new(20, IdleShare::Lent).unwrap()).unwrap()
    }

    /// Curves through these latencies at half of the device.
    fn curves(ttft: Option<f64>, tpot: Option<f64>) -> Curves {
        let through = |latency| Curve::without_queue(&[Point { share: 0.5, latency, weight: 1.0 }]);
        Curves { device: feedback().device, ttft: ttft.and_then(through), tpot: tpot.and_then(through), load: None }
    }

    #[test]
    fn a_missed_target_is_worth_one_step_even_if_the_curve_meets_it() {
        // The first defect of the printed algorithm: with x′ taken for the present share, its loop would end at once.
        let curves = curves(Some(0.2), Some(0.2));
        let given = |to| feedback().give(&curves, HERE, to);
        assert_eq!(given(Phase::Prefill), (Parts(11), Reason::SloMissedPrefill));
        assert_eq!(given(Phase::Decode), (Parts(9), Reason::SloMissedDecode));
    }

    #[test]
    fn a_move_ends_at_its_aim_at_the_other_target_or_at_the_largest_move() {
        let given = |ttft, tpot| feedback().give(&curves(ttft, tpot), HERE, Phase::Prefill).0;
        assert_eq!(given(Some(1.1), Some(0.2)), Parts(14), "0.25 + 0.75 / 1.4 of 1.1 is below 0.9");
        assert_eq!(given(Some(9.0), Some(0.8)), Parts(12), "with 7 of 10 parts left tokens would be late");
        assert_eq!(given(Some(9.0), Some(0.99)), Parts(11), "the next window knows better than the curve");
        assert_eq!(given(Some(9.0), Some(0.1)), Parts(16), "30 % of the device");
        assert_eq!(given(None, None), Parts(16), "nothing is known");
    }

    #[test]
    fn a_lane_that_meets_its_target_narrowly_gets_what_the_other_can_spare() {
        let eased = |ttft, tpot| feedback().ease(&curves(Some(ttft), Some(tpot)), HERE, Phase::Prefill);
        assert_eq!(eased(0.95, 0.3), (Parts(11), Reason::Rebalanced));
        assert_eq!(eased(0.99, 0.3), (Parts(12), Reason::Rebalanced), "as far as it takes");
        assert_eq!(eased(0.95, 0.88), (HERE, Reason::TargetsMet), "decode would be near its target");
        let unknown = feedback().ease(&curves(Some(0.95), None), HERE, Phase::Prefill);
        assert_eq!(unknown, (HERE, Reason::TargetsMet));
    }

    #[test]
    fn prefill_gets_what_its_load_needs_and_keeps_it() {
        let busy = |ttft, tpot| Curves { load: Some(0.6), ..curves(ttft, tpot) };
        assert_eq!(
            feedback().give(&busy(None, Some(0.2)), HERE, Phase::Prefill).0,
            Parts(15),
            "0.6 of 0.75 is below 85 %"
        );
        let given = feedback().give(&busy(Some(0.5), Some(1.2)), Parts(15), Phase::Decode);
        assert_eq!(given.0, Parts(14), "one part, as decode is late; with fewer prompts would wait ever longer");
    }

    #[test]
    fn a_queue_that_is_older_than_its_window_says_nothing_about_the_share() {
        let ruled_out = |load| {
            let mut feedback = feedback();
            feedback.decide(HERE, &window(2_000, 50, Some(load)));
            feedback.limits.rule_out(Phase::Prefill, HERE)
        };
        assert_eq!([0.8, 0.9].map(ruled_out), [false, true]);
    }

    fn window(ttft_ms: u64, tpot_ms: u64, prefill_load: Option<f64>) -> WindowReport {
        WindowReport {
            from: Time(0),
            to: Time(0),
            requests: 0,
            met: 0,
            ttft: Measured::Value(Span::from_ms(ttft_ms)),
            tpot: Measured::Value(Span::from_ms(tpot_ms)),
            prefill_load,
        }
    }

    #[test]
    fn older_windows_that_contradict_the_newest_are_forgotten() {
        let mut feedback = feedback();
        let mut remembered = |parts, ttft_ms, tpot_ms| {
            feedback.remember(Parts(parts), &window(ttft_ms, tpot_ms, None));
            feedback.seen.iter().map(|seen| seen.parts.0).collect::<Vec<_>>()
        };
        assert_eq!(remembered(10, 900, 50), [10]);
        assert_eq!(remembered(12, 800, 60), [12, 10]);
        assert_eq!(remembered(12, 700, 60), [12, 10], "one window of a share");
        assert_eq!(remembered(14, 950, 70), [14], "prompts were faster with less of the device");
        assert_eq!(remembered(12, 960, 71), [12], "tokens were faster with less of the device");
        for _ in 0..5 {
            assert_eq!(remembered(13, 955, 75), [13, 12]);
        }
        assert_eq!(remembered(13, 955, 75), [13], "it is too old");
    }
}
