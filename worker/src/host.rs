//! Passes the messages of routers to the replica as events.

use engine::EngineError;
use engine::replica::{Command, NotTaken};
use proto::TurnedAway;
use proto::session::server::{Refused, SessionHost};
use proto::session::{Exactness, Welcome};
use sched::message::ToWorker;
use sched::replica::Event;

use crate::metrics;
use crate::sides::{Loaded, Opened};

pub(crate) struct Host {
    pub(crate) loaded: Loaded,
    pub(crate) sides: Opened,
}

impl SessionHost for Host {
    fn welcome(&self) -> Welcome {
        let Loaded { name, info, lease_span, .. } = &self.loaded;
        Welcome {
            instance: info.instance,
            role: info.role,
            model: info.name.clone(),
            compat: info.compat.clone(),
            vocab_size: info.vocab,
            context_max: info.context_max,
            capacity_tokens: info.capacity_tokens(),
            sequences_max: info.sequences_max,
            block_tokens: info.block_tokens(),
            peer_address: self.sides.giving.address(),
            backend: info.backend.numerics_id.clone(),
            exactness: if info.backend.exact { Exactness::Exact } else { Exactness::Inexact },
            transports: vec![info.transport.label().to_owned()],
            name: name.clone(),
            lease_span: *lease_span,
        }
    }

    fn accept(&self, message: ToWorker) -> Result<(), Refused> {
        let prompt_tokens = metrics::prompt_tokens(&message);
        let Err(NotTaken { command, why }) = self.loaded.replica.send(Event::Router(message)) else {
            self.loaded.metrics.taken(prompt_tokens);
            return Ok(());
        };
        match (*command, why) {
            (Command::Event(Event::Router(message)), EngineError::InboxFull { .. }) => {
                Err(Refused::Busy(Box::new(message)))
            }
            _ => Err(Refused::Stopped),
        }
    }

    fn turned_away(&self, why: TurnedAway) {
        self.loaded.metrics.turned_away(why.label());
    }
}
