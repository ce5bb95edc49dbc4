//! The executor thread: runs steps layer by layer in the documented order of effects; knows no scheduler.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use kernels::Ops;
use sched::{Failure, FailureKind, LaneId, SlotId, StepId, StepPlan, StepResult};

use super::lanes::Lanes;
use super::prepared::Prepared;
use super::{Command, StepLimits, Submitted};
use crate::backend::{BackendEvent, Notify, StepSpan};
use crate::model::{Activations, Model};
use crate::sampling::Sampler;
use crate::{EngineError, KvStore};

/// Everything that steps touch.
pub(super) struct Executor<O: Ops> {
    ops: O,
    model: Model<O>,
    kv: KvStore,
    limits: StepLimits,
    sampler: Sampler,
    /// Activations per lane: hidden states outlive a step that ends between layers.
    spaces: BTreeMap<LaneId, Space<O>>,
}

struct Space<O: Ops> {
    activations: Activations<O>,
    /// The rows whose hidden states are kept, and the layer they are ready for.
    kept: Option<(usize, u32)>,
}

/// A step on its way through the layers.
struct Step {
    lane: LaneId,
    id: StepId,
    cancelled: Arc<AtomicBool>,
    /// Since its first turn.
    started: Option<Instant>,
    phase: Phase,
}

enum Phase {
    /// Nothing has happened yet.
    Submitted(StepPlan),
    /// Its first `done` planned layers have run.
    Layers { prepared: Prepared, done: u32 },
}

impl Phase {
    /// The slots that the step is to sample.
    fn slots(&self) -> Vec<SlotId> {
        match self {
            Phase::Submitted(plan) => plan.sample.iter().map(|sample| sample.slot).collect(),
            Phase::Layers { prepared, .. } => prepared.sample.iter().map(|(sample, _)| sample.slot).collect(),
        }
    }
}

/// What one turn of a step led to.
enum Turn {
    Continues { layers_done: u32 },
    Ends(StepResult),
}

impl<O: Ops> Executor<O> {
    pub(super) fn new(ops: O, model: Model<O>, kv: KvStore, limits: StepLimits) -> Result<Executor<O>, EngineError> {
        let mut executor = Executor { ops, model, kv, limits, sampler: Sampler::new(), spaces: BTreeMap::new() };
        // Lane 0 always exists; making its space now turns a lack of memory into an error at start.
        executor.space(LaneId(0))?;
        Ok(executor)
    }

    /// Runs until the handle is dropped.
    pub(super) fn run(mut self, inbox: &Receiver<Command>, outbox: &Sender<BackendEvent>, notify: &Notify) {
        let mut lanes = Lanes::new();
        while take_commands(inbox, &mut lanes) {
            let Some(lane) = lanes.next() else { continue };
            let Some(step) = lanes.front(lane) else { continue };
            let begun = Instant::now();
            let started = *step.started.get_or_insert(begun);
            let (id, turn) = (step.id, self.turn(step));
            let ended = Instant::now();
            let ran = StepSpan { started, ended };
            let event = match turn {
                Ok(Turn::Continues { layers_done }) => BackendEvent::Progress { lane, step: id, layers_done },
                Ok(Turn::Ends(result)) => BackendEvent::Done { lane, step: id, ran, result: Ok(result) },
                Err(error) => BackendEvent::Done { lane, step: id, ran, result: Err(failure(&error)) },
            };
            lanes.charge(lane, ended - begun);
            let has_ended = matches!(event, BackendEvent::Done { .. });
            if has_ended {
                lanes.pop(lane);
            }
            if outbox.send(event).is_err() {
                return;
            }
            // Progress is news for whoever is awake; a wake per layer would cost small models more than it tells.
            if has_ended {
                notify();
            }
        }
    }

    /// One layer of a step, with what comes before the first and after the last. An error ends the step.
    fn turn(&mut self, step: &mut Step) -> Result<Turn, EngineError> {
        let turn = self.try_turn(step);
        if turn.is_err() {
            step.phase.slots().into_iter().for_each(|slot| self.sampler.void(slot));
        }
        turn
    }

    fn try_turn(&mut self, step: &mut Step) -> Result<Turn, EngineError> {
        if let Phase::Submitted(plan) = &step.phase {
            let prepared = self.begin(plan)?;
            if prepared.is_empty() {
                let layers_done = prepared.layers.end - prepared.layers.start;
                return Ok(Turn::Ends(StepResult { samples: Vec::new(), layers_done }));
            }
            self.enter(step.lane, &prepared)?;
            step.phase = Phase::Layers { prepared, done: 0 };
        }
        let Phase::Layers { prepared, done } = &mut step.phase else {
            return Err(EngineError::Plan("a step has no phase".to_owned()));
        };
        let planned = prepared.layers.end - prepared.layers.start;
        if *done < planned && step.cancelled.load(Ordering::Acquire) {
            self.space(step.lane)?.kept = None;
            prepared.sample.iter().for_each(|(sample, _)| self.sampler.void(sample.slot));
            return Ok(Turn::Ends(StepResult { samples: Vec::new(), layers_done: *done }));
        }
        if *done < planned {
            self.layer(step.lane, prepared, prepared.layers.start + *done)?;
            *done += 1;
        }
        if *done < planned {
            return Ok(Turn::Continues { layers_done: *done });
        }
        let samples = self.sample(step.lane, prepared)?;
        Ok(Turn::Ends(StepResult { samples, layers_done: planned }))
    }

    /// Retires, admits and copies, then checks what is left of the plan.
    fn begin(&mut self, plan: &StepPlan) -> Result<Prepared, EngineError> {
        for slot in &plan.retire {
            self.sampler.retire(*slot)?;
        }
        for init in &plan.admit {
            self.sampler.admit(init)?;
        }
        if !plan.copies.is_empty() {
            let pairs: Vec<(u32, u32)> = plan.copies.iter().map(|copy| (copy.from.0, copy.to.0)).collect();
            self.ops.copy_blocks(self.kv.view(), &pairs)?;
        }
        Prepared::new(plan, self.model.spec(), self.limits, &self.sampler)
    }

    /// Embeds, or checks that the lane keeps the hidden states that the step continues from.
    fn enter(&mut self, lane: LaneId, prepared: &Prepared) -> Result<(), EngineError> {
        let start = prepared.layers.start;
        let wanted = Some((prepared.rows(), start));
        let kept = self.space(lane)?.kept.take();
        if start > 0 && kept != wanted {
            let problem = format!("{lane} continues {wanted:?} (rows, layer) but has kept {kept:?}");
            return Err(EngineError::Plan(problem));
        }
        if start == 0 {
            let Executor { ops, model, kv, spaces, .. } = self;
            if let Some(space) = spaces.get_mut(&lane) {
                model.embed(ops, &mut space.activations, prepared.pass(kv.view()))?;
            }
        }
        Ok(())
    }

    fn layer(&mut self, lane: LaneId, prepared: &Prepared, layer: u32) -> Result<(), EngineError> {
        let Executor { ops, model, kv, spaces, .. } = self;
        let Some(space) = spaces.get_mut(&lane) else {
            return Err(EngineError::Plan(format!("{lane} has no activations")));
        };
        model.layer(ops, &mut space.activations, prepared.pass(kv.view()), layer)?;
        space.kept = Some((prepared.rows(), layer + 1));
        Ok(())
    }

    fn sample(&mut self, lane: LaneId, prepared: &Prepared) -> Result<Vec<sched::SampledToken>, EngineError> {
        if prepared.sample.is_empty() {
            return Ok(Vec::new());
        }
        let Executor { ops, model, sampler, spaces, .. } = self;
        let Some(space) = spaces.get_mut(&lane) else {
            return Err(EngineError::Plan(format!("{lane} has no activations")));
        };
        let logits = model.logits(ops, &mut space.activations, prepared.wanted_rows())?;
        let samples = prepared.sample.iter();
        samples.map(|(sample, index)| sampler.sample(sample.slot, sample.row, logits.row(*index))).collect()
    }

    fn space(&mut self, lane: LaneId) -> Result<&mut Space<O>, EngineError> {
        let Executor { ops, model, limits, spaces, .. } = self;
        match spaces.entry(lane) {
            std::collections::btree_map::Entry::Occupied(space) => Ok(space.into_mut()),
            std::collections::btree_map::Entry::Vacant(vacant) => {
                let activations = Activations::new(ops, model.spec(), limits.rows_max, limits.wanted_max)?;
                Ok(vacant.insert(Space { activations, kept: None }))
            }
        }
    }
}

/// Takes what has been submitted, waiting when there is nothing to run. False when the handle is gone.
fn take_commands(inbox: &Receiver<Command>, lanes: &mut Lanes<Step>) -> bool {
    if lanes.is_idle() {
        match inbox.recv() {
            Ok(command) => take(command, lanes),
            Err(_) => return false,
        }
    }
    loop {
        match inbox.try_recv() {
            Ok(command) => take(command, lanes),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
}

fn take(command: Command, lanes: &mut Lanes<Step>) {
    match command {
        Command::Step(submitted) => {
            let Submitted { lane, step, plan, cancelled } = *submitted;
            lanes.push(lane, Step { lane, id: step, cancelled, started: None, phase: Phase::Submitted(plan) });
        }
        Command::Share(lane, share) => lanes.set_share(lane, share),
    }
}

fn failure(error: &EngineError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
