//! What routers and readers say to a prefill worker, as facts for its replica.

use std::future::Future;

use engine::replica::ReplicaHandle;
use engine::{EngineError, ModelInfo};
use node::drain::Stop;
use node::worker_metrics::WorkerMetrics;
use proto::TurnedAway;
use proto::peer::server::{Identity, Listeners, PeerHost};
use proto::peer::{Endpoint, PeerWelcome};
use proto::session::server::{Refused, SessionHost, Sessions};
use proto::session::{Exactness, Welcome};
use sched::message::{ToGiver, ToWorker};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId, Span};

/// The giver behind sessions and peers.
pub(crate) struct Giver {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) replica: ReplicaHandle,
    pub(crate) info: ModelInfo,
    pub(crate) endpoint: Vec<u8>,
    pub(crate) address: String,
    pub(crate) sessions: Sessions,
    pub(crate) listeners: Listeners,
    pub(crate) metrics: WorkerMetrics,
    /// How long a lease lives without being renewed.
    pub(crate) lease_span: Span,
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

    fn hear(&self, reader: InstanceId, word: ToGiver) -> Result<(), Failure> {
        let heard = self.replica.send_of_peer(Event::Reader(reader, word));
        heard.map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))
    }

    fn turned_away(&self, why: TurnedAway) {
        self.metrics.turned_away(why.label());
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        self.leaving.asked()
    }
}
