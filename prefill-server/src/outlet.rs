//! What the replica of a prefill worker has to say, and to whom; called on the replica's thread, never waits.

use std::sync::Arc;
use std::time::Instant;

use engine::replica::{Outbound, Outlet, TransferEnd};
use node::worker_metrics::WorkerMetrics;
use proto::session::server::Sessions;
use sched::message::{Envelope, FromWorker};
use sched::{Failure, Span};
use tokio::sync::oneshot;

use crate::book::LeaseBook;

/// Passes on what the replica says.
pub(crate) struct GiverOutlet {
    pub(crate) sessions: Sessions,
    pub(crate) book: Arc<LeaseBook>,
    pub(crate) metrics: WorkerMetrics,
    /// Said in this turn, sent as one.
    pub(crate) told: Vec<FromWorker>,
    /// Hears of the end of the replica thread.
    pub(crate) stopped: Option<oneshot::Sender<Option<Failure>>>,
}

impl Outlet for GiverOutlet {
    fn put(&mut self, out: Outbound) {
        match out {
            Outbound::Say(Envelope::Router(word)) => self.tell(word),
            Outbound::Say(Envelope::Reader(reader, word)) => self.book.answer(reader, &word),
            Outbound::Load(load) => {
                self.metrics.load(&load);
                self.metrics.session_legs(self.sessions.legs());
                self.sessions.load(load);
            }
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
    fn tell(&mut self, message: FromWorker) {
        self.metrics.told(&message);
        self.book.told(&message, |leg| self.sessions.runs(leg), Instant::now());
        self.told.push(message);
    }

    fn stop(&mut self, failure: Option<Failure>) {
        if let Some(stopped) = self.stopped.take() {
            // Nobody listens when the process ends at the same time.
            let _ = stopped.send(failure);
        }
    }
}
