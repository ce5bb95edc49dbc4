//! The CPU backend: one executor thread owns operations, weights, KV bytes and sampler. Where a worker has several
//! ranks, it leads them; the others are threads or processes that follow.
//!
//! Where several lanes have steps, the executor runs them layer by layer, always the lane that has used the least
//! time in proportion to its share.

mod executor;
mod forward;
mod group;
mod input;
mod lanes;
mod order;
mod prepared;
mod runner;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use kernels::collective::Segment;
use sched::replica::Progress;
use sched::{Failure, FailureKind, LaneId, StepId, StepPlan};

use self::executor::Executor;
use super::{Backend, BackendEvent, BackendInfo, Notify, StepSpan};
use crate::EngineError;

pub(crate) use forward::Forward;
pub(crate) use group::{Group, Orders, follow};
pub(crate) use order::{Order, words_max};
pub(crate) use runner::Runner;

/// Bounds of one step, which fix how much memory activations take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepLimits {
    /// Rows of one step.
    pub rows_max: u32,
    /// Rows of one step that want logits.
    pub wanted_max: u32,
    /// Positions of a sequence.
    pub positions_max: u32,
}

/// A step as it travels to the executor.
struct Submitted {
    lane: LaneId,
    step: StepId,
    plan: StepPlan,
    progress: Progress,
    cancelled: Arc<AtomicBool>,
}

enum Command {
    Step(Box<Submitted>),
    Share(LaneId, f32),
}

/// The handle that the replica thread holds.
pub struct CpuBackend {
    info: BackendInfo,
    /// `None` only while it is dropped.
    commands: Option<Sender<Command>>,
    events: Receiver<BackendEvent>,
    /// Steps that have not ended, with the flag that cancels each.
    running: BTreeMap<StepId, (LaneId, Arc<AtomicBool>)>,
    /// What the ranks share, where there are several; given up once its end was told.
    ranks: Option<Arc<Segment>>,
    thread: Option<JoinHandle<()>>,
}

/// Steps that wait for the executor; the scheduler keeps at most two per lane in flight.
const COMMANDS_MAX: usize = 64;

impl CpuBackend {
    /// Starts the executor thread, which calls `prepare` first (to pin itself); its error is the start's.
    pub(crate) fn start<F: Forward + 'static>(
        forward: F,
        (info, ranks): (BackendInfo, Option<Arc<Segment>>),
        limits: StepLimits,
        notify: Notify,
        prepare: impl FnOnce() -> Result<(), EngineError> + Send + 'static,
    ) -> Result<CpuBackend, EngineError> {
        let (commands, inbox) = bounded(COMMANDS_MAX);
        // Unbounded, so that the executor never waits; bounded in truth by the layers of the steps in flight.
        let (outbox, events) = unbounded();
        let executor = Executor::new(forward, limits);
        let (prepared, outcome) = bounded(1);
        let body = move || {
            let result = prepare();
            let serves = result.is_ok();
            // Whoever starts the thread waits for this.
            if prepared.send(result).is_ok() && serves {
                executor.run(&inbox, &outbox, &notify);
            }
        };
        let thread = std::thread::Builder::new()
            .name("executor".to_owned())
            .spawn(body)
            .map_err(|error| EngineError::Thread { name: "executor", reason: error.to_string() })?;
        let died = |_| EngineError::Thread { name: "executor", reason: "it died at its start".to_owned() };
        outcome.recv().map_err(died)??;
        let running = BTreeMap::new();
        Ok(CpuBackend { info, commands: Some(commands), events, running, ranks, thread: Some(thread) })
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

    /// After the executor has died: every step that was running fails, once.
    fn fail_next(&mut self) -> Option<BackendEvent> {
        let (step, (lane, _)) = self.running.pop_first()?;
        let failure = match self.ranks.as_ref().and_then(|ranks| ranks.why_over()) {
            Some(cause) => Failure::new(FailureKind::WorkerLost, format!("ranks: {cause}")),
            None => Failure::new(FailureKind::Internal, "the executor thread has died"),
        };
        Some(BackendEvent::Done { lane, step, ran: StepSpan::nothing(), result: Err(failure) })
    }

    /// Once, after the last step has ended: that a rank is gone and no other step can run.
    fn ranks_have_ended(&mut self) -> Option<BackendEvent> {
        if !self.running.is_empty() {
            return None;
        }
        let cause = self.ranks.as_ref()?.why_over()?;
        self.ranks = None;
        Some(BackendEvent::Stopped(Failure::new(FailureKind::WorkerLost, format!("ranks: {cause}"))))
    }
}

impl Backend for CpuBackend {
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

    fn set_share(&mut self, lane: LaneId, share: f32) {
        if let Err(error) = self.send(Command::Share(lane, share)) {
            tracing::warn!(%lane, share, %error, "share not set");
        }
    }
}

impl Drop for CpuBackend {
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
