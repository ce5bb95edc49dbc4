//! The two sides of hand-offs that a worker can have, and what stands there where it has none.

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

/// How long to wait before a full inbox is tried again.
const INBOX_RETRY: Duration = Duration::from_millis(1);

/// How the sides of a worker are opened once its model is loaded; by default it has none.
#[derive(Default)]
pub struct Sides {
    /// Gives KV caches to readers.
    pub giving: Option<Open<dyn Giving>>,
    /// Takes KV caches from givers.
    pub taking: Option<Open<dyn Taking>>,
}

/// Opens a side of a worker.
pub type Open<Side> = Box<dyn FnOnce(&Loaded) -> Arc<Side> + Send>;

/// A worker whose model is loaded, before anybody has met it.
#[derive(Clone)]
pub struct Loaded {
    /// Its name in logs, metrics and errors.
    pub name: String,
    /// Where others reach it, `host:port`.
    pub address: String,
    /// Its scheduler.
    pub replica: ReplicaHandle,
    /// What it serves, and how.
    pub info: ModelInfo,
    /// How its transport is reached.
    pub endpoint: Vec<u8>,
    /// Its sessions with routers.
    pub sessions: Sessions,
    /// What it counts.
    pub metrics: WorkerMetrics,
    /// What routers, readers and givers must know.
    pub secret: Secret,
    /// A lease ends when it was not renewed for this long.
    pub lease_span: Span,
    /// How often leases are renewed.
    pub lease_beat: Span,
    /// Ends everything.
    pub stop: Stop,
}

/// The giving side: readers hold leases on this worker's blocks. Its calls never wait.
pub trait Giving: Send + Sync {
    /// Where readers reach it, `host:port`; `None` if nobody can read here.
    fn address(&self) -> Option<String>;

    /// Adds what readers call.
    fn serve(&self, services: Services) -> Services;

    /// Carries a word to a reader; a reader that is not there does not hear it.
    fn say(&self, reader: InstanceId, word: &ToReader);

    /// The worker leaves in good order: readers are told.
    fn leave(&self);
}

/// The taking side: the givers that this worker reads from. Its calls never wait.
pub trait Taking: Send + Sync {
    /// From now on it may look for givers: what the replica says of them is heard.
    fn begin(&self);

    /// Looks for a giver that offers wait for; [`Event::GiverUp`] or [`Event::GiverUnmet`] says what came of it.
    fn meet(&self, giver: InstanceId, address: &str);

    /// Carries a word to a giver.
    fn say(&self, giver: InstanceId, word: ToGiver);

    /// The transport has connected to a giver.
    fn wire_up(&self, giver: InstanceId, bytes_per_second: f64);

    /// The transport cannot read from a giver.
    fn wire_down(&self, giver: InstanceId, reason: String);

    /// A pull from a giver has ended.
    fn pull_ended(&self, giver: InstanceId, end: TransferEnd);

    /// Resolves when every configured giver was tried once.
    fn tried(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>>;

    /// How each configured giver fares.
    fn reports(&self) -> Vec<PairReport>;
}

/// The sides that a worker has.
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

/// Stands where a worker has no side: nobody reads here, and nobody can be met.
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

    /// Found by reading: the loss of a giver was dropped when the inbox was full, and whoever waited for it went on waiting.
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
