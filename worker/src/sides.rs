//! The two sides of hand-offs that a worker can have, and the stand-in for a side that it does not have.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use engine::replica::{Command, NotTaken, ReplicaHandle, TransferEnd};
use engine::{EngineError, ModelInfo};
use node::drain::Stop;
use proto::Secret;
use proto::listen::Services;
use proto::session::server::Sessions;
use sched::message::{ToGiver, ToReader};
use sched::replica::Event;
use sched::{Failure, FailureKind, InstanceId, Role, Span};

use crate::metrics::WorkerMetrics;
use crate::started::PairReport;

const INBOX_RETRY: Duration = Duration::from_millis(1);

/// Constructors of a worker's sides, called once its model is loaded; by default there are none.
#[derive(Default)]
pub struct Sides {
    /// Side that gives KV caches to readers.
    pub giving: Option<Open<dyn Giving>>,
    /// Side that takes KV caches from givers.
    pub taking: Option<Open<dyn Taking>>,
}

/// Constructor of a side.
pub type Open<Side> = Box<dyn FnOnce(&Loaded) -> Arc<Side> + Send>;

/// A worker whose model is loaded, before any connection.
#[derive(Clone)]
pub struct Loaded {
    /// Name in logs, metrics and errors.
    pub name: String,
    /// Address for routers and readers, `host:port`.
    pub address: String,
    /// Handle of its replica.
    pub replica: ReplicaHandle,
    /// Model, formats and limits that it serves.
    pub info: ModelInfo,
    /// Endpoint of its transport.
    pub endpoint: Vec<u8>,
    /// Sessions with routers.
    pub sessions: Sessions,
    /// Metrics of the worker.
    pub metrics: WorkerMetrics,
    /// Secret that routers, readers and givers must know.
    pub secret: Secret,
    /// Time after which a lease that was not renewed ends.
    pub lease_span: Span,
    /// Interval at which leases are renewed.
    pub lease_beat: Span,
    /// Signal that ends every part of the worker.
    pub stop: Stop,
}

/// The giving side: readers hold leases on this worker's blocks. Its calls never wait.
pub trait Giving: Send + Sync {
    /// Returns the address for readers, `host:port`; `None` if this worker gives nothing.
    fn address(&self) -> Option<String>;

    /// Adds the service that readers call.
    fn serve(&self, services: Services) -> Services;

    /// Sends a word to a reader; it is dropped if the reader does not listen.
    fn say(&self, reader: InstanceId, word: &ToReader);

    /// Tells readers that the worker leaves in good order.
    fn leave(&self);
}

/// The taking side: the givers that this worker reads from. Its calls never wait.
pub trait Taking: Send + Sync {
    /// Starts to look for givers; called once the replica's messages about them can arrive.
    fn begin(&self);

    /// Connects to a giver that offers wait for; the outcome is [`Event::GiverUp`] or [`Event::GiverUnmet`].
    fn meet(&self, giver: InstanceId, address: &str);

    /// Sends a word to a giver.
    fn say(&self, giver: InstanceId, word: ToGiver);

    /// Notes that the transport has connected to a giver.
    fn wire_up(&self, giver: InstanceId, bytes_per_second: f64);

    /// Notes that the transport cannot read from a giver.
    fn wire_down(&self, giver: InstanceId, reason: String);

    /// Notes the end of a pull from a giver.
    fn pull_ended(&self, giver: InstanceId, end: TransferEnd);

    /// Waits until every configured giver was tried once.
    fn tried(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// Returns the state of the pair with each configured giver.
    fn reports(&self) -> Vec<PairReport>;
}

#[derive(Clone)]
pub(crate) struct Opened {
    pub(crate) giving: Arc<dyn Giving>,
    pub(crate) taking: Arc<dyn Taking>,
}

impl Sides {
    pub(crate) fn open(self, loaded: &Loaded) -> Opened {
        let nobody = || Nobody::of(loaded);
        Opened {
            giving: self.giving.map_or_else(|| Arc::new(nobody()) as Arc<dyn Giving>, |open| open(loaded)),
            taking: self.taking.map_or_else(|| Arc::new(nobody()) as Arc<dyn Taking>, |open| open(loaded)),
        }
    }
}

/// Stand-in for a side that a worker does not have: no reader can read, and no giver can be met.
struct Nobody {
    role: Role,
    replica: ReplicaHandle,
    runtime: tokio::runtime::Handle,
}

impl Nobody {
    fn of(Loaded { info, replica, .. }: &Loaded) -> Nobody {
        Nobody { role: info.role, replica: replica.clone(), runtime: tokio::runtime::Handle::current() }
    }
}

impl Giving for Nobody {
    fn address(&self) -> Option<String> {
        None
    }

    fn serve(&self, services: Services) -> Services {
        services
    }

    fn say(&self, _: InstanceId, _: &ToReader) {}

    fn leave(&self) {}
}

impl Taking for Nobody {
    fn begin(&self) {}

    fn meet(&self, giver: InstanceId, address: &str) {
        let detail = format!("a worker of role {} takes no offers, and it was sent one", self.role.label());
        let failure = Failure::new(FailureKind::Internal, detail);
        let (replica, event) = (self.replica.clone(), Event::GiverUnmet { giver, address: address.into(), failure });
        self.runtime.spawn(async move { patiently(event.into(), |command| replica.send(command)).await });
    }

    fn say(&self, _: InstanceId, _: ToGiver) {}

    fn wire_up(&self, _: InstanceId, _: f64) {}

    fn wire_down(&self, _: InstanceId, _: String) {}

    fn pull_ended(&self, _: InstanceId, _: TransferEnd) {}

    fn tried(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::ready(()))
    }

    fn reports(&self) -> Vec<PairReport> {
        Vec::new()
    }
}

/// Tells a replica what it must hear, until its inbox has room or it has ended.
pub async fn patiently(mut command: Command, mut tell: impl FnMut(Command) -> Result<(), NotTaken>) {
    while let Err(NotTaken { command: back, why: EngineError::InboxFull { .. } }) = tell(command) {
        command = *back;
        tokio::time::sleep(INBOX_RETRY).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by reading: the loss of a giver was dropped when the inbox was full, and legs waited for it for ever.
    #[tokio::test]
    async fn what_the_replica_must_hear_is_said_until_there_is_room() {
        let mut tries = 0;
        patiently(Event::Tick.into(), |command| {
            assert!(matches!(command, Command::Event(Event::Tick)));
            tries += 1;
            let why = EngineError::InboxFull { events_max: 1 };
            if tries < 5 { Err(NotTaken { command: Box::new(command), why }) } else { Ok(()) }
        })
        .await;
        assert_eq!(tries, 5);
        let mut tries = 0;
        patiently(Event::Tick.into(), |command| {
            tries += 1;
            Err(NotTaken { command: Box::new(command), why: EngineError::Stopped })
        })
        .await;
        assert_eq!(tries, 1, "nobody is left to hear it");
    }
}
