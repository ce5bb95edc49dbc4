//! What the replica of a prefill worker has to say, and to whom; called on the replica's thread, never waits.

use engine::replica::{Outbound, Outlet, TransferEnd};
use node::worker_metrics::WorkerMetrics;
use proto::peer::server::Listeners;
use proto::session::server::Sessions;
use proto::{Complaints, TurnedAway};
use sched::message::{Envelope, FromWorker, Load};
use sched::{Failure, Span};
use tokio::sync::oneshot;

/// Passes on what the replica says.
pub(crate) struct GiverOutlet {
    pub(crate) sessions: Sessions,
    pub(crate) listeners: Listeners,
    pub(crate) metrics: WorkerMetrics,
    pub(crate) complaints: Complaints,
    /// Words about other readers' leases, as last counted.
    pub(crate) foreign_claims: u64,
    /// Said in this turn, sent as one.
    pub(crate) told: Vec<FromWorker>,
    /// Hears of the end of the replica thread.
    pub(crate) stopped: Option<oneshot::Sender<Option<Failure>>>,
}

impl Outlet for GiverOutlet {
    fn put(&mut self, out: Outbound) {
        match out {
            Outbound::Say(Envelope::Router(word)) => {
                self.metrics.told(&word);
                self.told.push(word);
            }
            Outbound::Say(Envelope::Reader(reader, word)) => self.listeners.say(reader, &word),
            Outbound::Load(load) => self.load(load),
            Outbound::Transferred { bytes, elapsed_us, end, .. } => match end {
                TransferEnd::Done => self.metrics.transferred(bytes, Span(elapsed_us)),
                TransferEnd::Failed | TransferEnd::Refused => self.metrics.transfer_broken("failed"),
                TransferEnd::Aborted => self.metrics.transfer_broken("aborted"),
            },
            Outbound::Stepped { lane: _, took, gap } => self.metrics.stepped(took, gap),
            Outbound::InvariantBroken(_) => self.metrics.invariant_broken(),
            Outbound::Stopped(failure) => self.stop(failure),
            Outbound::Say(Envelope::Giver(..)) | Outbound::PeerUp { .. } | Outbound::PeerDown { .. } => {
                tracing::error!(?out, "a prefill worker takes no offers, yet it talks to a giver");
            }
        }
    }

    fn flush(&mut self) {
        if !self.told.is_empty() {
            let orphans = self.sessions.tell(self.told.drain(..));
            self.metrics.orphaned(orphans);
        }
    }
}

impl GiverOutlet {
    fn load(&mut self, load: Load) {
        self.metrics.load(&load);
        self.metrics.session_legs(self.sessions.legs());
        if load.foreign_claims > self.foreign_claims {
            self.foreign_claims = load.foreign_claims;
            self.complaints.log(TurnedAway::ForeignLease, "a reader spoke about a lease that is another reader's");
        }
        self.sessions.load(load);
    }

    fn stop(&mut self, failure: Option<Failure>) {
        if let Some(stopped) = self.stopped.take() {
            // Nobody listens when the process ends at the same time.
            let _ = stopped.send(failure);
        }
    }
}
