//! A device that runs no maths: steps end when the latency model says, tokens are a hash of seed and position.

use std::collections::{BTreeMap, VecDeque};

use sched::cost::{CostModel, Fitted, LaneUse, StepClock, StepWork};
use sched::{LaneId, SampledToken, SlotId, SlotInit, Span, StepId, StepPlan, StepResult, Time, TokenId, rng};

/// The device of one worker. Steps of a lane run one after the other, in the order of their submission.
#[derive(Debug)]
pub(crate) struct Device {
    model: Fitted,
    layers: u32,
    vocab: u32,
    slots: BTreeMap<SlotId, Slot>,
    lanes: BTreeMap<LaneId, VecDeque<Submitted>>,
}

/// The sampler state of one sequence.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seed: u64,
    position: u64,
}

/// A step that has not ended; the first of a lane runs.
#[derive(Debug)]
struct Submitted {
    step: StepId,
    work: StepWork,
    retire: Vec<SlotId>,
    admit: Vec<(SlotId, Slot)>,
    sample: Vec<SlotId>,
    /// Set by a cancel: the step ends with this many layers.
    layers_cut: Option<u32>,
    /// Since it runs.
    clock: Option<(StepClock, Time)>,
}

/// A step that runs from now on, and when it ends if nothing happens to it.
pub(crate) type Begun = (StepId, Time);

impl Device {
    pub(crate) fn new(model: Fitted, layers: u32, vocab: u32) -> Device {
        Device { model, layers, vocab, slots: BTreeMap::new(), lanes: BTreeMap::new() }
    }

    /// Takes a step in. Returns it if it begins at once, because its lane was free.
    pub(crate) fn submit(&mut self, now: Time, lane: LaneId, step: StepId, plan: &StepPlan) -> Option<Begun> {
        let slot = |init: &SlotInit| Slot { seed: init.seed, position: init.generated.len() as u64 };
        let steps = self.lanes.entry(lane).or_default();
        steps.push_back(Submitted {
            step,
            work: StepWork::of_plan(plan, self.layers),
            retire: plan.retire.clone(),
            admit: plan.admit.iter().map(|init| (init.slot, slot(init))).collect(),
            sample: plan.sample.iter().map(|row| row.slot).collect(),
            layers_cut: None,
            clock: None,
        });
        (steps.len() == 1).then(|| self.begin(now, lane)).flatten()
    }

    /// Begins the oldest step of a lane.
    fn begin(&mut self, now: Time, lane: LaneId) -> Option<Begun> {
        let Device { model, slots, lanes, .. } = self;
        let front = lanes.get_mut(&lane)?.front_mut()?;
        for slot in &front.retire {
            slots.remove(slot);
        }
        slots.extend(front.admit.drain(..));
        // One lane per worker today, so it has the whole device; the model is asked all the same.
        let speed = model.speed(LaneUse { share: 1.0, phase: front.work.phase() }, &[]);
        let clock = StepClock::start(now, model.work(&front.work), speed);
        let ends_at = match front.layers_cut {
            Some(_) => now,
            None => clock.ends_at().unwrap_or(Time(u64::MAX)),
        };
        front.clock = Some((clock, ends_at));
        Some((front.step, ends_at))
    }

    /// Ends a step at its next layer boundary and says when that is, if it runs; one that has not begun will run none.
    pub(crate) fn cancel(&mut self, now: Time, lane: LaneId, step: StepId) -> Option<Time> {
        let layers_total = self.layers;
        let submitted = self.lanes.get_mut(&lane)?.iter_mut().find(|submitted| submitted.step == step)?;
        let Some((clock, ends_at)) = &mut submitted.clock else {
            submitted.layers_cut = Some(0);
            return None;
        };
        let layers = clock.layers_done(now, layers_total) + 1;
        if layers < layers_total {
            let left_us = ends_at.since(now).us();
            submitted.layers_cut = Some(layers);
            *ends_at = now + Span(left_us.div_ceil(u64::from(layers_total - layers + 1)));
        }
        Some(*ends_at)
    }

    /// The result of a step that ends now and the one that begins after it; `None` if it ends at another time.
    pub(crate) fn end(&mut self, now: Time, lane: LaneId, step: StepId) -> Option<(StepResult, Option<Begun>)> {
        let steps = self.lanes.get_mut(&lane)?;
        steps.front().filter(|front| front.step == step && front.clock.is_some_and(|(_, ends_at)| ends_at == now))?;
        let ended = steps.pop_front()?;
        let result = match ended.layers_cut {
            Some(layers_done) => StepResult { samples: Vec::new(), layers_done },
            None => {
                let samples = ended.sample.iter().map(|slot| Ok(self.sample(*slot))).collect();
                StepResult { samples, layers_done: self.layers }
            }
        };
        Some((result, self.begin(now, lane)))
    }

    fn sample(&mut self, slot: SlotId) -> SampledToken {
        let vocab = u64::from(self.vocab.max(1));
        let token = self.slots.get_mut(&slot).map_or(0, |slot| {
            let token = rng::token_hash(slot.seed, slot.position) % vocab;
            slot.position += 1;
            token as u32
        });
        SampledToken { token: TokenId(token), logprob: None, top: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use sched::{Input, SampleRow, SequenceRows};

    fn plan(rows: u32, admit: Vec<SlotInit>) -> StepPlan {
        StepPlan {
            admit,
            sequences: vec![SequenceRows { rows: 0..rows, blocks: 0..1, first_position: 0, input: Input::Given }],
            layers: 0..4,
            sample: vec![SampleRow { row: rows - 1, slot: SlotId(0) }],
            ..StepPlan::default()
        }
    }

    fn slot(seed: u64, generated: usize) -> SlotInit {
        SlotInit {
            slot: SlotId(0),
            params: Arc::default(),
            seed,
            prompt: Arc::from([TokenId(1)]),
            generated: vec![TokenId(0); generated],
        }
    }

    #[test]
    fn steps_take_what_the_model_says_and_tokens_depend_on_the_position_only() {
        let model = Fitted::example();
        let mut device = Device::new(model, 4, 1_000);
        let (_, ends) = device.submit(Time(10), LaneId(0), StepId(1), &plan(8, vec![slot(5, 0)])).unwrap();
        assert_eq!(ends, Time(10) + model.span_alone(&StepWork::default().with_chunk(0..8)));
        assert_eq!(device.end(Time(11), LaneId(0), StepId(1)), None);
        assert_eq!(device.submit(Time(11), LaneId(0), StepId(2), &plan(8, vec![])), None);
        let later = ends + Span(ends.us() - 10);
        let (first, next) = device.end(ends, LaneId(0), StepId(1)).unwrap();
        assert_eq!(next, Some((StepId(2), later)));
        let (second, next) = device.end(later, LaneId(0), StepId(2)).unwrap();
        assert_eq!(next, None);
        assert_ne!(first.samples, second.samples);

        let mut other = Device::new(model, 4, 1_000);
        let (_, ends) = other.submit(Time(0), LaneId(0), StepId(1), &plan(8, vec![slot(5, 1)])).unwrap();
        assert_eq!(other.end(ends, LaneId(0), StepId(1)).unwrap().0.samples, second.samples);
    }

    #[test]
    fn a_cancelled_step_ends_at_a_layer_boundary_without_tokens() {
        let mut device = Device::new(Fitted::example(), 4, 1_000);
        let (_, ends) = device.submit(Time(0), LaneId(0), StepId(1), &plan(8, vec![slot(5, 0)])).unwrap();
        device.submit(Time(0), LaneId(0), StepId(2), &plan(8, vec![]));
        let now = Time(ends.us() / 2 + 1);
        assert_eq!(device.cancel(now, LaneId(0), StepId(9)), None);
        let cut = device.cancel(now, LaneId(0), StepId(1)).unwrap();
        assert!(now < cut && cut < ends, "{now} {cut} {ends}");
        assert_eq!(device.end(ends, LaneId(0), StepId(1)), None);
        assert_eq!(device.cancel(now, LaneId(0), StepId(2)), None);
        let (result, next) = device.end(cut, LaneId(0), StepId(1)).unwrap();
        assert_eq!(result, StepResult { samples: vec![], layers_done: 3 });
        assert_eq!(next, Some((StepId(2), cut)));
        let (result, next) = device.end(cut, LaneId(0), StepId(2)).unwrap();
        assert_eq!((result, next), (StepResult { samples: vec![], layers_done: 0 }, None));
    }
}
