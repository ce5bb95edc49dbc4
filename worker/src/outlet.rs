//! Passes the replica's messages to routers, readers, givers and metrics; called on the replica's thread, never waits.

use std::sync::{Arc, OnceLock};

use engine::replica::{Outbound, Outlet, TransferEnd};
use proto::session::server::Sessions;
use proto::{Complaints, TurnedAway};
use sched::message::{Envelope, FromWorker, Load};
use sched::{Failure, InstanceId, Leg, Span};
use tokio::sync::oneshot;

use crate::metrics::WorkerMetrics;
use crate::partition::PartitionKnob;
use crate::sides::Opened;

pub(crate) struct WorkerOutlet {
    pub(crate) sessions: Sessions,
    pub(crate) metrics: WorkerMetrics,
    /// Set before the first event reaches the replica.
    pub(crate) sides: Arc<OnceLock<Opened>>,
    /// Set where two lanes share the device.
    partition: Option<PartitionKnob>,
    complaints: Complaints,
    /// Last count of words about another reader's lease.
    foreign_claims: u64,
    /// Messages of this turn, sent together.
    told: Vec<FromWorker>,
    over: Vec<Leg>,
    stopped: Option<oneshot::Sender<Option<Failure>>>,
}

impl Outlet for WorkerOutlet {
    fn put(&mut self, out: Outbound) {
        match out {
            Outbound::Say(envelope) => self.say(envelope),
            Outbound::Meet { giver, address } => self.with_sides(|sides| sides.taking.meet(giver, &address)),
            Outbound::PeerUp { instance, bytes_per_second, .. } => {
                self.with_sides(|sides| sides.taking.wire_up(instance, bytes_per_second));
            }
            Outbound::PeerDown { instance, reason } => {
                self.with_sides(|sides| sides.taking.wire_down(instance, reason));
            }
            Outbound::Transferred { giver, bytes, elapsed_us, end, .. } => {
                self.transferred(giver, bytes, Span(elapsed_us), end);
            }
            Outbound::Load(load) => self.load(load),
            Outbound::Stepped { lane: _, took, gap } => self.metrics.stepped(took, gap),
            Outbound::Divided { decision, took } => {
                self.metrics.divided(&decision, took);
                if let Some(partition) = &self.partition {
                    partition.divided(decision);
                }
            }
            Outbound::Used(used) => self.metrics.used(&used),
            Outbound::InvariantBroken(_) => self.metrics.invariant_broken(),
            Outbound::Stopped(failure) => self.stop(failure),
        }
    }

    fn flush(&mut self) {
        if !self.told.is_empty() || !self.over.is_empty() {
            let orphans = self.sessions.tell_last(self.told.drain(..), self.over.drain(..));
            self.metrics.orphaned(orphans);
        }
    }
}

impl WorkerOutlet {
    pub(crate) fn new(
        sessions: Sessions,
        metrics: WorkerMetrics,
        (sides, partition): (Arc<OnceLock<Opened>>, Option<PartitionKnob>),
        stopped: oneshot::Sender<Option<Failure>>,
    ) -> WorkerOutlet {
        WorkerOutlet {
            sessions,
            metrics,
            sides,
            partition,
            complaints: Complaints::default(),
            foreign_claims: 0,
            told: Vec::new(),
            over: Vec::new(),
            stopped: Some(stopped),
        }
    }

    fn say(&mut self, envelope: Envelope) {
        match envelope {
            Envelope::Router(word) => {
                self.metrics.told(&word);
                self.told.push(word);
            }
            Envelope::Over(leg) => self.over.push(leg),
            Envelope::Giver(giver, word) => self.with_sides(|sides| sides.taking.say(giver, word)),
            Envelope::Reader(reader, word) => self.with_sides(|sides| sides.giving.say(reader, &word)),
        }
    }

    fn with_sides(&self, tell: impl FnOnce(&Opened)) {
        match self.sides.get() {
            Some(sides) => tell(sides),
            None => tracing::error!("the replica talks to others before it can know one"),
        }
    }

    fn transferred(&self, giver: InstanceId, bytes: u64, took: Span, end: TransferEnd) {
        match end {
            TransferEnd::Done => self.metrics.transferred(bytes, took),
            TransferEnd::Failed | TransferEnd::Refused => self.metrics.transfer_broken("failed"),
            TransferEnd::Aborted => self.metrics.transfer_broken("aborted"),
        }
        self.with_sides(|sides| sides.taking.pull_ended(giver, end));
    }

    fn load(&mut self, load: Load) {
        self.metrics.load(&load);
        self.metrics.session_legs(self.sessions.legs());
        if load.foreign_claims > self.foreign_claims {
            self.foreign_claims = load.foreign_claims;
            self.complaints.log(TurnedAway::ForeignLease, "a reader spoke about a lease that is another reader's");
        }
        self.sessions.load(load);
    }

    /// Forgets the remaining legs: no later message could say that they are over.
    fn stop(&mut self, failure: Option<Failure>) {
        self.flush();
        self.sessions.forget_legs();
        if let Some(stopped) = self.stopped.take() {
            // The receiver is gone if the process ends at the same time.
            let _ = stopped.send(failure);
        }
    }
}
