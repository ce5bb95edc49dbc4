//! The giving side of a worker: the service that readers call, and the words to readers.

use std::future::Future;
use std::sync::Arc;

use node::drain::Stop;
use proto::TurnedAway;
use proto::listen::Services;
use proto::peer::server::{Identity, Listeners, PeerHost, PeerService};
use proto::peer::{Endpoint, PeerWelcome};
use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId};
use worker::{Giving, Loaded};

/// The giving side; clones share it.
#[derive(Clone)]
pub struct Giver {
    shared: Arc<Shared>,
}

struct Shared {
    worker: Loaded,
    listeners: Listeners,
    /// Signal that the worker leaves in good order.
    leaving: Stop,
}

impl Giver {
    /// Returns the giving side of a worker.
    #[must_use]
    pub fn of(worker: &Loaded) -> Giver {
        let (worker, listeners, leaving) = (worker.clone(), Listeners::default(), Stop::new());
        Giver { shared: Arc::new(Shared { worker, listeners, leaving }) }
    }
}

impl Giving for Giver {
    fn address(&self) -> Option<String> {
        Some(self.shared.worker.address.clone())
    }

    fn serve(&self, services: Services) -> Services {
        let Shared { worker, listeners, .. } = &*self.shared;
        services.with_peer(PeerService::new(Arc::clone(&self.shared), listeners.clone(), worker.secret.clone()))
    }

    fn say(&self, reader: InstanceId, word: &ToReader) {
        self.shared.listeners.say(reader, word);
    }

    fn leave(&self) {
        self.shared.leaving.ask();
    }
}

impl PeerHost for Shared {
    fn identity(&self) -> Identity {
        let Loaded { info, lease_span, .. } = &self.worker;
        Identity { instance: info.instance, compat: info.compat.clone(), lease_span: *lease_span }
    }

    fn welcome(&self, _: InstanceId) -> Result<PeerWelcome, Failure> {
        let Loaded { name, info, endpoint, lease_span, .. } = &self.worker;
        let endpoint = Endpoint { transport: info.transport.label().to_owned(), address: endpoint.clone() };
        Ok(PeerWelcome {
            compat: info.compat.clone(),
            instance: info.instance,
            layout: info.layout.clone(),
            blocks: info.blocks,
            endpoints: vec![endpoint],
            name: name.clone(),
            lease_span: *lease_span,
        })
    }

    fn hear(&self, reader: InstanceId, word: ToGiver) -> Result<(), Failure> {
        let heard = self.worker.replica.send_of_peer(Event::Reader(reader, word));
        heard.map_err(|error| Failure::new(FailureKind::Unavailable, error.to_string()))
    }

    fn turned_away(&self, why: TurnedAway) {
        self.worker.metrics.turned_away(why.label());
    }

    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static {
        self.leaving.asked()
    }
}
