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
use proto::{Complaints, TurnedAway};
use sched::message::{ReleaseAnswer, ToGiver, ToWorker};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId, LeaseId, Span};

use crate::book::{Claim, Heartbeat, LeaseBook};

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
    /// How long a lease lives without being renewed.
    pub(crate) lease_span: Span,
    pub(crate) complaints: Complaints,
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
            vocab_size: self.info.vocab,
            context_max: self.info.context_max,
            capacity_tokens: self.info.capacity_tokens(),
            block_tokens: self.info.block_tokens(),
            peer_address: Some(self.address.clone()),
            backend: self.info.backend.numerics_id.clone(),
            exactness: if self.info.backend.exact { Exactness::Exact } else { Exactness::Inexact },
            transports: vec![self.info.transport.label().to_owned()],
            name: self.name.clone(),
            lease_span: self.lease_span,
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

    fn turned_away(&self, why: TurnedAway) {
        self.metrics.turned_away(why.label());
    }
}

impl Giver {
    fn tell_replica(&self, event: Event) -> Result<(), Failure> {
        self.replica.send_of_peer(event).map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))
    }

    /// Whose lease it is, as far as `reader` is concerned. What is not its own never gets to the replica.
    fn claim(&self, reader: InstanceId, lease: LeaseId) -> Claim {
        let claim = self.book.claim(reader, lease);
        if claim == Claim::Foreign {
            self.foreign_lease(reader);
        }
        claim
    }

    fn foreign_lease(&self, reader: InstanceId) {
        PeerHost::turned_away(self, TurnedAway::ForeignLease);
        self.complaints
            .log(TurnedAway::ForeignLease, &format!("{reader} spoke about a lease that is another reader's"));
    }
}

impl PeerHost for Giver {
    fn identity(&self) -> Identity {
        Identity { instance: self.info.instance, compat: self.info.compat.clone(), lease_span: self.lease_span }
    }

    fn welcome(&self, _: InstanceId) -> Result<PeerWelcome, Failure> {
        let endpoint = Endpoint { transport: self.info.transport.label().to_owned(), address: self.endpoint.clone() };
        Ok(PeerWelcome {
            compat: self.info.compat.clone(),
            instance: self.info.instance,
            layout: self.info.layout.clone(),
            blocks: self.info.blocks,
            endpoints: vec![endpoint],
            name: self.name.clone(),
            lease_span: self.lease_span,
        })
    }

    fn renew(&self, reader: InstanceId, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Failure> {
        let Heartbeat { alive, gone, foreign } = self.book.split(reader, leases, |leg| self.sessions.runs(leg));
        if foreign > 0 {
            self.foreign_lease(reader);
        }
        if !alive.is_empty() {
            self.tell_replica(Event::Reader(reader, ToGiver::Renew(alive)))?;
        }
        Ok(gone)
    }

    async fn release(&self, reader: InstanceId, lease: LeaseId) -> Result<ReleaseAnswer, Failure> {
        match self.claim(reader, lease) {
            Claim::Own => {}
            Claim::Unknown | Claim::Foreign => return Ok(ReleaseAnswer::Expired),
        }
        let mut waiting = self.book.wait(reader, lease);
        if waiting.is_first() {
            self.tell_replica(Event::Reader(reader, ToGiver::Release(lease)))?;
        }
        match tokio::time::timeout(RELEASE_WAIT, waiting.answer()).await {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) | Err(_) => {
                let detail = format!("the replica has not answered the release of {lease} within {RELEASE_WAIT:?}");
                Err(Failure::new(FailureKind::Unavailable, detail))
            }
        }
    }

    fn abort(&self, reader: InstanceId, lease: LeaseId) -> Result<(), Failure> {
        match self.claim(reader, lease) {
            Claim::Own => self.tell_replica(Event::Reader(reader, ToGiver::Abort(lease))),
            Claim::Unknown | Claim::Foreign => Ok(()),
        }
    }

    fn turned_away(&self, why: TurnedAway) {
        self.metrics.turned_away(why.label());
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        self.leaving.asked()
    }
}
