//! Steps of a modelled device: which one runs, how fast, and when it ends; knows no token.

use std::collections::{BTreeMap, VecDeque};

use crate::cost::{CostModel, LaneUse, Phase, StepClock, StepWork};
use crate::replica::Progress;
use crate::{LaneId, Span, StepId, StepPlan, Time};

pub(super) struct Steps {
    cost: Box<dyn CostModel + Send>,
    layers: u32,
    lanes: BTreeMap<LaneId, Lane>,
}

struct Lane {
    share: f64,
    current: Option<Current>,
    queue: VecDeque<Queued>,
}

struct Queued {
    step: StepId,
    plan: StepPlan,
    progress: Progress,
    cancelled: bool,
}

struct Current {
    step: StepId,
    plan: StepPlan,
    phase: Phase,
    clock: StepClock,
    began: Time,
    progress: Progress,
    /// Number of layers whose end was told.
    told: u32,
    /// After a cancel: the layers that run, and the time at which the last of them ends.
    cut: Option<(u32, Time)>,
}

pub(super) struct Ended {
    pub(super) lane: LaneId,
    pub(super) step: StepId,
    pub(super) plan: StepPlan,
    /// Layers that ran; all of the plan's unless it was cancelled.
    pub(super) layers_done: u32,
    pub(super) began: Time,
    pub(super) at: Time,
}

impl Steps {
    pub(super) fn new(cost: Box<dyn CostModel + Send>, layers: u32) -> Steps {
        Steps { cost, layers, lanes: BTreeMap::new() }
    }

    pub(super) fn submit(&mut self, now: Time, lane: LaneId, step: StepId, (plan, progress): (StepPlan, Progress)) {
        self.lane(lane).queue.push_back(Queued { step, plan, progress, cancelled: false });
        self.begin_next(now, lane);
    }

    pub(super) fn cancel(&mut self, now: Time, step: StepId) {
        for lane in self.lanes.values_mut() {
            if let Some(queued) = lane.queue.iter_mut().find(|queued| queued.step == step) {
                queued.cancelled = true;
            }
            if let Some(current) = lane.current.as_mut().filter(|current| current.step == step) {
                current.cut_at_next_layer(now);
            }
        }
    }

    pub(super) fn set_share(&mut self, now: Time, lane: LaneId, share: f32) {
        const SHARE_MIN: f64 = 0.01;
        self.lane(lane).share = f64::from(share).clamp(SHARE_MIN, 1.0);
        self.retime(now);
    }

    /// Time at which the next step ends or, if its progress is asked for, has run another layer.
    pub(super) fn next_due(&self, now: Time) -> Option<Time> {
        let currents = || self.lanes.values().filter_map(|lane| lane.current.as_ref());
        let telling = currents().filter(|current| current.progress == Progress::ByLayer);
        let layers = telling.filter_map(|current| match current.news(now) {
            Some(_) => Some(now),
            None => current.next_layer(now).map(|(_, at)| at + Span(1)),
        });
        currents().filter_map(Current::ends_at).chain(layers).min()
    }

    /// Takes out the progress of a step that asked for it: the number of layers that have run, the last one excepted.
    pub(super) fn pop_progress(&mut self, now: Time) -> Option<(LaneId, StepId, u32)> {
        self.lanes.iter_mut().find_map(|(id, lane)| {
            let current = lane.current.as_mut().filter(|current| current.progress == Progress::ByLayer)?;
            current.told = current.news(now)?;
            Some((*id, current.step, current.told))
        })
    }

    /// Takes out a step that has ended by now, the earliest first; its lane begins the next one at that very time.
    pub(super) fn pop_ended(&mut self, now: Time) -> Option<Ended> {
        let ends = self.lanes.iter().filter_map(|(id, lane)| Some((lane.current.as_ref()?.ends_at()?, *id)));
        let (at, id) = ends.min().filter(|(at, _)| *at <= now)?;
        let current = self.lane(id).current.take()?;
        let layers_done = current.cut.map_or(planned_layers(&current.plan), |(layers, _)| layers);
        self.begin_next(at, id);
        Some(Ended { lane: id, step: current.step, plan: current.plan, layers_done, began: current.began, at })
    }

    fn begin_next(&mut self, now: Time, id: LaneId) {
        let lane = self.lane(id);
        if lane.current.is_none()
            && let Some(Queued { step, plan, progress, cancelled }) = lane.queue.pop_front()
        {
            let work = StepWork::of_plan(&plan, self.layers);
            let clock = StepClock::start(now, self.cost.work(&work), 1.0);
            let cut = cancelled.then_some((0, now));
            let current = Current { step, phase: work.phase(), plan, clock, began: now, progress, told: 0, cut };
            self.lane(id).current = Some(current);
        }
        self.retime(now);
    }

    /// Sets every running step to the speed that its share and its neighbours leave it.
    fn retime(&mut self, now: Time) {
        let in_use =
            |lane: &Lane| lane.current.as_ref().map(|current| LaneUse { share: lane.share, phase: current.phase });
        let uses: Vec<(LaneId, LaneUse)> =
            self.lanes.iter().filter_map(|(id, lane)| Some((*id, in_use(lane)?))).collect();
        for (id, own) in &uses {
            let others: Vec<LaneUse> = uses.iter().filter(|(other, _)| other != id).map(|(_, other)| *other).collect();
            let speed = self.cost.speed(*own, &others);
            if let Some(current) = self.lane(*id).current.as_mut() {
                current.clock.set_speed(now, speed);
            }
        }
    }

    fn lane(&mut self, lane: LaneId) -> &mut Lane {
        self.lanes.entry(lane).or_insert(Lane { share: 1.0, current: None, queue: VecDeque::new() })
    }
}

impl Current {
    fn ends_at(&self) -> Option<Time> {
        self.cut.map(|(_, at)| at).or(self.clock.ends_at())
    }

    fn cut_at_next_layer(&mut self, now: Time) {
        if self.cut.is_none() {
            self.cut = self.next_layer(now);
        }
    }

    /// Number of layers that have run by now, if that is news. The last layer that runs is told by the step's end.
    fn news(&self, now: Time) -> Option<u32> {
        let layers = planned_layers(&self.plan);
        let last = self.cut.map_or(layers, |(last, _)| last);
        Some(self.clock.layers_done(now, layers)).filter(|done| *done > self.told && *done < last)
    }

    /// Number of layers that will have run at the next boundary, and the time of that boundary.
    fn next_layer(&self, now: Time) -> Option<(u32, Time)> {
        const PARTS: u32 = 1_000_000;
        let layers = planned_layers(&self.plan);
        let end = self.clock.ends_at()?;
        let boundary = (self.clock.layers_done(now, layers) + 1).min(layers);
        let done = f64::from(self.clock.layers_done(now, PARTS)) / f64::from(PARTS);
        let target = f64::from(boundary) / f64::from(layers.max(1));
        let part_of_rest = ((target - done) / (1.0 - done)).clamp(0.0, 1.0);
        let rest = if part_of_rest.is_finite() { end.since(now).us() as f64 * part_of_rest } else { 0.0 };
        Some((boundary, now + Span(rest as u64)))
    }
}

pub(super) fn planned_layers(plan: &StepPlan) -> u32 {
    plan.layers.end.saturating_sub(plan.layers.start)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cost::Fitted;
    use crate::{Input, SequenceRows};

    fn untold(tokens: u32) -> (StepPlan, Progress) {
        (prefill(tokens), Progress::Untold)
    }

    #[test]
    fn whoever_asks_hears_of_every_layer_but_the_last() {
        let mut device = device();
        device.submit(Time(0), LaneId(0), StepId(1), (prefill(100), Progress::ByLayer));
        device.submit(Time(0), LaneId(0), StepId(2), untold(100));
        let (mut now, mut told) = (Time(0), Vec::new());
        while let Some(due) = device.next_due(now) {
            now = due.max(now);
            told.extend(std::iter::from_fn(|| device.pop_progress(now)).map(|(_, step, layers)| (step.0, layers)));
            while let Some(ended) = device.pop_ended(now) {
                told.push((ended.step.0, ended.layers_done));
            }
        }
        assert_eq!(told, [(1, 1), (1, 2), (1, 3), (1, 4), (2, 4)]);
    }

    /// Found by reading: whoever looked late was told of layers beyond the one at which the step had been cut.
    #[test]
    fn a_cancelled_step_tells_of_no_layer_that_it_does_not_run() {
        let mut device = device();
        device.submit(Time(0), LaneId(0), StepId(1), (prefill(100), Progress::ByLayer));
        device.submit(Time(0), LaneId(0), StepId(2), (prefill(100), Progress::ByLayer));
        device.cancel(Time(600), StepId(1));
        device.cancel(Time(600), StepId(2));
        assert_eq!(device.pop_progress(Time(1_700)), None);
        assert_eq!(drain(&mut device, 1_700), [(1, 2, 1_000), (2, 0, 1_000)]);
    }

    fn prefill(tokens: u32) -> StepPlan {
        let sequence = SequenceRows { rows: 0..tokens, blocks: 0..0, first_position: 0, input: Input::Given };
        StepPlan { sequences: vec![sequence], layers: 0..4, ..StepPlan::default() }
    }

    /// 1000 us per step plus 10 per prompt token.
    fn device() -> Steps {
        let mut cost = Fitted::example();
        cost.prefill.step_us = 1_000.0;
        cost.prefill.token_us = 10.0;
        cost.prefill.token_squared_us = 0.0;
        Steps::new(Box::new(cost), 4)
    }

    fn drain(device: &mut Steps, now: u64) -> Vec<(u64, u32, u64)> {
        let ended = std::iter::from_fn(|| device.pop_ended(Time(now)));
        ended.map(|ended| (ended.step.0, ended.layers_done, ended.at.us())).collect()
    }

    #[test]
    fn steps_of_a_lane_follow_each_other_without_a_gap() {
        let mut device = device();
        device.submit(Time(0), LaneId(0), StepId(1), untold(100));
        device.submit(Time(5), LaneId(0), StepId(2), untold(0));
        assert_eq!(device.next_due(Time(0)), Some(Time(2_000)));
        assert_eq!(drain(&mut device, 1_999), []);
        assert_eq!(drain(&mut device, 10_000), [(1, 4, 2_000), (2, 4, 2_000)]);
        assert_eq!(device.next_due(Time(0)), None);
    }

    #[test]
    fn a_cancelled_step_ends_at_the_next_layer() {
        let mut device = device();
        device.submit(Time(0), LaneId(0), StepId(1), untold(100));
        device.submit(Time(0), LaneId(0), StepId(2), untold(100));
        device.cancel(Time(600), StepId(1));
        device.cancel(Time(600), StepId(2));
        device.cancel(Time(600), StepId(9));
        assert_eq!(drain(&mut device, 10_000), [(1, 2, 1_000), (2, 0, 1_000)]);
    }

    #[test]
    fn shares_retime_a_running_step() {
        let mut device = device();
        device.submit(Time(0), LaneId(0), StepId(1), untold(100));
        device.set_share(Time(1_000), LaneId(0), 0.5);
        assert_eq!(device.next_due(Time(0)), Some(Time(3_000)));
    }

    /// Each lane alone takes 2 ms; beside the other, at half a device, four.
    #[test]
    fn a_neighbour_that_comes_or_goes_retimes_a_running_step() {
        let mut cost = Fitted { contention: 2.0, ..Fitted::example() };
        (cost.prefill.step_us, cost.prefill.token_us, cost.prefill.token_squared_us) = (1_000.0, 10.0, 0.0);
        cost.prefill.saturation_share = 0.5;
        let mut device = Steps::new(Box::new(cost), 4);
        device.set_share(Time(0), LaneId(0), 0.5);
        device.set_share(Time(0), LaneId(1), 0.5);
        device.submit(Time(0), LaneId(0), StepId(1), untold(100));
        assert_eq!(device.next_due(Time(0)), Some(Time(2_000)));
        device.submit(Time(1_000), LaneId(1), StepId(2), untold(100));
        // One millisecond of work is left, at half the speed.
        assert_eq!(drain(&mut device, 3_000), [(1, 4, 3_000)]);
        // The other has done one of its two by then, and goes on alone.
        assert_eq!(drain(&mut device, 10_000), [(2, 4, 4_000)]);
    }
}
