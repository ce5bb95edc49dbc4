//! The executor thread: runs steps layer by layer, with effects in the documented order; knows no scheduler.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, TryRecvError};
use kernels::PoolLane;
use sched::replica::Progress;
use sched::{Failure, FailureKind, LaneId, SlotId, StepId, StepPlan, StepResult};

use super::forward::{Forward, FromSlot, Outcomes};
use super::input::StepInput;
use super::lanes::Lanes;
use super::order::Entry;
use super::prepared::Prepared;
use super::{Command, Happened, StepLimits, Submitted};
use crate::EngineError;
use crate::backend::{BackendEvent, Notify, StepSpan};

pub(super) struct Executor<F: Forward> {
    forward: F,
    limits: StepLimits,
    /// For each lane, rows with kept hidden states and the next layer: they outlive a step that ends between layers.
    kept: BTreeMap<LaneId, (usize, u32)>,
}

struct Step {
    lane: LaneId,
    id: StepId,
    progress: Progress,
    cancelled: Arc<AtomicBool>,
    /// Time of its first turn.
    started: Option<Instant>,
    phase: Phase,
}

enum Phase {
    /// Nothing has run yet.
    Submitted(StepPlan),
    /// The first `done` planned layers have run.
    Layers { prepared: Prepared, done: u32 },
}

impl Phase {
    fn slots(&self) -> Vec<SlotId> {
        match self {
            Phase::Submitted(plan) => plan.sample.iter().map(|sample| sample.slot).collect(),
            Phase::Layers { prepared, .. } => prepared.sample.iter().map(|sample| sample.slot).collect(),
        }
    }
}

enum Turn {
    Continues { layers_done: u32 },
    Ends(StepResult),
}

impl<F: Forward> Executor<F> {
    pub(super) fn new(forward: F, limits: StepLimits) -> Executor<F> {
        Executor { forward, limits, kept: BTreeMap::new() }
    }

    /// Runs until the handle is dropped, or until the ranks fail. Without a step it lends its thread to `rest`.
    pub(super) fn run(
        mut self,
        inbox: &Receiver<Command>,
        (outbox, notify): (&Sender<Happened>, &Notify),
        rest: Option<&PoolLane>,
    ) {
        let mut lanes = Lanes::new();
        while take_commands(inbox, &mut lanes, rest) {
            let Some(lane) = lanes.next() else { continue };
            let Some(step) = lanes.front(lane) else { continue };
            let begun = Instant::now();
            let started = *step.started.get_or_insert(begun);
            let (id, progress, turn) = (step.id, step.progress, self.turn(step));
            let ended = Instant::now();
            let ran = StepSpan { started, ended };
            let is_over = matches!(turn, Err(EngineError::Ranks { .. }));
            let event = match turn {
                // Waking the replica after every layer would slow small models: only steps with progress report it.
                Ok(Turn::Continues { .. }) if progress == Progress::Untold => {
                    lanes.charge(lane, ended - begun);
                    continue;
                }
                Ok(Turn::Continues { layers_done }) => BackendEvent::Progress { lane, step: id, layers_done },
                Ok(Turn::Ends(result)) => BackendEvent::Done { lane, step: id, ran, result: Ok(result) },
                Err(error) => BackendEvent::Done { lane, step: id, ran, result: Err(failure(&error)) },
            };
            lanes.charge(lane, ended - begun);
            let has_ended = matches!(event, BackendEvent::Done { .. });
            if has_ended {
                lanes.pop(lane);
            }
            if outbox.send(Happened::Event(event)).is_err() {
                return;
            }
            notify();
            if is_over {
                return;
            }
        }
    }

    /// Runs one layer of a step, with what comes before the first and after the last. An error ends the step.
    fn turn(&mut self, step: &mut Step) -> Result<Turn, EngineError> {
        let turn = self.try_turn(step);
        if turn.is_err() {
            step.phase.slots().into_iter().for_each(|slot| self.forward.void(slot));
        }
        turn
    }

    fn try_turn(&mut self, step: &mut Step) -> Result<Turn, EngineError> {
        if let Phase::Submitted(plan) = &step.phase {
            let (prepared, input, from) = self.begin(plan)?;
            if prepared.rows == 0 {
                self.forward.wait()?;
                let layers_done = prepared.layers.end - prepared.layers.start;
                return Ok(Turn::Ends(StepResult { layers_done, ..StepResult::default() }));
            }
            // An earlier cancelled step may have left the rows between layers, too.
            if step.cancelled.load(Ordering::Acquire) {
                self.kept.remove(&step.lane);
                prepared.sample.iter().for_each(|sample| self.forward.void(sample.slot));
                return Ok(Turn::Ends(StepResult::default()));
            }
            self.enter(step.lane, &prepared, input, &from)?;
            step.phase = Phase::Layers { prepared, done: 0 };
        }
        let Phase::Layers { prepared, done } = &mut step.phase else {
            return Err(EngineError::Plan("a step has no phase".to_owned()));
        };
        let planned = prepared.layers.end - prepared.layers.start;
        if *done < planned && step.cancelled.load(Ordering::Acquire) {
            self.kept.remove(&step.lane);
            prepared.sample.iter().for_each(|sample| self.forward.void(sample.slot));
            self.forward.wait()?;
            return Ok(Turn::Ends(StepResult { layers_done: *done, ..StepResult::default() }));
        }
        if *done < planned {
            let layer = prepared.layers.start + *done;
            self.forward.layer(step.lane, layer)?;
            self.kept.insert(step.lane, (prepared.rows, layer + 1));
            *done += 1;
        }
        if *done < planned {
            // The layer need have ended only if its end is reported.
            match step.progress {
                Progress::Untold => {}
                Progress::ByLayer => self.forward.wait()?,
            }
            return Ok(Turn::Continues { layers_done: *done });
        }
        let Outcomes { samples, scores } = self.forward.read(step.lane, &prepared.sample, &prepared.score)?;
        self.forward.wait()?;
        Ok(Turn::Ends(StepResult { samples, scores, layers_done: planned }))
    }

    /// Admits sequences and copies blocks, then checks the rest of the plan.
    fn begin(&mut self, plan: &StepPlan) -> Result<(Prepared, StepInput, Vec<FromSlot>), EngineError> {
        for init in &plan.admit {
            self.forward.admit(init)?;
        }
        if !plan.copies.is_empty() {
            let pairs: Vec<(u32, u32)> = plan.copies.iter().map(|copy| (copy.from.0, copy.to.0)).collect();
            self.forward.copy_blocks(pairs)?;
        }
        Prepared::new(plan, self.forward.spec(), self.limits)
    }

    /// Passes the input on. A step that skips layer 0 needs the kept hidden states of its lane.
    fn enter(
        &mut self,
        lane: LaneId,
        prepared: &Prepared,
        input: StepInput,
        from: &[FromSlot],
    ) -> Result<(), EngineError> {
        let start = prepared.layers.start;
        let wanted = Some((prepared.rows, start));
        let kept = self.kept.remove(&lane);
        if start > 0 && kept != wanted {
            let problem = format!("{lane} continues {wanted:?} (rows, layer) but has kept {kept:?}");
            return Err(EngineError::Plan(problem));
        }
        let entry = if start == 0 { Entry::Embed } else { Entry::Kept };
        self.forward.enter(lane, input, from, entry)
    }
}

/// Takes submitted commands; waits if there is nothing to run. Returns false when the handle is gone.
fn take_commands(inbox: &Receiver<Command>, lanes: &mut Lanes<Step>, rest: Option<&PoolLane>) -> bool {
    if lanes.is_idle() {
        match rest.map_or_else(|| inbox.recv().ok(), |lane| next_command(inbox, lane)) {
            Some(command) => take(command, lanes),
            None => return false,
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

/// Does tasks of other lanes until a command comes.
fn next_command(inbox: &Receiver<Command>, lane: &PoolLane) -> Option<Command> {
    // Asked again and again, so the answer is kept.
    let heard: OnceCell<Option<Command>> = OnceCell::new();
    lane.lend(&|| {
        heard.get().is_some()
            || match inbox.try_recv() {
                Ok(command) => heard.set(Some(command)).is_ok(),
                Err(TryRecvError::Empty) => false,
                Err(TryRecvError::Disconnected) => heard.set(None).is_ok(),
            }
    });
    heard.into_inner().flatten()
}

fn take(command: Command, lanes: &mut Lanes<Step>) {
    match command {
        Command::Step(submitted) => {
            let Submitted { lane, step, plan, progress, cancelled } = *submitted;
            let phase = Phase::Submitted(plan);
            lanes.push(lane, Step { lane, id: step, progress, cancelled, started: None, phase });
        }
        Command::Shares(shares) => shares.into_iter().for_each(|(lane, share)| lanes.set_share(lane, share)),
    }
}

fn failure(error: &EngineError) -> Failure {
    let kind = match error {
        // The worker ends, but nothing is wrong with the request: another worker can run it.
        EngineError::Ranks { .. } => FailureKind::WorkerLost,
        _ => FailureKind::Internal,
    };
    Failure::new(kind, error.to_string())
}
