//! A device that runs no maths: steps end when the latency model says, tokens are a hash of seed and position.

use std::collections::BTreeMap;

use sched::cost::{CostModel, Fitted, LaneUse, StepClock, StepWork};
use sched::{LaneId, SampledToken, SlotId, Span, StepId, StepPlan, StepResult, Time, TokenId, rng};

/// The device of one worker, one step per lane at a time.
#[derive(Debug)]
pub(crate) struct Device {
    model: Fitted,
    layers: u32,
    vocab: u32,
    slots: BTreeMap<SlotId, Slot>,
    running: BTreeMap<LaneId, Running>,
}

/// The sampler state of one sequence.
#[derive(Debug, Clone, Copy)]
struct Slot {
    seed: u64,
    position: u64,
}

#[derive(Debug)]
struct Running {
    step: StepId,
    clock: StepClock,
    sample: Vec<SlotId>,
    /// Set by a cancel: the step ends with this many layers.
    layers_cut: Option<u32>,
    ends_at: Time,
}

impl Device {
    pub(crate) fn new(model: Fitted, layers: u32, vocab: u32) -> Device {
        Device { model, layers, vocab, slots: BTreeMap::new(), running: BTreeMap::new() }
    }

    /// Begins a step and says when it ends if nothing happens to it.
    pub(crate) fn run(&mut self, now: Time, lane: LaneId, step: StepId, plan: &StepPlan) -> Time {
        for slot in &plan.retire {
            self.slots.remove(slot);
        }
        for init in &plan.admit {
            let position = init.generated.len() as u64;
            self.slots.insert(init.slot, Slot { seed: init.seed, position });
        }
        let work = StepWork::of_plan(plan, self.layers);
        // One lane per worker today, so it has the whole device; the model is asked all the same.
        let speed = self.model.speed(LaneUse { share: 1.0, phase: work.phase() }, &[]);
        let clock = StepClock::start(now, self.model.work(&work), speed);
        let ends_at = clock.ends_at().unwrap_or(Time(u64::MAX));
        let sample = plan.sample.iter().map(|row| row.slot).collect();
        self.running.insert(lane, Running { step, clock, sample, layers_cut: None, ends_at });
        ends_at
    }

    /// Ends a step at its next layer boundary and says when that is; `None` if it does not run.
    pub(crate) fn cancel(&mut self, now: Time, lane: LaneId, step: StepId) -> Option<Time> {
        let running = self.running.get_mut(&lane).filter(|running| running.step == step)?;
        let layers = running.clock.layers_done(now, self.layers) + 1;
        if layers < self.layers {
            let left_us = running.ends_at.since(now).us();
            let layers_left = u64::from(self.layers - running.clock.layers_done(now, self.layers));
            running.layers_cut = Some(layers);
            running.ends_at = now + Span(left_us.div_ceil(layers_left));
        }
        Some(running.ends_at)
    }

    /// The result of a step that ends now; `None` if it ends at another time.
    pub(crate) fn end(&mut self, now: Time, lane: LaneId, step: StepId) -> Option<StepResult> {
        self.running.get(&lane).filter(|running| running.step == step && running.ends_at == now)?;
        let Running { sample, layers_cut, .. } = self.running.remove(&lane)?;
        if let Some(layers_done) = layers_cut {
            return Some(StepResult { samples: Vec::new(), layers_done });
        }
        let samples = sample.iter().map(|slot| self.sample(*slot)).collect();
        Some(StepResult { samples, layers_done: self.layers })
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
    use sched::{Input, SampleRow, SequenceRows, SlotInit};

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
        let ends = device.run(Time(10), LaneId(0), StepId(1), &plan(8, vec![slot(5, 0)]));
        assert_eq!(ends, Time(10) + model.span_alone(&StepWork::default().with_chunk(0..8)));
        assert_eq!(device.end(Time(11), LaneId(0), StepId(1)), None);
        let first = device.end(ends, LaneId(0), StepId(1)).unwrap();
        device.run(ends, LaneId(0), StepId(2), &plan(8, vec![]));
        let later = ends + Span(ends.us() - 10);
        let second = device.end(later, LaneId(0), StepId(2)).unwrap();
        assert_ne!(first.samples, second.samples);

        let mut other = Device::new(model, 4, 1_000);
        let ends = other.run(Time(0), LaneId(0), StepId(1), &plan(8, vec![slot(5, 1)]));
        assert_eq!(other.end(ends, LaneId(0), StepId(1)).unwrap().samples, second.samples);
    }

    #[test]
    fn a_cancelled_step_ends_at_a_layer_boundary_without_tokens() {
        let mut device = Device::new(Fitted::example(), 4, 1_000);
        let ends = device.run(Time(0), LaneId(0), StepId(1), &plan(8, vec![slot(5, 0)]));
        let now = Time(ends.us() / 2 + 1);
        assert_eq!(device.cancel(now, LaneId(0), StepId(9)), None);
        let cut = device.cancel(now, LaneId(0), StepId(1)).unwrap();
        assert!(now < cut && cut < ends, "{now} {cut} {ends}");
        assert_eq!(device.end(ends, LaneId(0), StepId(1)), None);
        let result = device.end(cut, LaneId(0), StepId(1)).unwrap();
        assert_eq!(result, StepResult { samples: vec![], layers_done: 3 });
    }
}
