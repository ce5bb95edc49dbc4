//! Runs steps on any [`kernels::Ops`]: one executor thread makes and owns operations, weights, KV bytes and sampler. It
//! leads the other ranks of the worker, if there are any: threads or processes that follow. Knows no kind of device.
//!
//! If several lanes have steps, the executor runs one layer at a time, always of the lane that has used the least time
//! in proportion to its share.

mod forward;
mod group;
mod input;
mod lanes;
mod layers;
mod order;
mod prepared;
mod runner;
mod thread;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use kernels::collective::Segment;
use sched::replica::Progress;
use sched::{Failure, FailureKind, LaneId, StepId, StepPlan};

use self::thread::Executor;
use super::{Backend, BackendEvent, BackendInfo, Notify, StepSpan};
use crate::EngineError;
use crate::model::ExpertCounts;

pub(crate) use forward::{Forward, HostSampled};
pub(crate) use group::{Group, Orders, follow};
pub(crate) use order::{Order, words_max};
pub(crate) use runner::Runner;

/// Bounds of one step; they fix the memory of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Most rows of one step.
    pub rows_max: u32,
    /// Most rows of one step that want logits.
    pub wanted_max: u32,
    /// Most positions of a sequence.
    pub positions_max: u32,
}

struct Submitted {
    lane: LaneId,
    step: StepId,
    plan: StepPlan,
    progress: Progress,
    cancelled: Arc<AtomicBool>,
}

enum Command {
    Step(Box<Submitted>),
    Shares(Vec<(LaneId, f32)>),
}

/// Result of the build on the executor thread, before it runs anything.
pub(crate) struct Built<F> {
    pub(crate) forward: F,
    pub(crate) described: Described,
}

/// Description of what was built, for the rest of the worker.
pub(crate) struct Described {
    pub(crate) info: BackendInfo,
    /// Work of each expert so far; `None` if no expert computes.
    pub(crate) expert_counts: Option<ExpertCounts>,
    /// Segment of the ranks, if there are several.
    pub(crate) ranks: Option<Arc<Segment>>,
}

/// Handle of the replica thread to the executor.
pub struct OpsBackend {
    info: BackendInfo,
    /// `None` only during the drop.
    commands: Option<Sender<Command>>,
    events: Receiver<BackendEvent>,
    /// Steps that have not ended, with their cancel flags.
    running: BTreeMap<StepId, (LaneId, Arc<AtomicBool>)>,
    /// Segment of the ranks, if there are several; dropped once their end was reported.
    ranks: Option<Arc<Segment>>,
    thread: Option<JoinHandle<()>>,
}

/// Commands that may wait for the executor; the scheduler keeps at most two steps per lane in flight.
const COMMANDS_MAX: usize = 64;

impl OpsBackend {
    /// Starts the executor thread, which first runs `build`, because a device's context may be bound to its thread.
    /// Returns when that is done, with its error if it failed.
    pub(crate) fn start<F: Forward>(
        build: impl FnOnce() -> Result<Built<F>, EngineError> + Send + 'static,
        limits: StepLimits,
        notify: Notify,
    ) -> Result<(OpsBackend, Option<ExpertCounts>), EngineError> {
        let (commands, inbox) = bounded(COMMANDS_MAX);
        // Unbounded, so that the executor never waits; in effect bounded by the layers of the steps in flight.
        let (outbox, events) = unbounded();
        let (built, outcome) = bounded(1);
        let body = move || match catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(panicked())) {
            Ok(Built { forward, described }) => {
                // `start` waits for this.
                if built.send(Ok(described)).is_ok() {
                    Executor::new(forward, limits).run(&inbox, &outbox, &notify);
                }
            }
            Err(error) => drop(built.send(Err(error))),
        };
        let thread = std::thread::Builder::new()
            .name("executor".to_owned())
            .spawn(body)
            .map_err(|error| EngineError::Thread { name: "executor", reason: error.to_string() })?;
        let died = |_| EngineError::Thread { name: "executor", reason: "it died at its start".to_owned() };
        let Described { info, expert_counts, ranks } = outcome.recv().map_err(died)??;
        let running = BTreeMap::new();
        let backend = OpsBackend { info, commands: Some(commands), events, running, ranks, thread: Some(thread) };
        Ok((backend, expert_counts))
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        let Some(commands) = &self.commands else { return Err(EngineError::Stopped) };
        commands.try_send(command).map_err(|error| match error {
            crossbeam_channel::TrySendError::Full(_) => {
                EngineError::Plan(format!("more than {COMMANDS_MAX} steps in flight"))
            }
            crossbeam_channel::TrySendError::Disconnected(_) => EngineError::Stopped,
        })
    }

    /// After the executor has died: fails the running steps, one per call.
    fn fail_next(&mut self) -> Option<BackendEvent> {
        let (step, (lane, _)) = self.running.pop_first()?;
        let failure = match self.ranks.as_ref().and_then(|ranks| ranks.why_over()) {
            Some(cause) => Failure::new(FailureKind::WorkerLost, format!("ranks: {cause}")),
            None => Failure::new(FailureKind::Internal, "the executor thread has died"),
        };
        Some(BackendEvent::Done { lane, step, ran: StepSpan::nothing(), result: Err(failure) })
    }

    /// Reports, once and after the last step has ended, that a rank is gone and no step can run.
    fn ranks_have_ended(&mut self) -> Option<BackendEvent> {
        if !self.running.is_empty() {
            return None;
        }
        let cause = self.ranks.as_ref()?.why_over()?;
        self.ranks = None;
        Some(BackendEvent::Stopped(Failure::new(FailureKind::WorkerLost, format!("ranks: {cause}"))))
    }
}

fn panicked() -> EngineError {
    EngineError::Thread { name: "executor", reason: "it panicked while the model was loaded".to_owned() }
}

impl Backend for OpsBackend {
    fn describe(&self) -> &BackendInfo {
        &self.info
    }

    fn submit(&mut self, lane: LaneId, step: StepId, plan: StepPlan, progress: Progress) -> Result<(), EngineError> {
        let cancelled = Arc::new(AtomicBool::new(false));
        let submitted = Submitted { lane, step, plan, progress, cancelled: Arc::clone(&cancelled) };
        self.send(Command::Step(Box::new(submitted)))?;
        self.running.insert(step, (lane, cancelled));
        Ok(())
    }

    fn poll(&mut self) -> Option<BackendEvent> {
        match self.events.try_recv() {
            Ok(event) => {
                if let BackendEvent::Done { step, .. } = &event {
                    self.running.remove(step);
                }
                Some(event)
            }
            Err(TryRecvError::Empty) => self.ranks_have_ended(),
            Err(TryRecvError::Disconnected) => self.fail_next().or_else(|| self.ranks_have_ended()),
        }
    }

    fn cancel(&mut self, step: StepId) {
        if let Some((_, cancelled)) = self.running.get(&step) {
            cancelled.store(true, Ordering::Release);
        }
    }

    fn set_shares(&mut self, shares: &[(LaneId, f32)]) {
        if let Err(error) = self.send(Command::Shares(shares.to_vec())) {
            tracing::warn!(?shares, %error, "shares not set");
        }
    }
}

impl Drop for OpsBackend {
    fn drop(&mut self) {
        for (_, cancelled) in self.running.values() {
            cancelled.store(true, Ordering::Release);
        }
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the executor thread panicked");
        }
    }
}
