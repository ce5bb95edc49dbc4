//! Turns of requests that ask for many choices: they begin them in portions, one request after the other.
//!
//! Without turns, one request of a thousand choices would stand in every worker's queue before everything that comes
//! after it. Knows neither workers nor what a job is.

use std::collections::{BTreeMap, VecDeque};

/// Jobs that wait for their turn, and the number of choices of jobs that run.
///
/// Groups (requests) take turns; within a group jobs keep their order. A job that does not fit is waited for, so that
/// narrower ones do not pass it for ever.
#[derive(Debug)]
pub struct Turns<G, J> {
    running_choices: u32,
    waiting: BTreeMap<G, VecDeque<Waiting<J>>>,
    /// Groups that wait, the next one first; each once.
    order: VecDeque<G>,
}

#[derive(Debug)]
struct Waiting<J> {
    job: J,
    choices: u32,
}

impl<G, J> Default for Turns<G, J> {
    fn default() -> Self {
        Turns { running_choices: 0, waiting: BTreeMap::new(), order: VecDeque::new() }
    }
}

impl<G: Copy + Ord, J: Copy + PartialEq> Turns<G, J> {
    /// Lets a job of `group` with so many choices wait.
    pub fn wait(&mut self, group: G, job: J, choices: u32) {
        let jobs = self.waiting.entry(group).or_default();
        if jobs.is_empty() {
            self.order.push_back(group);
        }
        jobs.push_back(Waiting { job, choices });
    }

    /// Takes out the next job if it fits into `choices_max` running choices; a wider one begins when none runs.
    pub fn next(&mut self, choices_max: u32) -> Option<(J, u32)> {
        let group = *self.order.front()?;
        let jobs = self.waiting.get_mut(&group)?;
        let choices = jobs.front()?.choices;
        if self.running_choices > 0 && self.running_choices.saturating_add(choices) > choices_max {
            return None;
        }
        let job = jobs.pop_front()?.job;
        self.running_choices = self.running_choices.saturating_add(choices);
        self.order.pop_front();
        if jobs.is_empty() {
            self.waiting.remove(&group);
        } else {
            self.order.push_back(group);
        }
        Some((job, choices))
    }

    /// Counts out a job with so many choices, which had begun and has ended.
    pub fn ended(&mut self, choices: u32) {
        self.running_choices = self.running_choices.saturating_sub(choices);
    }

    /// Takes out a job that is not wanted any more; returns whether it still waited.
    pub fn forget(&mut self, group: G, job: J) -> bool {
        let Some(jobs) = self.waiting.get_mut(&group) else { return false };
        let before = jobs.len();
        jobs.retain(|waiting| waiting.job != job);
        let forgotten = jobs.len() < before;
        if jobs.is_empty() {
            self.waiting.remove(&group);
            self.order.retain(|waiting| *waiting != group);
        }
        forgotten
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(turns: &mut Turns<u32, u32>, choices_max: u32) -> Vec<u32> {
        std::iter::from_fn(|| turns.next(choices_max).map(|(job, _)| job)).collect()
    }

    #[test]
    fn groups_take_turns_and_jobs_keep_their_order() {
        let mut turns = Turns::default();
        (0..3).for_each(|job| turns.wait(1, job, 2));
        turns.wait(2, 10, 2);
        turns.wait(3, 20, 2);
        assert_eq!(all(&mut turns, 8), [0, 10, 20, 1]);
        assert_eq!(all(&mut turns, 8), []);
        turns.ended(2);
        assert_eq!(all(&mut turns, 8), [2]);
    }

    #[test]
    fn a_wide_job_is_waited_for_and_one_that_never_fits_runs_alone() {
        let mut turns = Turns::default();
        turns.wait(1, 1, 4);
        turns.wait(2, 2, 100);
        turns.wait(3, 3, 1);
        assert_eq!(all(&mut turns, 8), [1]);
        turns.ended(4);
        assert_eq!(all(&mut turns, 8), [2]);
        turns.ended(100);
        assert_eq!(all(&mut turns, 8), [3]);
    }

    #[test]
    fn who_is_forgotten_has_no_turn() {
        let mut turns = Turns::default();
        turns.wait(1, 1, 1);
        turns.wait(1, 2, 1);
        assert!(turns.forget(1, 1) && !turns.forget(1, 1) && !turns.forget(9, 9));
        assert_eq!(all(&mut turns, 8), [2]);
        turns.wait(1, 3, 1);
        assert!(turns.forget(1, 3));
        assert_eq!(all(&mut turns, 8), []);
    }

    proptest! {
        #[test]
        fn every_job_that_is_not_forgotten_begins_once_and_the_bound_holds(
            jobs in prop::collection::vec((0u32..4, 1u32..6, any::<bool>()), 0..40), choices_max in 1u32..8,
        ) {
            let mut turns = Turns::default();
            for (job, (group, choices, _)) in (0u32..).zip(&jobs) {
                turns.wait(*group, job, *choices);
            }
            let mut expected = Vec::new();
            for (job, (group, _, forgotten)) in (0u32..).zip(&jobs) {
                if *forgotten { prop_assert!(turns.forget(*group, job)); } else { expected.push(job); }
            }
            let (mut began, mut running) = (Vec::new(), VecDeque::new());
            loop {
                while let Some((job, choices)) = turns.next(choices_max) {
                    running.push_back(choices);
                    began.push(job);
                    let sum: u32 = running.iter().sum();
                    prop_assert!(sum <= choices_max || running.len() == 1);
                }
                let Some(choices) = running.pop_front() else { break };
                turns.ended(choices);
            }
            began.sort_unstable();
            prop_assert_eq!(began, expected);
        }
    }
}
