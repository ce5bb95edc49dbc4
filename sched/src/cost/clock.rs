//! End of a running step, revised whenever its speed changes; knows no model.

use super::Work;
use crate::Time;

/// Progress of one running step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct StepClock {
    total: f64,
    left: f64,
    at: Time,
    speed: f64,
}

impl StepClock {
    /// Starts a step now.
    #[must_use]
    pub fn start(now: Time, work: Work, speed: f64) -> StepClock {
        let total = work.0.max(0.0);
        StepClock { total, left: total, at: now, speed: speed.max(0.0) }
    }

    /// Sets the speed of the step from now on (shares or neighbours have changed).
    pub fn set_speed(&mut self, now: Time, speed: f64) {
        self.left = self.left_at(now);
        self.at = self.at.max(now);
        self.speed = speed.max(0.0);
    }

    /// Time at which the step ends if nothing changes, rounded up to whole microseconds; `None` while it stands still.
    #[must_use]
    pub fn ends_at(&self) -> Option<Time> {
        // The cast saturates, so a step that would take longer than time itself ends at the end of time.
        (self.left <= 0.0 || self.speed > 0.0)
            .then(|| Time(self.at.0.saturating_add((self.left / self.speed.max(f64::MIN_POSITIVE)).ceil() as u64)))
    }

    /// True if the step has ended by now.
    #[must_use]
    pub fn has_ended(&self, now: Time) -> bool {
        self.ends_at().is_some_and(|end| end <= now)
    }

    /// Number of the step's `layers` layers that have run by now.
    #[must_use]
    pub fn layers_done(&self, now: Time, layers: u32) -> u32 {
        if self.has_ended(now) || self.total <= 0.0 {
            return layers;
        }
        (f64::from(layers) * (1.0 - self.left_at(now) / self.total)) as u32
    }

    fn left_at(&self, now: Time) -> f64 {
        (self.left - now.since(self.at).us() as f64 * self.speed).max(0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_retimed_when_its_speed_changes() {
        let mut clock = StepClock::start(Time(1_000), Work(100.0), 0.5);
        assert_eq!(clock.ends_at(), Some(Time(1_200)));
        clock.set_speed(Time(1_100), 1.0);
        assert_eq!(clock.ends_at(), Some(Time(1_150)));
        clock.set_speed(Time(1_120), 0.0);
        assert_eq!(clock.ends_at(), None);
        clock.set_speed(Time(2_000), 0.1);
        assert_eq!(clock.ends_at(), Some(Time(2_300)));
        assert!(!clock.has_ended(Time(2_299)));
        assert!(clock.has_ended(Time(2_300)));
    }

    #[test]
    fn layers_finish_one_after_the_other() {
        let clock = StepClock::start(Time(0), Work(100.0), 1.0);
        let done = |now| clock.layers_done(Time(now), 4);
        assert_eq!([done(0), done(24), done(25), done(99), done(100), done(500)], [0, 0, 1, 3, 4, 4]);
        // Half of the work is done when the step stands still, and the rest takes twice as long as it would have.
        let mut clock = clock;
        clock.set_speed(Time(50), 0.0);
        assert_eq!(clock.layers_done(Time(1_000), 4), 2);
        clock.set_speed(Time(1_000), 0.5);
        assert_eq!([1_049, 1_050, 1_100].map(|now| clock.layers_done(Time(now), 4)), [2, 3, 4]);
        assert_eq!(StepClock::start(Time(7), Work(0.0), 1.0).layers_done(Time(3), 4), 4, "without work, at any time");
    }

    #[test]
    fn a_step_without_work_ends_at_once() {
        assert_eq!(StepClock::start(Time(7), Work(0.0), 0.0).ends_at(), Some(Time(7)));
    }
}
