//! A backend that computes nothing: the modelled device of `sched`, in real time.
//!
//! Tests of routers and faults run on it as on a real device; its KV pool has real bytes that transfers move.

mod timing;

use std::collections::BTreeSet;
use std::thread::JoinHandle;

use crossbeam_channel::{Receiver, Sender, TryRecvError, bounded, unbounded};
use sched::device::Device;
use sched::replica::Progress;
use sched::{Failure, FailureKind, LaneId, StepId, StepPlan};

use self::timing::Timing;
use super::{Backend, BackendEvent, BackendInfo, Notify, StepSpan};
use crate::EngineError;

pub(super) enum Command {
    Step(LaneId, StepId, StepPlan, Progress),
    Cancel(StepId),
    Shares(Vec<(LaneId, f32)>),
}

/// Handle of the replica thread to the modelled device.
pub struct ModelledBackend {
    info: BackendInfo,
    /// `None` only during the drop.
    commands: Option<Sender<Command>>,
    events: Receiver<BackendEvent>,
    running: BTreeSet<(StepId, LaneId)>,
    thread: Option<JoinHandle<()>>,
}

const COMMANDS_MAX: usize = 256;

impl ModelledBackend {
    /// Starts the thread that runs the device.
    pub fn start(device: Device, notify: Notify) -> Result<ModelledBackend, EngineError> {
        let (commands, inbox) = bounded(COMMANDS_MAX);
        let (outbox, events) = unbounded();
        let timing = Timing::new(device);
        let body = move || timing.run(&inbox, &outbox, &notify);
        let thread = std::thread::Builder::new()
            .name("modelled".to_owned())
            .spawn(body)
            .map_err(|error| EngineError::Thread { name: "modelled", reason: error.to_string() })?;
        let info = BackendInfo {
            backend: "modelled",
            kernel_set: "none".to_owned(),
            numerics_id: "modelled 1".to_owned(),
            weights_dtype: "none".to_owned(),
            threads: 1,
            exact: true,
        };
        Ok(ModelledBackend { info, commands: Some(commands), events, running: BTreeSet::new(), thread: Some(thread) })
    }

    fn send(&self, command: Command) -> Result<(), EngineError> {
        let Some(commands) = &self.commands else { return Err(EngineError::Stopped) };
        commands.try_send(command).map_err(|error| match error {
            crossbeam_channel::TrySendError::Full(_) => {
                EngineError::Plan(format!("more than {COMMANDS_MAX} commands in flight"))
            }
            crossbeam_channel::TrySendError::Disconnected(_) => EngineError::Stopped,
        })
    }
}

impl Backend for ModelledBackend {
    fn describe(&self) -> &BackendInfo {
        &self.info
    }

    fn submit(&mut self, lane: LaneId, step: StepId, plan: StepPlan, progress: Progress) -> Result<(), EngineError> {
        self.send(Command::Step(lane, step, plan, progress))?;
        self.running.insert((step, lane));
        Ok(())
    }

    fn poll(&mut self) -> Option<BackendEvent> {
        match self.events.try_recv() {
            Ok(event) => {
                if let BackendEvent::Done { lane, step, .. } = &event {
                    self.running.remove(&(*step, *lane));
                }
                Some(event)
            }
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => {
                let (step, lane) = self.running.pop_first()?;
                let failure = Failure::new(FailureKind::Internal, "the modelled device's thread has died");
                Some(BackendEvent::Done { lane, step, ran: StepSpan::nothing(), result: Err(failure) })
            }
        }
    }

    fn cancel(&mut self, step: StepId) {
        if let Err(error) = self.send(Command::Cancel(step)) {
            tracing::warn!(%step, %error, "step not cancelled");
        }
    }

    fn set_shares(&mut self, shares: &[(LaneId, f32)]) {
        if let Err(error) = self.send(Command::Shares(shares.to_vec())) {
            tracing::warn!(?shares, %error, "shares not set");
        }
    }
}

impl Drop for ModelledBackend {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the modelled device's thread panicked");
        }
    }
}
