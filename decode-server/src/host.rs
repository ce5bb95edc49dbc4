//! What routers say to a decode worker, as facts for its replica; offers first see to it that their giver is met.

use engine::replica::ReplicaHandle;
use engine::{EngineError, ModelInfo};
use node::worker_metrics::WorkerMetrics;
use proto::TurnedAway;
use proto::session::server::{Refused, SessionHost};
use proto::session::{Exactness, Welcome};
use sched::message::ToWorker;
use sched::replica::Event;
use sched::{Failure, FailureKind, Role, Span};

use crate::peers::{Peers, Way};

/// The taker behind the sessions.
pub(crate) struct Taker {
    /// What it is called.
    pub(crate) name: String,
    pub(crate) replica: ReplicaHandle,
    pub(crate) info: ModelInfo,
    pub(crate) peers: Peers,
    pub(crate) metrics: WorkerMetrics,
    /// How long a leg lives without being renewed.
    pub(crate) lease_span: Span,
}

impl SessionHost for Taker {
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
            peer_address: None,
            backend: self.info.backend.numerics_id.clone(),
            exactness: if self.info.backend.exact { Exactness::Exact } else { Exactness::Inexact },
            transports: vec![self.info.transport.label().to_owned()],
            name: self.name.clone(),
            lease_span: self.lease_span,
        }
    }

    fn turned_away(&self, why: TurnedAway) {
        self.metrics.turned_away(why.label());
    }

    fn accept(&self, message: ToWorker) -> Result<(), Refused> {
        match self.info.role {
            Role::Aggregated => refuse_offers(&message)?,
            Role::Decode | Role::Prefill => {}
        }
        let message = match self.peers.admit(message) {
            Way::Through(message) => message,
            Way::Held => return Ok(()),
            Way::Refused(failure) => return Err(Refused::Never(failure)),
        };
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

fn refuse_offers(message: &ToWorker) -> Result<(), Refused> {
    match message {
        ToWorker::Offer(offer) => {
            let detail = format!("an aggregated worker takes no offers, {} came with one", offer.request.leg);
            Err(Refused::Never(Failure::new(FailureKind::Internal, detail)))
        }
        ToWorker::Submit(..) | ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => Ok(()),
    }
}
