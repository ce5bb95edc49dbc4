//! Closed loops: `predictive` over a device whose steps take what a cost model says, with noise.

use crate::cost::{CostModel, Fitted, LaneUse, Phase, StepWork};
use crate::rng::uniform_f64;
use crate::share::{
    Decision, Divisions, Event, IdleShare, Reason, ShareConfig, ShareController, SharePolicy, WorkerState,
};
use crate::{Span, Time};

const PARTS: u16 = 20;

struct Loop {
    controller: ShareController,
    now: Time,
    steps: u64,
}

impl Loop {
    fn new() -> Loop {
        let config = ShareConfig { policy: SharePolicy::Predictive, ..ShareConfig::default() };
        let device = Divisions::new(PARTS, IdleShare::Lent).unwrap();
        let mut controller = ShareController::new(&config, device, Time(0)).unwrap();
        assert_eq!(controller.poll().map(|decision| decision.reason), Some(Reason::Configured));
        Loop { controller, now: Time(0), steps: 0 }
    }

    /// Runs steps of both lanes for so many decisions.
    fn run(&mut self, kv_percent: u32, decisions: usize) -> Vec<Decision> {
        let mut made = Vec::new();
        self.on(Event::State(WorkerState { blocks_in_use: kv_percent, blocks_total: 100, ..WorkerState::default() }));
        while made.len() < decisions {
            self.steps += 1;
            self.now = self.now + Span::from_ms(25);
            let draw = |number| uniform_f64(7, self.steps, number);
            let chunk = StepWork::default().with_chunk(0..100 + (draw(0) * 800.0) as u32);
            let batch = 4 + (draw(1) * 8.0) as u32;
            let batch = (0..batch).fold(StepWork::default(), |work, _| work.with_decode(1_000));
            let noise = [draw(2), draw(3)].map(|draw| 1.0 + 0.05 * (2.0 * draw - 1.0));
            for (work, noise) in [(chunk, noise[0]), (batch, noise[1])] {
                let us = time_us(&work, self.controller.split().share_of(Phase::Prefill)) * noise;
                self.on(Event::StepDone { work, span: Span(us as u64), beside: 1.0 });
            }
            made.extend(self.controller.poll());
        }
        made
    }

    fn on(&mut self, event: Event) {
        self.controller.on(self.now, event);
    }
}

/// A device whose decodes need little more than half of it, and are disturbed by prefill.
fn time_us(work: &StepWork, prefill: f64) -> f64 {
    let mut truth = Fitted { contention: 0.3, ..Fitted::example() };
    truth.decode.saturation_share = 0.6;
    let lane = |phase| LaneUse { share: if phase == Phase::Prefill { prefill } else { 1.0 - prefill }, phase };
    truth.work(work).0 / truth.speed(lane(work.phase()), &[lane(work.phase().other())])
}

fn is_settled(decision: &Decision) -> bool {
    matches!(decision.reason, Reason::Balanced | Reason::HeldByHysteresis)
}

#[test]
fn at_rest_a_decision_takes_four_predictions_and_the_share_stays() {
    for kv_percent in [10, 90] {
        let mut run = Loop::new();
        run.run(kv_percent, 200);
        let decisions = run.run(kv_percent, 200);
        let odd = decisions.iter().find(|decision| !is_settled(decision) || decision.model_calls > 4);
        assert_eq!(odd, None, "{kv_percent} %");
    }
}

#[test]
fn a_larger_use_of_the_pool_moves_the_share_to_decode_and_back_once() {
    let mut run = Loop::new();
    run.run(10, 200);
    let favouring_prefill = run.controller.split().share_of(Phase::Prefill);
    let moved = |decisions: Vec<Decision>| -> Vec<Reason> {
        decisions.iter().filter(|decision| decision.switches()).map(|decision| decision.reason).collect()
    };
    let to_decode = moved(run.run(75, 100));
    assert!(to_decode.iter().all(|reason| *reason == Reason::KvPressure), "{to_decode:?}");
    let favouring_decode = run.controller.split().share_of(Phase::Prefill);
    assert!(!to_decode.is_empty() && favouring_decode != favouring_prefill);
    assert_eq!(moved(run.run(67, 50)), [], "just below the switch nothing turns");
    assert!(!moved(run.run(60, 50)).is_empty());
}

#[test]
fn predictions_agree_with_what_is_measured_next() {
    let mut run = Loop::new();
    run.run(10, 200);
    let decisions = run.run(10, 100);
    let errors: Vec<f64> = decisions
        .iter()
        .filter_map(|decision| {
            let (measured, predicted) = (decision.measured.decode?, decision.predicted_before.decode?);
            Some((predicted.us() as f64 / measured.us() as f64 - 1.0).abs())
        })
        .collect();
    let mean = errors.iter().sum::<f64>() / errors.len() as f64;
    assert!(errors.len() > 90 && mean < 0.1, "{mean}");
}
