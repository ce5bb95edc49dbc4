//! Skip-join multi-level feedback queue of FastServe: who has had little time comes first; knows no token and no block.

use std::collections::BTreeMap;

use crate::cost::{CostModel, Fitted, Latency, StepWork};
use crate::{Span, Time};

/// Settings of the queue.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlfqConfig {
    /// Most sequences that get a token in one step; the others wait with their KV caches in the pool. Without such a
    /// limit below that of running sequences, nobody waits and there is nothing to order.
    pub batch_max: u32,
    /// Time on the device after which a sequence leaves the first level; each level has twice that of the one before.
    pub quantum: Span,
    /// Time within which every waiting sequence gets its next token, as far as the device can give all of them one.
    pub starvation: Span,
    /// Latency model that says how long a prompt takes. Until it is known, prompts skip no level.
    pub latency: Latency,
}

impl MlfqConfig {
    /// The constants of FastServe's published artifact (Wu et al., arXiv 2305.05920): a first quantum of 10 ms that
    /// doubles with each level, and 3 s until a waiting sequence is promoted.
    #[must_use]
    pub fn published(batch_max: u32, latency: impl Into<Latency>) -> MlfqConfig {
        let latency = latency.into();
        MlfqConfig { batch_max, quantum: Span::from_ms(10), starvation: Span::from_secs(3), latency }
    }

    /// First level whose quantum covers a prompt of so many tokens: a sequence joins there and skips those above, since
    /// its prompt could not be interrupted in them.
    fn level_of_prompt(&self, tokens: u32, learned: Option<Fitted>) -> u32 {
        let alone = match (tokens, self.latency.model(learned)) {
            (0, _) | (_, None) => Span::ZERO,
            (tokens, Some(latency)) => latency.span_alone(&StepWork::default().with_chunk(0..tokens)),
        };
        (0..LEVEL_LAST).find(|level| self.quantum_of(*level) >= alone).unwrap_or(LEVEL_LAST)
    }

    fn quantum_of(&self, level: u32) -> Span {
        Span(self.quantum.us().saturating_mul(1 << level))
    }
}

/// Last of the levels, which nobody leaves downwards; with 10 ms its quantum is 87 minutes.
const LEVEL_LAST: u32 = 19;

/// Steps until the token of a sequence that is not picked now, but first at the next decision: the one that runs, the
/// one that is formed now, and its own. Each may be as long as the longest.
const STEPS_AHEAD: u64 = 3;

/// Steps after which about a third is left of a step that was longer than all since.
const STEPS_REMEMBERED: u64 = 4_096;

/// Steps over which the mean is taken.
const STEPS_OF_MEAN: u64 = 16;

/// Sequences by level. FastServe, section 4.1 (Algorithm 1): within a level first come, first served; who has used up
/// its level's quantum moves one level down; who has waited too long moves to the first level.
///
/// FastServe looks for waiting sequences every 1,000 iterations and promotes them after 3 s. Here every decision looks,
/// and promotes so early that the token itself comes in time; promoted sequences go first, the longest wait first.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlfq<K> {
    config: MlfqConfig,
    jobs: BTreeMap<K, Job>,
    /// Joins, demotions and promotions so far: later ones are behind earlier ones of their level.
    turns: u64,
    /// Time that a step takes: at most, and in the mean.
    longest: Span,
    mean: Span,
    /// End of the last step.
    ended: Time,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Job {
    level: u32,
    /// Time on the device in this level.
    used: Span,
    turn: u64,
    waits_since: Time,
    /// True from its promotion until its next step.
    promoted: bool,
}

impl<K: Ord + Copy> Mlfq<K> {
    /// Creates an empty queue.
    #[must_use]
    pub fn new(config: MlfqConfig) -> Mlfq<K> {
        Mlfq { config, jobs: BTreeMap::new(), turns: 0, longest: Span::ZERO, mean: Span::ZERO, ended: Time(0) }
    }

    /// Takes in a sequence whose prompt of `computed_tokens` was computed here; 0 if it was computed elsewhere. `learned`
    /// is the latency model that the worker has learnt so far.
    pub fn join(&mut self, now: Time, key: K, computed_tokens: u32, learned: Option<Fitted>) {
        let level = self.config.level_of_prompt(computed_tokens, learned);
        let job = Job { level, used: Span::ZERO, turn: self.next_turn(), waits_since: now, promoted: false };
        self.jobs.insert(key, job);
    }

    /// Forgets a sequence that has ended or lost its place.
    pub fn leave(&mut self, key: K) {
        self.jobs.remove(&key);
    }

    /// Picks the sequences of the next step, the first in order first.
    pub fn pick(&mut self, now: Time, among: &[K], rows: u32) -> Vec<K> {
        self.promote(now);
        let place = |key: &K| {
            let job = self.jobs.get(key)?;
            let (level, turn) =
                if job.promoted { (0, job.waits_since.us()) } else { (u64::from(job.level) + 1, job.turn) };
            Some((level, turn, *key))
        };
        let mut places: Vec<_> = among.iter().filter_map(place).collect();
        places.sort_unstable();
        places.truncate(rows.min(self.config.batch_max) as usize);
        places.into_iter().map(|(_, _, key)| key).collect()
    }

    /// Records that sequences are in a step that was formed now.
    pub fn chosen(&mut self, now: Time, keys: &[K]) {
        for key in keys {
            if let Some(job) = self.jobs.get_mut(key) {
                (job.waits_since, job.promoted) = (now, false);
            }
        }
    }

    /// Records a step of a sequence that has ended after `span`.
    pub fn ran(&mut self, now: Time, key: K, span: Span) {
        if now > self.ended {
            self.ended = now;
            let (longest, mean) = (self.longest.us(), self.mean.us());
            self.longest = span.max(Span(longest - longest / STEPS_REMEMBERED));
            self.mean = Span(mean - mean / STEPS_OF_MEAN + span.us() / STEPS_OF_MEAN);
        }
        let turn = self.turns + 1;
        let Some(job) = self.jobs.get_mut(&key) else { return };
        job.waits_since = now;
        job.used = job.used + span;
        if job.used > self.config.quantum_of(job.level) {
            (job.level, job.used, job.turn) = ((job.level + 1).min(LEVEL_LAST), Span::ZERO, turn);
            self.turns = turn;
        }
    }

    /// Moves sequences up whose next token would come too late if all others went first.
    fn promote(&mut self, now: Time) {
        // If all of them are promoted together, those before the last batch come first.
        let before = (self.jobs.len().div_ceil(self.config.batch_max.max(1) as usize) as u64).saturating_sub(1);
        let ahead = self.longest.us().saturating_mul(STEPS_AHEAD).saturating_add(self.mean.us().saturating_mul(before));
        let latest = now + Span(ahead);
        let starvation = self.config.starvation;
        for job in self.jobs.values_mut() {
            if !job.promoted && latest >= job.waits_since + starvation {
                self.turns += 1;
                let turn = self.turns;
                *job = Job { level: 0, used: Span::ZERO, turn, waits_since: job.waits_since, promoted: true };
            }
        }
    }

    fn next_turn(&mut self) -> u64 {
        self.turns += 1;
        self.turns
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(ms: u64) -> Time {
        Time(0) + Span::from_ms(ms)
    }

    fn queue(batch_max: u32) -> Mlfq<u32> {
        Mlfq::new(MlfqConfig::published(batch_max, Fitted::example()))
    }

    /// Runs a step of whoever is picked and returns them.
    fn step(queue: &mut Mlfq<u32>, now: &mut Time, among: &[u32], span: Span) -> Vec<u32> {
        let picked = queue.pick(*now, among, u32::MAX);
        queue.chosen(*now, &picked);
        *now = *now + span;
        picked.iter().for_each(|key| queue.ran(*now, *key, span));
        picked
    }

    /// The example takes 2 ms and 40 us per token: 100 tokens fit into 10 ms, 300 into 20 ms, 900 need 80 ms.
    #[test]
    fn a_long_prompt_skips_the_levels_that_are_too_short_for_it() {
        let mut queue = queue(1);
        for (key, tokens) in [(1, 0), (2, 100), (3, 300), (4, 900), (5, u32::MAX)] {
            queue.join(at(0), key, tokens, None);
        }
        assert_eq!([1, 2, 3, 4, 5].map(|key| queue.jobs[&key].level), [0, 0, 1, 3, 19]);
        assert_eq!(queue.pick(at(0), &[5, 4, 3, 2, 1], 9), [1], "one per step");
    }

    #[test]
    fn until_a_model_is_learnt_a_long_prompt_skips_no_level() {
        let mut queue = Mlfq::new(MlfqConfig::published(1, Latency::Learned));
        queue.join(at(0), 1, 900, None);
        queue.join(at(0), 2, 900, Some(Fitted::example()));
        assert_eq!([1, 2].map(|key| queue.jobs[&key].level), [0, 3]);
    }

    /// Three sequences, one at a time, 6 ms per token: two tokens use up the first level, four the second.
    #[test]
    fn who_has_used_its_quantum_goes_behind_and_who_has_not_stays_in_front() {
        let (mut queue, mut now) = (queue(1), at(0));
        for (key, tokens) in [(1, 0), (2, 0), (3, 300)] {
            queue.join(now, key, tokens, None);
        }
        let order: Vec<_> = (0..14).flat_map(|_| step(&mut queue, &mut now, &[1, 2, 3], Span::from_ms(6))).collect();
        assert_eq!(order, [1, 1, 2, 2, 3, 3, 3, 3, 1, 1, 1, 1, 2, 2]);
        queue.join(now, 4, 0, None);
        assert_eq!(step(&mut queue, &mut now, &[1, 2, 3, 4], Span::from_ms(6)), [4], "a newcomer is ahead of them");
    }

    #[test]
    fn who_waits_too_long_is_promoted_once_and_goes_first() {
        let (mut queue, mut now) = (queue(1), at(0));
        queue.join(now, 1, 900, None);
        assert_eq!(step(&mut queue, &mut now, &[1], Span::from_ms(10)), [1]);
        assert_eq!(queue.jobs[&1].level, 3);
        let mut waited = Vec::new();
        for key in 2..650 {
            queue.join(now, key, 0, None);
            let among = [1, key];
            if step(&mut queue, &mut now, &among, Span::from_ms(10)) == [1] {
                waited.push(now.since(at(0)).us() / 1_000);
            }
            queue.leave(key);
        }
        // Its first token came after 10 ms. It may wait for 3 s, less 30 ms for steps that may come before; in the first
        // level it has time for two.
        assert_eq!(waited, [2_980, 2_990, 5_960, 5_970]);
    }

    /// Newcomers of the first level arrive all the time, so without promotion the others would never run.
    fn longest_wait(batch: u32, residents: u32, newcomers_per_step: u32, step_ms: u64) -> Span {
        let (mut queue, mut now) = (queue(batch), at(0));
        let mut last: BTreeMap<u32, Time> = BTreeMap::new();
        let (mut next, mut longest) = (0, Span::ZERO);
        let join = |queue: &mut Mlfq<u32>, now, last: &mut BTreeMap<u32, Time>, key, tokens| {
            queue.join(now, key, tokens, None);
            last.insert(key, now);
        };
        (0..residents).for_each(|key| join(&mut queue, now, &mut last, key, 100 * (key % 9)));
        for _ in 0..30_000 / step_ms {
            for _ in 0..newcomers_per_step {
                next += 1;
                join(&mut queue, now, &mut last, residents + next, 0);
            }
            let among: Vec<u32> = last.keys().copied().collect();
            for key in step(&mut queue, &mut now, &among, Span::from_ms(step_ms)) {
                if let Some(before) = last.insert(key, now) {
                    longest = longest.max(now.since(before));
                }
                // A newcomer ends with its first token.
                if key >= residents {
                    queue.leave(key);
                    last.remove(&key);
                }
            }
        }
        longest.max(last.values().map(|before| now.since(*before)).max().unwrap_or(Span::ZERO))
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn nobody_waits_longer_than_three_seconds_for_a_token(
            batch in 2_u32..20, residents in 1_u32..120, newcomers in 0_u32..20, step_ms in 10_u64..60,
        ) {
            // A part of each batch is left over, else no order could give everybody a token in time.
            let newcomers = newcomers % batch;
            let rounds = u64::from(residents.div_ceil(batch - newcomers)) + 4;
            prop_assume!(rounds * step_ms < 3_000);
            let longest = longest_wait(batch, residents, newcomers, step_ms);
            prop_assert!(longest <= Span::from_secs(3), "{longest}");
        }
    }
}
