//! The thread that makes modelled steps end on time: absolute deadlines, sleep, then a short spin.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use sched::cost::Fitted;
use sched::{Failure, FailureKind, StepPlan, StepResult};

use super::Command;
use super::running::{Ended, Running};
use super::tokens::HashedTokens;
use crate::backend::{BackendEvent, Notify, StepSpan};
use crate::{EngineError, clock::Clock};

/// Sleeping ends this much before a deadline; the rest is spun, because a sleep may overrun by as much.
const SPIN: Duration = Duration::from_micros(60);

/// Owner of all state of a modelled device.
pub(super) struct Timing {
    clock: Clock,
    running: Running,
    tokens: HashedTokens,
}

/// Whether the handle still exists.
#[derive(PartialEq, Eq)]
enum Handle {
    Held,
    Dropped,
}

impl Timing {
    pub(super) fn new(cost: Fitted, layers: u32, tokens: HashedTokens) -> Timing {
        Timing { clock: Clock::start(), running: Running::new(cost, layers), tokens }
    }

    /// Runs until the handle is dropped.
    pub(super) fn run(mut self, inbox: &Receiver<Command>, outbox: &Sender<BackendEvent>, notify: &Notify) {
        loop {
            if self.wait(inbox) == Handle::Dropped {
                return;
            }
            let now = self.clock.now();
            let mut woken = false;
            while let Some((lane, step, layers_done)) = self.running.pop_progress(now) {
                if outbox.send(BackendEvent::Progress { lane, step, layers_done }).is_err() {
                    return;
                }
                woken = true;
            }
            while let Some(ended) = self.running.pop_ended(now) {
                if outbox.send(self.finish(ended)).is_err() {
                    return;
                }
                woken = true;
            }
            if woken {
                notify();
            }
        }
    }

    /// Returns when a step has ended or is further, or a command was taken in.
    fn wait(&mut self, inbox: &Receiver<Command>) -> Handle {
        let Some(end) = self.running.next_due(self.clock.now()) else {
            return match inbox.recv() {
                Ok(command) => self.take(command),
                Err(_) => Handle::Dropped,
            };
        };
        let deadline = self.clock.instant(end);
        match inbox.recv_deadline(deadline.checked_sub(SPIN).unwrap_or(deadline)) {
            Ok(command) => self.take(command),
            Err(RecvTimeoutError::Disconnected) => Handle::Dropped,
            Err(RecvTimeoutError::Timeout) => self.spin(deadline, inbox),
        }
    }

    fn spin(&mut self, deadline: Instant, inbox: &Receiver<Command>) -> Handle {
        while Instant::now() < deadline {
            match inbox.try_recv() {
                Ok(command) => return self.take(command),
                Err(TryRecvError::Empty) => std::hint::spin_loop(),
                Err(TryRecvError::Disconnected) => return Handle::Dropped,
            }
        }
        Handle::Held
    }

    fn take(&mut self, command: Command) -> Handle {
        let now = self.clock.now();
        match command {
            Command::Step(lane, step, plan, progress) => self.running.submit(now, lane, step, (plan, progress)),
            Command::Cancel(step) => self.running.cancel(now, step),
            Command::Share(lane, share) => self.running.set_share(now, lane, share),
        }
        Handle::Held
    }

    fn finish(&mut self, ended: Ended) -> BackendEvent {
        let Ended { lane, step, plan, layers_done, began, at } = ended;
        let ran = StepSpan { started: self.clock.instant(began), ended: self.clock.instant(at) };
        let result = self.effects(&plan, layers_done).map_err(|error| failure(&error));
        BackendEvent::Done { lane, step, ran, result }
    }

    /// What the plan changes; slots come and go even when the step was cancelled.
    fn effects(&mut self, plan: &StepPlan, layers_done: u32) -> Result<StepResult, EngineError> {
        self.tokens.begin(plan)?;
        let planned = plan.layers.end.saturating_sub(plan.layers.start);
        let samples = if layers_done < planned { Vec::new() } else { self.tokens.sample(plan)? };
        Ok(StepResult { samples, layers_done })
    }
}

fn failure(error: &EngineError) -> Failure {
    Failure::new(FailureKind::Internal, error.to_string())
}
