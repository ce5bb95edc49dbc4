//! The controllers that divide one device between a prefill lane and a decode lane; knows no device and no clock.
//!
//! A worker whose two lanes share a device asks a [`ShareController`] how. Facts go in through
//! [`ShareController::on`]; [`ShareController::poll`] gives out a [`Decision`] after every window, and every so often
//! between them where predictions decide. Each says what was measured, what had been predicted, what is predicted now,
//! and why, also if nothing changes; the worker sets the shares of those that switch.
//!
//! [`Partition`] is such a controller with eyes: `watch` turns what a replica takes in and decides into those facts.
//!
//! Where to look: `window` measures, `feedback` (semi-PD) decides by `curve` and `limits`, `predictive` (Nexus) by
//! the learner of `cost` and `search`, `split` is what they decide about.

mod api;
mod config;
mod curve;
mod feedback;
mod limits;
mod partition;
mod predictive;
mod search;
mod split;
mod verdict;
mod watch;
mod window;

#[cfg(test)]
mod tests;

pub use api::{Decision, Event, Latencies, Reason, Waiting, WorkerState};
pub use config::{FeedbackConfig, PredictiveConfig, ShareConfig, ShareError, SharePolicy};
pub use partition::Partition;
pub use split::{Divisions, IdleShare, Share, Split};
pub use window::{Measured, WindowReport};

use std::collections::VecDeque;

use crate::Time;
use crate::cost::Phase;
use feedback::Feedback;
use predictive::Predictive;
use split::Parts;
use verdict::{Outlook, Verdict};
use window::Window;

/// The machine that divides one device. Deterministic: the same calls give the same decisions.
#[derive(Debug)]
pub struct ShareController {
    now: Time,
    device: Divisions,
    policy: Policy,
    /// What the policy gives prefill; kept while an operator has pinned another split.
    parts: Parts,
    pinned: Option<Split>,
    /// The split in effect.
    split: Split,
    window: Window,
    state: WorkerState,
    /// When a policy that decides between windows decides next.
    decides_at: Option<Time>,
    last: Decision,
    last_switch: Option<Decision>,
    out: VecDeque<Decision>,
}

#[derive(Debug)]
enum Policy {
    Fixed(Split),
    Feedback(Feedback),
    Predictive(Box<Predictive>),
}

impl ShareController {
    /// Creates the controller of a device. Its first decision is the configured split.
    ///
    /// # Errors
    /// The key of the configuration that is wrong.
    pub fn new(config: &ShareConfig, device: Divisions, now: Time) -> Result<ShareController, ShareError> {
        config.check()?;
        let configured = Share::from_percent(config.prefill_percent)?;
        let policy = match config.policy {
            SharePolicy::Fixed => Policy::Fixed(Split::Divided { prefill: configured }),
            SharePolicy::Oversubscribed => Policy::Fixed(Split::Oversubscribed),
            SharePolicy::Feedback => Policy::Feedback(Feedback::new(config, device)?),
            SharePolicy::Predictive => {
                Policy::Predictive(Box::new(Predictive::new(&config.predictive, config.tpot(), device)))
            }
        };
        let parts = device.parts(configured);
        let wanted = match &policy {
            Policy::Fixed(split) => *split,
            Policy::Feedback(_) | Policy::Predictive(_) => Split::Divided { prefill: configured },
        };
        let split = device.round(wanted);
        let first = Decision::first(now, wanted, split);
        let mut controller = ShareController {
            now,
            device,
            policy,
            parts,
            pinned: None,
            split,
            window: Window::open(config, now),
            state: WorkerState::default(),
            decides_at: None,
            last: first,
            last_switch: None,
            out: VecDeque::from([first]),
        };
        controller.decides_at = controller.interval_ends();
        Ok(controller)
    }

    /// Takes in one fact.
    pub fn on(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        match event {
            Event::Arrived => self.window.arrived(),
            Event::FirstToken { slo, ttft } => self.window.first_token(self.now, &slo, ttft),
            Event::Decoded { slo, tokens, tpot } => self.window.decoded(self.now, &slo, tokens, tpot),
            Event::Finished(judgement) => self.window.finished(judgement),
            Event::StepDone { work, span, beside } => {
                if work.phase() == Phase::Prefill {
                    self.window.prefilled(span);
                }
                if let Policy::Predictive(policy) = &mut self.policy {
                    policy.step_done(self.split, &work, span, beside);
                }
            }
            Event::State(state) => self.state = state,
            Event::Pin(split) => self.pin(split),
            Event::Release => self.release(),
            Event::Tick => {}
        }
        self.decide_if_due();
    }

    /// Gives out one decision; `None` when there is nothing more to do until the next fact.
    pub fn poll(&mut self) -> Option<Decision> {
        self.out.pop_front()
    }

    /// Time by which `on` must be called, with [`Event::Tick`] if nothing else has happened.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let window = self.window.ends_at();
        Some(self.decides_at.map_or(window, |decides_at| decides_at.min(window)))
    }

    /// The split in effect.
    #[must_use]
    pub fn split(&self) -> Split {
        self.split
    }

    /// The last decision.
    #[must_use]
    pub fn last(&self) -> &Decision {
        &self.last
    }

    /// The last decision that changed the split, if there was one.
    #[must_use]
    pub fn last_switch(&self) -> Option<&Decision> {
        self.last_switch.as_ref()
    }

    fn pin(&mut self, split: Split) {
        self.pinned = Some(split);
        self.tell(Reason::Pinned, Outlook::default(), None);
    }

    fn release(&mut self) {
        if self.pinned.take().is_some() {
            self.tell(Reason::Released, Outlook::default(), None);
        }
    }

    fn decide_if_due(&mut self) {
        let window = self.window.has_ended(self.now).then(|| self.window.close(self.now, &self.state));
        let is_interval_over = self.decides_at.is_some_and(|decides_at| decides_at <= self.now);
        if window.is_some() || is_interval_over {
            self.decides_at = self.interval_ends();
            self.decide(window);
        }
    }

    fn decide(&mut self, window: Option<WindowReport>) {
        let outlook = window.as_ref().map(Outlook::of).unwrap_or_default();
        let unmoved = |reason| Verdict { parts: self.parts, reason, outlook };
        let verdict = match (&mut self.policy, &window) {
            _ if self.pinned.is_some() => unmoved(Reason::Pinned),
            (Policy::Fixed(_), _) => unmoved(Reason::Configured),
            (Policy::Feedback(_), None) => return,
            (Policy::Feedback(policy), Some(window)) => policy.decide(self.parts, window),
            (Policy::Predictive(policy), None) => policy.decide(self.parts, &self.state),
            (Policy::Predictive(policy), Some(window)) => {
                policy.window(self.parts, window);
                policy.decide(self.parts, &self.state)
            }
        };
        self.parts = verdict.parts;
        self.tell(verdict.reason, verdict.outlook, window);
    }

    fn tell(&mut self, reason: Reason, outlook: Outlook, window: Option<WindowReport>) {
        let wanted = self.wanted();
        let decision = Decision {
            at: self.now,
            reason,
            before: self.split,
            wanted,
            split: self.device.round(wanted),
            measured: outlook.measured,
            predicted_before: self.last.predicted,
            predicted: outlook.predicted,
            model_calls: outlook.model_calls,
            window,
        };
        if decision.switches() {
            self.split = decision.split;
            self.window.switched(self.now);
            self.last_switch = Some(decision);
        }
        self.last = decision;
        self.out.push_back(decision);
    }

    /// What holds if the device can express it.
    fn wanted(&self) -> Split {
        let of_policy = match &self.policy {
            Policy::Fixed(split) => *split,
            Policy::Feedback(_) | Policy::Predictive(_) => self.device.split(self.parts),
        };
        self.pinned.unwrap_or(of_policy)
    }

    fn interval_ends(&self) -> Option<Time> {
        match &self.policy {
            Policy::Fixed(_) | Policy::Feedback(_) => None,
            Policy::Predictive(policy) => Some(self.now + policy.interval()),
        }
    }
}
