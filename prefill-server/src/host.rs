//! What routers and readers say to a prefill worker, as facts for its replica.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use engine::replica::ReplicaHandle;
use engine::{EngineError, ModelInfo};
use node::drain::Stop;
use node::worker_metrics::WorkerMetrics;
use proto::peer::server::{Identity, PeerHost};
use proto::peer::{Endpoint, PeerWelcome};
use proto::session::server::{Refused, SessionHost, Sessions};
use proto::session::{Exactness, Welcome};
use sched::message::{Event, ReleaseAnswer, ToWorker};
use sched::{Failure, FailureKind, InstanceId, LeaseId};

use crate::book::LeaseBook;

/// How long a release may wait for the replica; the reader repeats it.
const RELEASE_WAIT: Duration = Duration::from_secs(2);

/// The giver behind sessions and peers.
pub(crate) struct Giver {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) replica: ReplicaHandle,
    pub(crate) info: ModelInfo,
    pub(crate) endpoint: Vec<u8>,
    pub(crate) address: String,
    pub(crate) sessions: Sessions,
    pub(crate) book: Arc<LeaseBook>,
    pub(crate) metrics: WorkerMetrics,
    /// Asked when the worker leaves in good order.
    pub(crate) leaving: Stop,
}

impl SessionHost for Giver {
    fn welcome(&self) -> Welcome {
        Welcome {
            instance: self.info.instance,
            role: self.info.role,
            model: self.info.name.clone(),
            compat: self.info.compat.clone(),
            context_max: self.info.context_max,
            capacity_tokens: self.info.capacity_tokens(),
            block_tokens: self.info.block_tokens(),
            peer_address: Some(self.address.clone()),
            backend: self.info.backend.numerics_id.clone(),
            exactness: if self.info.backend.exact { Exactness::Exact } else { Exactness::Inexact },
            transports: vec![self.info.transport.label().to_owned()],
            name: self.name.clone(),
        }
    }

    fn accept(&self, message: ToWorker) -> Result<(), Refused> {
        if let ToWorker::Offer(offer) = &message {
            let detail = format!("a prefill worker takes no offers, {} came with one", offer.request.leg);
            return Err(Refused::Never(Failure::new(FailureKind::Internal, detail)));
        }
        match self.replica.send(Event::Router(message.clone())) {
            Ok(()) => {
                self.metrics.taken(&message);
                Ok(())
            }
            Err(EngineError::InboxFull { .. }) => Err(Refused::Busy(Box::new(message))),
            Err(_) => Err(Refused::Stopped),
        }
    }
}

impl Giver {
    fn tell_replica(&self, event: Event) -> Result<(), Failure> {
        self.replica.send(event).map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))
    }
}

impl PeerHost for Giver {
    fn identity(&self) -> Identity {
        Identity { instance: self.info.instance, compat: self.info.compat.clone() }
    }

    fn welcome(&self, reader: InstanceId) -> Result<PeerWelcome, Failure> {
        tracing::debug!(%reader, "a reader has introduced itself");
        let endpoint = Endpoint { transport: self.info.transport.label().to_owned(), address: self.endpoint.clone() };
        Ok(PeerWelcome {
            compat: self.info.compat.clone(),
            instance: self.info.instance,
            layout: self.info.layout.clone(),
            blocks: self.info.blocks,
            endpoints: vec![endpoint],
            data_token: proto::random::bytes()?,
            name: self.name.clone(),
        })
    }

    fn renew(&self, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Failure> {
        let (alive, gone) = self.book.split(leases, |leg| self.sessions.runs(leg));
        if !alive.is_empty() {
            self.tell_replica(Event::ReaderRenewed(alive))?;
        }
        Ok(gone)
    }

    async fn release(&self, lease: LeaseId) -> Result<ReleaseAnswer, Failure> {
        let answer = self.book.wait(lease);
        self.tell_replica(Event::ReaderReleased(lease))?;
        match tokio::time::timeout(RELEASE_WAIT, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) | Err(_) => {
                self.book.give_up(lease);
                let detail = format!("the replica has not answered the release of {lease} within {RELEASE_WAIT:?}");
                Err(Failure::new(FailureKind::Unavailable, detail))
            }
        }
    }

    fn abort(&self, lease: LeaseId) -> Result<(), Failure> {
        self.tell_replica(Event::ReaderAborted(lease))
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        self.leaving.asked()
    }
}
