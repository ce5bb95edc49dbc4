//! What the replica of a decode worker has to say, and to whom; called on the replica's thread, never waits.

use std::sync::{Arc, OnceLock};

use engine::replica::{Outbound, Outlet, TransferEnd};
use node::worker_metrics::WorkerMetrics;
use proto::session::server::Sessions;
use sched::message::{Envelope, FromWorker};
use sched::{Failure, Span};
use tokio::sync::oneshot;

use crate::peers::Peers;

/// Passes on what the replica says.
pub(crate) struct TakerOutlet {
    pub(crate) sessions: Sessions,
    /// Set right after the replica has started: before, it knows no giver.
    pub(crate) peers: Arc<OnceLock<Peers>>,
    pub(crate) metrics: WorkerMetrics,
    /// Said in this turn, sent as one.
    pub(crate) told: Vec<FromWorker>,
    /// Hears of the end of the replica thread.
    pub(crate) stopped: Option<oneshot::Sender<Option<Failure>>>,
}

impl Outlet for TakerOutlet {
    fn put(&mut self, out: Outbound) {
        match out {
            Outbound::Say(Envelope::Router(word)) => {
                self.metrics.told(&word);
                self.told.push(word);
            }
            Outbound::Say(Envelope::Giver(giver, word)) => self.with_peers(|peers| peers.say(giver, word)),
            Outbound::Say(Envelope::Reader(..)) => tracing::error!(?out, "a decode worker gives nothing"),
            Outbound::PeerUp { instance, bytes_per_second, .. } => {
                self.with_peers(|peers| peers.wire_up(instance, bytes_per_second));
            }
            Outbound::PeerDown { instance, reason } => self.with_peers(|peers| peers.wire_down(instance, reason)),
            Outbound::Load(load) => {
                self.metrics.load(&load);
                self.metrics.session_legs(self.sessions.legs());
                self.sessions.load(load);
            }
            Outbound::Transferred { giver, bytes, elapsed_us, end, .. } => {
                match end {
                    TransferEnd::Done => self.metrics.transferred(bytes, Span(elapsed_us)),
                    TransferEnd::Failed | TransferEnd::Refused => self.metrics.transfer_broken("failed"),
                    TransferEnd::Aborted => self.metrics.transfer_broken("aborted"),
                }
                self.with_peers(|peers| peers.pull_ended(giver, end));
            }
            Outbound::Stepped { lane: _, took, gap } => self.metrics.stepped(took, gap),
            Outbound::InvariantBroken(_) => self.metrics.invariant_broken(),
            Outbound::Stopped(failure) => self.stop(failure),
        }
    }

    fn flush(&mut self) {
        if !self.told.is_empty() {
            let orphans = self.sessions.tell(self.told.drain(..));
            self.metrics.orphaned(orphans);
        }
    }
}

impl TakerOutlet {
    fn with_peers(&self, tell: impl FnOnce(&Peers)) {
        match self.peers.get() {
            Some(peers) => tell(peers),
            None => tracing::error!("the replica talks to a giver before it can know one"),
        }
    }

    fn stop(&mut self, failure: Option<Failure>) {
        if let Some(stopped) = self.stopped.take() {
            // Nobody listens when the process ends at the same time.
            let _ = stopped.send(failure);
        }
    }
}
