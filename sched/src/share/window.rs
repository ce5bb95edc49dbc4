//! The requests of one window, and what they say about the split that served them; knows no policy.

use super::{ShareConfig, WorkerState};
use crate::slo::{Judgement, quantile};
use crate::{Slo, Span, Time};

/// Requests of a lane below which a quantile says nothing. Fewer wait for those of the next window.
const SAMPLES_MIN: usize = 5;
/// Most latencies that a window keeps of a lane; more would not change its quantile.
const SAMPLES_MAX: usize = 4_096;

/// Part of a window for which prompts may keep prefill busy: beyond, small changes of the load make long queues.
pub(super) const LOAD_MAX: f64 = 0.85;

/// A window that has ended.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct WindowReport {
    /// When it began.
    pub from: Time,
    /// When it ended.
    pub to: Time,
    /// Requests that ended in it and were judged: those whose client left too early are not.
    pub requests: u32,
    /// Requests among them that met every target.
    pub met: u32,
    /// TTFT at the configured quantile.
    pub ttft: Measured,
    /// TPOT at the configured quantile.
    pub tpot: Measured,
    /// Part of the window for which the prompts that came in it keep prefill busy at this split: above 1, ever more of
    /// them wait. `None` if no prompt was done.
    pub prefill_load: Option<f64>,
}

/// A latency that a window has measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// There were too few requests.
    Unknown,
    /// Nobody got that far, and somebody has waited so long.
    AtLeast(Span),
    /// The quantile.
    Value(Span),
}

/// The window that is open.
///
/// Latencies count that came about under one split alone: what began before the last switch says nothing about the
/// present share. Judgements count from the window's begin to its end, so that every request is in one window.
#[derive(Debug)]
pub(super) struct Window {
    from: Time,
    switched: Time,
    finished: u32,
    judged: u32,
    met: u32,
    ttfts: Vec<Span>,
    tpots: Vec<Span>,
    prompts: Prompts,
    limits: WindowLimits,
}

/// Prompts of a window, whenever they began.
#[derive(Debug, Default)]
struct Prompts {
    arrived: u32,
    done: u32,
    busy: Span,
}

/// When windows close and what they compare.
#[derive(Debug, Clone, Copy)]
struct WindowLimits {
    requests: u32,
    span: Span,
    quantile: f64,
    ttft: Option<Span>,
    tpot: Option<Span>,
}

impl Window {
    pub(super) fn open(config: &ShareConfig, now: Time) -> Window {
        let limits = WindowLimits {
            requests: config.window_requests,
            span: Span::from_ms(config.window_ms),
            quantile: config.quantile,
            ttft: config.ttft(),
            tpot: config.tpot(),
        };
        let (ttfts, tpots, prompts) = (Vec::new(), Vec::new(), Prompts::default());
        Window { from: now, switched: now, finished: 0, judged: 0, met: 0, ttfts, tpots, prompts, limits }
    }

    pub(super) fn arrived(&mut self) {
        self.prompts.arrived = self.prompts.arrived.saturating_add(1);
    }

    /// A step of prefill has taken so long.
    pub(super) fn prefilled(&mut self, span: Span) {
        self.prompts.busy = self.prompts.busy + span;
    }

    pub(super) fn first_token(&mut self, now: Time, slo: &Slo, ttft: Span) {
        self.prompts.done = self.prompts.done.saturating_add(1);
        if began(now, ttft) >= self.switched {
            keep(&mut self.ttfts, scaled(ttft, slo.ttft, self.limits.ttft));
        }
    }

    pub(super) fn decoded(&mut self, now: Time, slo: &Slo, tokens: u32, tpot: Span) {
        if began(now, Span(tpot.us().saturating_mul(u64::from(tokens)))) >= self.switched {
            keep(&mut self.tpots, scaled(tpot, slo.tpot, self.limits.tpot));
        }
    }

    pub(super) fn finished(&mut self, judgement: Judgement) {
        self.finished = self.finished.saturating_add(1);
        match judgement {
            Judgement::Met => (self.judged, self.met) = (self.judged + 1, self.met + 1),
            Judgement::Missed => self.judged += 1,
            Judgement::Left => {}
        }
    }

    /// Forgets latencies, because another split holds from now on.
    pub(super) fn switched(&mut self, now: Time) {
        self.switched = now;
        self.ttfts.clear();
        self.tpots.clear();
    }

    pub(super) fn ends_at(&self) -> Time {
        self.from + self.limits.span
    }

    pub(super) fn has_ended(&self, now: Time) -> bool {
        self.finished >= self.limits.requests || now >= self.ends_at()
    }

    /// Ends this window and opens the next one.
    pub(super) fn close(&mut self, now: Time, state: &WorkerState) -> WindowReport {
        let quantile = self.limits.quantile;
        let ttft = match take_quantile(&mut self.ttfts, quantile) {
            Measured::Unknown => self.starved(now, state),
            measured => measured,
        };
        let tpot = take_quantile(&mut self.tpots, quantile);
        let prefill_load = std::mem::take(&mut self.prompts).load(now.since(self.from));
        let (requests, met) = (self.judged, self.met);
        let report = WindowReport { from: self.from, to: now, requests, met, ttft, tpot, prefill_load };
        (self.from, self.finished, self.judged, self.met) = (now, 0, 0, 0);
        report
    }

    /// Without first tokens, the longest wait under the present split says that TTFT is at least that.
    fn starved(&self, now: Time, state: &WorkerState) -> Measured {
        let waited = state.oldest_waiting.and_then(|waiting| {
            scaled(now.since(waiting.since.max(self.switched)), waiting.slo.ttft, self.limits.ttft)
        });
        match waited {
            Some(waited) if self.limits.ttft.is_some_and(|target| waited > target) => Measured::AtLeast(waited),
            Some(_) | None => Measured::Unknown,
        }
    }
}

impl Prompts {
    /// Time per prompt times the prompts that came, as a part of the window.
    fn load(&self, window: Span) -> Option<f64> {
        let busy = self.busy.us() as f64 / window.us() as f64;
        let load = busy * f64::from(self.arrived) / f64::from(self.done);
        (self.busy > Span::ZERO && load.is_finite()).then_some(load)
    }
}

impl WindowReport {
    /// Part of the judged requests that met every target; `None` if none was judged.
    #[must_use]
    pub fn attainment(&self) -> Option<f64> {
        (self.requests > 0).then(|| f64::from(self.met) / f64::from(self.requests))
    }
}

impl Measured {
    /// The value, if it is one.
    #[must_use]
    pub fn value(self) -> Option<Span> {
        match self {
            Measured::Value(span) => Some(span),
            Measured::Unknown | Measured::AtLeast(_) => None,
        }
    }
}

fn began(now: Time, latency: Span) -> Time {
    Time(now.0.saturating_sub(latency.us()))
}

/// A latency in proportion to the controller's target, so that one curve serves classes of different targets. `None`
/// if the request has no target, and so cannot miss one; as it is if the controller has none.
fn scaled(latency: Span, own: Option<Span>, target: Option<Span>) -> Option<Span> {
    let Some(target) = target else { return Some(latency) };
    let own = own.filter(|own| *own > Span::ZERO)?;
    Some(Span((latency.us() as f64 * target.us() as f64 / own.us() as f64).ceil() as u64))
}

fn keep(samples: &mut Vec<Span>, sample: Option<Span>) {
    if samples.len() < SAMPLES_MAX {
        samples.extend(sample);
    }
}

fn take_quantile(samples: &mut Vec<Span>, q: f64) -> Measured {
    if samples.len() < SAMPLES_MIN {
        return Measured::Unknown;
    }
    let value = quantile(samples, q);
    samples.clear();
    value.map_or(Measured::Unknown, Measured::Value)
}

#[cfg(test)]
mod tests {
    use super::super::Waiting;
    use super::*;

    const TARGET: Slo = Slo { class: 0, ttft: Some(Span(1_000)), tpot: Some(Span(100)), itl_tail: None };

    fn window() -> Window {
        let config = ShareConfig { ttft_ms: 1, tpot_ms: 1, window_requests: 3, ..ShareConfig::default() };
        Window::open(&config, Time(0))
    }

    #[test]
    fn a_window_closes_after_so_many_requests_or_so_much_time() {
        let mut window = window();
        for judgement in [Judgement::Met, Judgement::Missed] {
            window.finished(judgement);
        }
        assert!(!window.has_ended(Time(9_999_999)) && window.has_ended(Time(10_000_000)));
        window.finished(Judgement::Left);
        assert!(window.has_ended(Time(1)));
        let report = window.close(Time(7), &WorkerState::default());
        assert_eq!((report.requests, report.met, report.attainment()), (2, 1, Some(0.5)), "who left is not judged");
        assert_eq!((window.has_ended(Time(8)), window.ends_at()), (false, Time(10_000_007)));
        assert_eq!(window.close(Time(9), &WorkerState::default()).attainment(), None);
    }

    #[test]
    fn latencies_count_in_proportion_to_the_target_of_their_request() {
        let mut window = window();
        let strict = Slo { ttft: Some(Span(500)), tpot: None, ..TARGET };
        for _ in 0..5 {
            window.first_token(Time(900), &strict, Span(300));
            window.decoded(Time(900), &strict, 2, Span(9));
        }
        let report = window.close(Time(1_000), &WorkerState::default());
        assert_eq!(report.ttft, Measured::Value(Span(600)));
        assert_eq!(report.tpot, Measured::Unknown, "without a target, nothing is late");
    }

    #[test]
    fn what_began_before_a_switch_says_nothing_about_the_share() {
        let mut window = window();
        window.switched(Time(5_000));
        for _ in 0..5 {
            window.first_token(Time(6_000), &TARGET, Span(1_001));
            window.first_token(Time(6_000), &TARGET, Span(1_000));
            window.decoded(Time(6_000), &TARGET, 11, Span(100));
        }
        let report = window.close(Time(6_000), &WorkerState::default());
        assert_eq!((report.ttft, report.tpot), (Measured::Value(Span(1_000)), Measured::Unknown));
    }

    #[test]
    fn the_load_of_prompts_is_the_time_that_all_who_came_will_take() {
        let mut window = window();
        let load = |window: &mut Window, to| window.close(Time(to), &WorkerState::default()).prefill_load;
        assert_eq!(load(&mut window, 1_000), None);
        (0..8).for_each(|_| window.arrived());
        (0..2).for_each(|_| window.prefilled(Span(150)));
        (0..4).for_each(|_| window.first_token(Time(1_900), &TARGET, Span(300)));
        assert_eq!(load(&mut window, 2_000), Some(0.6), "4 of 8 took 30 % of the window");
        window.prefilled(Span(150));
        assert_eq!(load(&mut window, 3_000), None, "no prompt is done");
    }

    #[test]
    fn few_latencies_wait_for_more() {
        let mut window = window();
        (0..3).for_each(|_| window.first_token(Time(900), &TARGET, Span(300)));
        assert_eq!(window.close(Time(1_000), &WorkerState::default()).ttft, Measured::Unknown);
        (0..2).for_each(|_| window.first_token(Time(1_900), &TARGET, Span(200)));
        assert_eq!(window.close(Time(2_000), &WorkerState::default()).ttft, Measured::Value(Span(300)));
        assert_eq!(window.close(Time(3_000), &WorkerState::default()).ttft, Measured::Unknown);
    }

    #[test]
    fn a_prompt_that_waits_past_its_target_is_late_without_a_first_token() {
        let waiting = |since| WorkerState {
            oldest_waiting: Some(Waiting { slo: TARGET, since: Time(since) }),
            ..WorkerState::default()
        };
        assert_eq!(window().close(Time(3_000), &waiting(1_999)).ttft, Measured::AtLeast(Span(1_001)));
        assert_eq!(window().close(Time(3_000), &waiting(2_000)).ttft, Measured::Unknown);
        let mut switched = window();
        switched.switched(Time(2_500));
        assert_eq!(switched.close(Time(3_000), &waiting(0)).ttft, Measured::Unknown, "it waited under another split");
    }

    #[test]
    fn a_window_keeps_a_bounded_number_of_latencies() {
        let mut window = window();
        (0..2 * SAMPLES_MAX).for_each(|_| window.first_token(Time(900), &TARGET, Span(300)));
        assert_eq!(window.ttfts.len(), SAMPLES_MAX);
    }
}
