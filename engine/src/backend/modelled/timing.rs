//! Thread that ends modelled steps on time: absolute deadlines, a sleep, then a short spin.

use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError};
use sched::device::{Device, DeviceEvent};

use super::Command;
use crate::backend::{BackendEvent, Notify, StepSpan};
use crate::clock::Clock;

/// Sleeping ends this long before a deadline and the rest is spun, because a sleep may overrun by as much.
const SPIN: Duration = Duration::from_micros(60);

pub(super) struct Timing {
    clock: Clock,
    device: Device,
}

#[derive(PartialEq, Eq)]
enum Handle {
    Held,
    Dropped,
}

impl Timing {
    pub(super) fn new(device: Device) -> Timing {
        Timing { clock: Clock::start(), device }
    }

    pub(super) fn run(mut self, inbox: &Receiver<Command>, outbox: &Sender<BackendEvent>, notify: &Notify) {
        loop {
            if self.wait(inbox) == Handle::Dropped {
                return;
            }
            let now = self.clock.now();
            let mut woken = false;
            while let Some(event) = self.device.poll(now) {
                if outbox.send(self.told(event)).is_err() {
                    return;
                }
                woken = true;
            }
            if woken {
                notify();
            }
        }
    }

    /// Returns when a step has ended or progressed, or after a command was taken.
    fn wait(&mut self, inbox: &Receiver<Command>) -> Handle {
        let Some(end) = self.device.next_timeout(self.clock.now()) else {
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
            Command::Step(lane, step, plan, progress) => self.device.submit(now, (lane, step), plan, progress),
            Command::Cancel(step) => self.device.cancel(now, step),
            Command::Shares(shares) => {
                shares.into_iter().for_each(|(lane, share)| self.device.set_share(now, lane, share));
            }
        }
        Handle::Held
    }

    fn told(&self, event: DeviceEvent) -> BackendEvent {
        match event {
            DeviceEvent::Progress { lane, step, layers_done } => BackendEvent::Progress { lane, step, layers_done },
            DeviceEvent::Done { lane, step, began, at, result } => {
                let ran = StepSpan { started: self.clock.instant(began), ended: self.clock.instant(at) };
                BackendEvent::Done { lane, step, ran, result }
            }
        }
    }
}
