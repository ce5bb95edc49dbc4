//! The division of one replica's device between its lanes: a share controller with eyes; knows no device and no clock.

use super::watch::Watch;
use super::{Decision, Divisions, Event, ShareConfig, ShareController, ShareError, Split, WorkerState};
use crate::message::Load;
use crate::replica::{self, Action};
use crate::{Span, Time};

/// Time between two looks at the state of the worker, which visit every sequence.
const STATE_EVERY: Span = Span::from_ms(100);

/// The machine that watches a replica and divides its device. Whoever drives the replica shows it what goes in and what
/// comes out, tells it the state when it asks for it, and sets the shares that it decides.
#[derive(Debug)]
pub struct Partition {
    controller: ShareController,
    watch: Watch,
    blocks_total: u32,
    state_at: Time,
}

impl Partition {
    /// Begins with the configured split, for a model of `layers` and a pool of `blocks_total`.
    ///
    /// # Errors
    /// The key of the configuration that is wrong.
    pub fn new(
        config: &ShareConfig,
        device: Divisions,
        (layers, blocks_total): (u32, u32),
        now: Time,
    ) -> Result<Partition, ShareError> {
        let controller = ShareController::new(config, device, now)?;
        Ok(Partition { controller, watch: Watch::new(layers), blocks_total, state_at: now })
    }

    /// Looks at a fact that the replica takes in.
    pub fn goes_in(&mut self, now: Time, event: &replica::Event) {
        if let Some(event) = self.watch.goes_in(now, event) {
            self.controller.on(now, event);
        }
    }

    /// Looks at a decision of the replica.
    pub fn comes_out(&mut self, now: Time, action: &Action) {
        for event in self.watch.comes_out(now, action).into_iter().flatten() {
            self.controller.on(now, event);
        }
    }

    /// True if [`Partition::tick`] is due.
    #[must_use]
    pub fn is_due(&self, now: Time) -> bool {
        self.next_timeout().is_some_and(|due| due <= now)
    }

    /// Time by which [`Partition::tick`] must be called.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        let decides_at = self.controller.next_timeout();
        let looks_at = (!self.watch.is_idle()).then_some(self.state_at);
        decides_at.into_iter().chain(looks_at).min()
    }

    /// Time has passed, and this is the load of the replica now.
    pub fn tick(&mut self, now: Time, load: &Load) {
        self.state_at = now + STATE_EVERY;
        self.controller.on(
            now,
            Event::State(WorkerState {
                blocks_in_use: load.blocks_in_use,
                blocks_total: self.blocks_total,
                oldest_waiting: self.watch.oldest_waiting(),
                strictest_tpot: self.watch.strictest_tpot(),
            }),
        );
    }

    /// From now on this split holds, whatever the policy would decide.
    pub fn pin(&mut self, now: Time, split: Split) {
        self.controller.on(now, Event::Pin(split));
    }

    /// The policy decides again.
    pub fn release(&mut self, now: Time) {
        self.controller.on(now, Event::Release);
    }

    /// Gives out one decision; the first is the configured split.
    pub fn poll(&mut self) -> Option<Decision> {
        self.controller.poll()
    }
}
