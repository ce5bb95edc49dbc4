//! Runs steps on any [`kernels::Ops`]: an executor thread makes and owns operations, activations and sampler. It leads
//! the other ranks of the worker, if there are any: threads or processes that follow. Knows no kind of device.
//!
//! Where lanes can compute at the same time, each has an executor of its own, and the device divides itself. Elsewhere
//! one executor has all lanes: it runs one layer at a time, always of the lane that has used the least time in
//! proportion to its share.

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
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use kernels::PoolLane;
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

/// What an executor says.
enum Happened {
    Event(BackendEvent),
    /// This executor runs no more steps, whatever the reason; the last that it says.
    Ended(usize),
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

/// An executor to be started.
pub(crate) struct Plan<F> {
    /// Runs first on the executor's thread, because a device's context may be bound to its thread.
    pub(crate) build: Box<dyn FnOnce() -> Result<Built<F>, EngineError> + Send>,
    pub(crate) limits: StepLimits,
    /// Lane of a pool of threads to which the executor lends its own when it has no step.
    pub(crate) rest: Option<PoolLane>,
}

/// Handle of the replica thread to the executors: one for all lanes, or one for each.
pub struct OpsBackend {
    info: BackendInfo,
    executors: Vec<Hand>,
    events: Receiver<Happened>,
    /// Steps that have not ended, with their cancel flags.
    running: BTreeMap<StepId, (LaneId, Arc<AtomicBool>)>,
    /// Segment of the ranks, if there are several; dropped once their end was reported.
    ranks: Option<Arc<Segment>>,
}

/// Handle to one executor.
struct Hand {
    /// `None` after its end and during the drop.
    commands: Option<Sender<Command>>,
    rest: Option<PoolLane>,
    thread: Option<JoinHandle<()>>,
}

/// Commands that may wait for an executor; the scheduler keeps at most two steps per lane in flight.
const COMMANDS_MAX: usize = 64;

impl OpsBackend {
    /// Starts executors, one after the other. Returns when all are built, with the error of the first that is not.
    /// The first one's description is that of the backend.
    pub(crate) fn start<F: Forward + 'static>(
        plans: Vec<Plan<F>>,
        notify: &Notify,
    ) -> Result<(OpsBackend, Option<ExpertCounts>), EngineError> {
        // Unbounded, so that executors never wait; in effect bounded by the layers of the steps in flight.
        let (outbox, events) = unbounded();
        let (mut executors, mut first) = (Vec::new(), None);
        for plan in plans {
            let (hand, described) = Hand::start(executors.len(), plan, outbox.clone(), Arc::clone(notify))?;
            executors.push(hand);
            first.get_or_insert(described);
        }
        let Some(Described { info, expert_counts, ranks }) = first else {
            return Err(EngineError::Thread { name: "executor", reason: "there is none".to_owned() });
        };
        Ok((OpsBackend { info, executors, events, running: BTreeMap::new(), ranks }, expert_counts))
    }

    /// Number of the executor that runs a lane's steps.
    fn of_lane(&self, lane: LaneId) -> usize {
        usize::from(lane.0).min(self.executors.len() - 1)
    }

    /// Takes in the end of an executor: its steps end next.
    fn ended(&mut self, executor: usize) {
        if let Some(hand) = self.executors.get_mut(executor) {
            hand.commands = None;
        }
    }

    /// Fails a step whose executor has ended, one per call.
    fn fail_next(&mut self) -> Option<BackendEvent> {
        let has_ended = |lane: LaneId| self.executors[self.of_lane(lane)].commands.is_none();
        let (step, lane) =
            self.running.iter().find_map(|(step, (lane, _))| has_ended(*lane).then_some((*step, *lane)))?;
        self.running.remove(&step);
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

/// Says, also after a panic, that an executor has ended.
struct SaysEnd {
    executor: usize,
    outbox: Sender<Happened>,
    notify: Notify,
}

impl Drop for SaysEnd {
    fn drop(&mut self) {
        // Nobody listens if the handle is gone.
        let _ = self.outbox.send(Happened::Ended(self.executor));
        (self.notify)();
    }
}

impl Hand {
    /// Starts an executor thread; returns when it is built.
    fn start<F: Forward + 'static>(
        executor: usize,
        Plan { build, limits, rest }: Plan<F>,
        outbox: Sender<Happened>,
        notify: Notify,
    ) -> Result<(Hand, Described), EngineError> {
        let (commands, inbox) = bounded(COMMANDS_MAX);
        let (built, outcome) = bounded(1);
        let rests = rest.clone();
        let body = move || match catch_unwind(AssertUnwindSafe(build)).unwrap_or_else(|_| Err(panicked())) {
            Ok(Built { forward, described }) => {
                let says_end = SaysEnd { executor, outbox, notify };
                // `start` waits for this.
                if built.send(Ok(described)).is_ok() {
                    let outlet = (&says_end.outbox, &says_end.notify);
                    Executor::new(forward, limits).run(&inbox, outlet, rests.as_ref());
                }
            }
            Err(error) => drop(built.send(Err(error))),
        };
        let thread = std::thread::Builder::new()
            .name("executor".to_owned())
            .spawn(body)
            .map_err(|error| EngineError::Thread { name: "executor", reason: error.to_string() })?;
        let died = |_| EngineError::Thread { name: "executor", reason: "it died at its start".to_owned() };
        let described = outcome.recv().map_err(died)??;
        Ok((Hand { commands: Some(commands), rest, thread: Some(thread) }, described))
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        let Some(commands) = &self.commands else { return Err(EngineError::Stopped) };
        commands.try_send(command).map_err(|error| match error {
            crossbeam_channel::TrySendError::Full(_) => {
                EngineError::Plan(format!("more than {COMMANDS_MAX} steps in flight"))
            }
            crossbeam_channel::TrySendError::Disconnected(_) => EngineError::Stopped,
        })?;
        self.wake();
        Ok(())
    }

    fn wake(&self) {
        if let Some(rest) = &self.rest {
            rest.wake();
        }
    }

    fn close(&mut self) {
        self.commands = None;
        self.wake();
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.close();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the executor thread panicked");
        }
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
        self.executors[self.of_lane(lane)].send(Command::Step(Box::new(submitted)))?;
        self.running.insert(step, (lane, cancelled));
        Ok(())
    }

    fn poll(&mut self) -> Option<BackendEvent> {
        loop {
            match self.events.try_recv() {
                Ok(Happened::Event(event)) => {
                    if let BackendEvent::Done { step, .. } = &event {
                        self.running.remove(step);
                    }
                    return Some(event);
                }
                Ok(Happened::Ended(executor)) => self.ended(executor),
                Err(_) => return self.fail_next().or_else(|| self.ranks_have_ended()),
            }
        }
    }

    fn cancel(&mut self, step: StepId) {
        if let Some((_, cancelled)) = self.running.get(&step) {
            cancelled.store(true, Ordering::Release);
        }
    }

    fn set_shares(&mut self, shares: &[(LaneId, f32)]) {
        // Lanes with threads of their own share a pool, where shares hold from the next task on.
        if let Some(lane) = self.executors.iter().find_map(|executor| executor.rest.as_ref()) {
            let mut by_lane = vec![1.0; lane.pool().lanes()];
            for (lane, share) in shares {
                if let Some(own) = by_lane.get_mut(usize::from(lane.0)) {
                    *own = *share;
                }
            }
            return lane.pool().set_shares(&by_lane);
        }
        if let Err(error) = self.executors[0].send(Command::Shares(shares.to_vec())) {
            tracing::warn!(?shares, %error, "shares not set");
        }
    }

    fn used(&self) -> Vec<(LaneId, Duration)> {
        let pool = self.executors.iter().find_map(|executor| executor.rest.as_ref()).map(PoolLane::pool);
        pool.map(|pool| (0..).map(LaneId).zip(pool.used()).collect()).unwrap_or_default()
    }
}

impl Drop for OpsBackend {
    fn drop(&mut self) {
        for (_, cancelled) in self.running.values() {
            cancelled.store(true, Ordering::Release);
        }
        // All at once, so that none waits for the end of another.
        self.executors.iter_mut().for_each(Hand::close);
    }
}
