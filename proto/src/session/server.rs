//! The worker's end of its sessions: accepts legs, routes the replica's messages back, cancels legs of lost routers.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sched::message::{FromWorker, Load, Offer, ToWorker};
use sched::{Choice, Failure, FailureKind, Leg};
use tokio::sync::{Notify, oneshot};
use tokio::time::{Instant, sleep};
use tonic::{Response, Status, Streaming};

use super::greeting::{Asked, greeting_of, hello_of, next_message};
use super::outbound::Admission;
pub use super::outbound::WorkerStream;
use super::table::{Queue, SessionId, Table};
use super::{Pair, PairProblem, SessionLimits, Welcome};
use crate::convert::limits::BATCH_MESSAGES_MAX;
use crate::convert::{ConvertError, Field, Wire};
use crate::generated as wire;
use crate::generated::router_message::Body as RouterBody;
use crate::listen::Greeting;
use crate::random;
use crate::secret::Secret;
use crate::status::status_of;
use crate::turned_away::{Complaints, TurnedAway};

const INBOX_RETRY: Duration = Duration::from_millis(1);

/// The worker behind the sessions.
pub trait SessionHost: Send + Sync + 'static {
    /// Returns the first message to a router that has proved itself.
    fn welcome(&self) -> Welcome;

    /// Accepts a message; never waits.
    ///
    /// # Errors
    /// `Busy` gives the message back: it is tried again for [`SessionLimits::inbox_wait`]. `Stopped` ends the session.
    fn accept(&self, message: ToWorker) -> Result<(), Refused>;

    /// Counts a caller that was turned away.
    fn turned_away(&self, _why: TurnedAway) {}
}

/// Reason for which a host did not accept a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// The inbox is full.
    Busy(Box<ToWorker>),
    /// The worker has stopped.
    Stopped,
}

/// All sessions of a worker; clones share them.
#[derive(Clone)]
pub struct Sessions {
    shared: Arc<Shared>,
}

struct Shared {
    table: Mutex<Table>,
    limits: SessionLimits,
    ended: Notify,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// Returns an empty set of sessions.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Sessions {
        let table = Mutex::new(Table::new(limits.clone()));
        Sessions { shared: Arc::new(Shared { table, limits, ended: Notify::new() }) }
    }

    /// Sends messages to the routers of their legs, in order, one write per router. Never waits. Returns the number of
    /// messages whose session has ended.
    pub fn tell(&self, messages: impl IntoIterator<Item = FromWorker>) -> usize {
        self.shared.table().deliver(messages.into_iter())
    }

    /// Sends messages as [`Sessions::tell`] does. They are the last about the legs that are `over`, which are forgotten
    /// at the same moment: a router that learns of a leg's end finds its name free.
    pub fn tell_last(
        &self,
        messages: impl IntoIterator<Item = FromWorker>,
        over: impl IntoIterator<Item = Leg>,
    ) -> usize {
        let orphans = {
            let mut table = self.shared.table();
            let orphans = table.deliver(messages.into_iter());
            over.into_iter().for_each(|leg| table.over(leg));
            orphans
        };
        self.shared.ended.notify_waiters();
        orphans
    }

    /// Forgets legs about which no message will follow.
    pub fn over(&self, legs: impl IntoIterator<Item = Leg>) {
        self.tell_last([], legs);
    }

    /// Forgets every leg; called when the replica has ended.
    pub fn forget_legs(&self) {
        self.shared.table().forget_legs();
        self.shared.ended.notify_waiters();
    }

    /// Tells every router the worker's load.
    pub fn load(&self, load: Load) {
        self.shared.table().publish(|status| status.load = load);
    }

    /// Tells every router which givers the worker can read from.
    pub fn pairs(&self, pairs: Vec<Pair>, problems: Vec<PairProblem>) {
        self.shared.table().publish(|status| (status.pairs, status.problems) = (pairs, problems));
    }

    /// Refuses new legs from now on; running ones go on.
    pub fn drain(&self) {
        self.shared.table().drain();
    }

    /// Number of legs that are not over.
    #[must_use]
    pub fn legs(&self) -> usize {
        self.shared.table().legs()
    }

    /// Waits until no leg is left.
    pub async fn idle(&self) {
        self.wait(|table| table.legs() == 0).await;
    }

    /// Ends every session with `failure` and waits until all have ended.
    pub async fn end(&self, failure: &Failure) {
        self.shared.table().end_all(failure);
        self.wait(|table| table.sessions() == 0).await;
    }

    async fn wait(&self, reached: impl Fn(&Table) -> bool) {
        loop {
            let ended = self.shared.ended.notified();
            let mut ended = std::pin::pin!(ended);
            // Registered before the check, so that an end between check and wait is not missed.
            ended.as_mut().enable();
            if reached(&self.shared.table()) {
                return;
            }
            ended.await;
        }
    }
}

/// Serves sessions for a host.
pub struct WorkerService<H> {
    host: Arc<H>,
    sessions: Sessions,
    secret: Secret,
    complaints: Arc<Complaints>,
}

impl<H> Clone for WorkerService<H> {
    fn clone(&self) -> Self {
        let (host, sessions) = (self.host.clone(), self.sessions.clone());
        WorkerService { host, sessions, secret: self.secret.clone(), complaints: self.complaints.clone() }
    }
}

impl<H: SessionHost> WorkerService<H> {
    /// Returns a service whose answers go through `sessions`, for routers that know `secret`.
    pub fn new(host: Arc<H>, sessions: Sessions, secret: Secret) -> WorkerService<H> {
        WorkerService { host, sessions, secret, complaints: Arc::default() }
    }

    async fn read(self, id: SessionId, mut inbound: Streaming<wire::RouterMessage>, queue: Queue) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                () = queue.closed() => break,
                () = queue.ending.notified() => break,
            };
            // Whether the stream broke or finished, the router is gone.
            let Ok(Some(message)) = message else { break };
            if let Err(failure) = self.take_batch(id, message).await {
                queue.end(failure);
                break;
            }
        }
        self.close(id, &queue).await;
    }

    async fn take_batch(&self, id: SessionId, message: wire::RouterMessage) -> Result<(), Failure> {
        for message in batch_of(message)? {
            let message = ToWorker::from_wire(message)?;
            self.take(id, message).await?;
        }
        Ok(())
    }

    /// Registers a new leg and passes its message on. An error ends the session.
    async fn take(&self, id: SessionId, message: ToWorker) -> Result<(), Failure> {
        let about = About::of(&message);
        if let About::Begin(leg) = about {
            let mut table = self.sessions.shared.table();
            if let Err(failure) = table.begin(id, leg) {
                table.refuse(id, leg, failure);
                return Ok(());
            }
        }
        let Some(message) = self.own(id, message) else { return Ok(()) };
        match self.pass(message).await {
            Ok(()) => {}
            Err(NotTaken::Full(failure)) => self.give_up(about, failure),
            Err(NotTaken::Stopped) => return Err(Failure::new(FailureKind::WorkerLost, "the worker has stopped")),
        }
        Ok(())
    }

    /// Returns the part of a message about this session's own legs; a word about another session's is counted only.
    fn own(&self, id: SessionId, message: ToWorker) -> Option<ToWorker> {
        let (own, foreign) = self.sessions.shared.table().own(id, message);
        if let Some(leg) = foreign {
            self.host.turned_away(TurnedAway::ForeignLeg);
            self.complaints.log(TurnedAway::ForeignLeg, &format!("a router spoke about {leg}, which is another's"));
        }
        own
    }

    /// Ends the leg of a message that was not accepted, never the session: other sessions may have filled the inbox.
    fn give_up(&self, about: About, failure: Failure) {
        match about {
            About::Begin(leg) => {
                self.sessions.tell_last([FromWorker::Failed { leg, failure }], [leg]);
            }
            // The replica has the offer and may have bound the giver's lease to itself. A refusal would let another
            // worker take the same offer.
            About::Commit(leg) => {
                let detail = format!("the first tokens did not reach the worker: {}", failure.detail);
                self.fail(leg, Failure::new(FailureKind::KvLost, detail));
                self.withdraw(leg, None);
            }
            About::Cancel(leg, choice) => self.withdraw(leg, choice),
            // The next renewal comes long before any lease ends.
            About::Renewal => tracing::warn!(%failure, "a renewal was lost"),
        }
    }

    fn fail(&self, leg: Leg, failure: Failure) {
        self.sessions.tell([FromWorker::Failed { leg, failure }]);
    }

    /// Cancels a leg at the replica as soon as its inbox has room.
    fn withdraw(&self, leg: Leg, choice: Option<Choice>) {
        let service = self.clone();
        tokio::spawn(async move { service.pass_patiently(ToWorker::Cancel { leg, choice }).await });
    }

    /// Passes a message to the host, waiting a bounded time for room.
    async fn pass(&self, mut message: ToWorker) -> Result<(), NotTaken> {
        let limit = self.sessions.shared.limits.inbox_wait;
        let deadline = Instant::now() + limit;
        loop {
            message = match self.host.accept(message) {
                Ok(()) => return Ok(()),
                Err(Refused::Stopped) => return Err(NotTaken::Stopped),
                Err(Refused::Busy(message)) => *message,
            };
            if Instant::now() >= deadline {
                let detail = format!("the worker's inbox was full for {limit:?}");
                return Err(NotTaken::Full(Failure::new(FailureKind::Overloaded, detail)));
            }
            sleep(INBOX_RETRY).await;
        }
    }

    /// Passes a message to the host, however long it takes, unless the host has stopped.
    async fn pass_patiently(&self, mut message: ToWorker) {
        while let Err(Refused::Busy(back)) = self.host.accept(message) {
            message = *back;
            sleep(INBOX_RETRY).await;
        }
    }

    async fn close(&self, id: SessionId, queue: &Queue) {
        let legs = self.sessions.shared.table().close(id);
        match legs.len() {
            0 => tracing::debug!("a router's session has ended"),
            legs => tracing::info!(legs, "a router's session has ended; its legs are cancelled"),
        }
        queue.end(Failure::new(FailureKind::WorkerLost, "the session is over"));
        self.sessions.shared.ended.notify_waiters();
        for leg in legs {
            self.pass_patiently(ToWorker::Cancel { leg, choice: None }).await;
        }
    }

    /// Receives the hello and answers with a challenge; the rest of the greeting runs in a task.
    async fn begin(
        &self,
        request: tonic::Request<Streaming<wire::RouterMessage>>,
    ) -> Result<Response<WorkerStream>, Status> {
        let greeting = greeting_of(&request)?;
        let mut inbound = request.into_inner();
        let said = next_message(&mut inbound, self.sessions.shared.limits.handshake, "hello").await;
        let hello = said.and_then(hello_of).map_err(|failure| status_of(&failure))?;
        let nonce = random::bytes().map_err(|failure| status_of(&failure))?;
        let asked = Asked::new(hello, self.host.welcome().instance, nonce);
        let challenge = asked.challenge(&self.secret);
        let (admit, admission) = oneshot::channel();
        tokio::spawn(self.clone().greet(inbound, asked, greeting, admit));
        Ok(Response::new(WorkerStream::new(challenge, admission)))
    }

    /// Waits for the router's proof, with which the session begins.
    async fn greet(
        self,
        mut inbound: Streaming<wire::RouterMessage>,
        asked: Asked,
        greeting: Greeting,
        admit: oneshot::Sender<Admission>,
    ) {
        let said = next_message(&mut inbound, self.sessions.shared.limits.handshake, "proof").await;
        if let Err(status) = asked.check(&self.secret, said) {
            self.host.turned_away(TurnedAway::Stranger);
            self.complaints.log(TurnedAway::Stranger, status.message());
            // The receiver is gone if the caller has left.
            let _ = admit.send(Err(status));
            return;
        }
        greeting.admit();
        drop(greeting);
        let (id, queue, reader) = self.sessions.shared.table().open();
        tracing::debug!(router = %asked.router(), "a router has connected");
        // A router that has left meanwhile is noticed by `read`.
        let _ = admit.send(Ok((self.host.welcome().to_wire(), reader)));
        self.read(id, inbound, queue).await;
    }
}

enum NotTaken {
    Stopped,
    Full(Failure),
}

/// Subject of a message, which decides the effect of its loss.
#[derive(Clone, Copy)]
enum About {
    Begin(Leg),
    Commit(Leg),
    Cancel(Leg, Option<Choice>),
    Renewal,
}

impl About {
    fn of(message: &ToWorker) -> About {
        match message {
            ToWorker::Submit(request, _) | ToWorker::Offer(Offer { request, .. }) => About::Begin(request.leg),
            ToWorker::Commit(commit) => About::Commit(commit.leg),
            ToWorker::Cancel { leg, choice } => About::Cancel(*leg, *choice),
            ToWorker::Renew(_) => About::Renewal,
        }
    }
}

impl<H: SessionHost> wire::worker_server::Worker for WorkerService<H> {
    type SessionStream = WorkerStream;

    fn session<'life, 'future>(
        &'life self,
        request: tonic::Request<Streaming<wire::RouterMessage>>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<WorkerStream>, Status>> + Send + 'future>>
    where
        'life: 'future,
        Self: 'future,
    {
        Box::pin(async move { self.begin(request).await })
    }
}

fn batch_of(message: wire::RouterMessage) -> Result<Vec<wire::ToWorker>, ConvertError> {
    let batch = match Field("RouterMessage", "body").required(message.body)? {
        RouterBody::Hello(_) => return Err(Field("RouterMessage", "hello").error(crate::Problem::Unexpected)),
        RouterBody::Proof(_) => return Err(Field("RouterMessage", "proof").error(crate::Problem::Unexpected)),
        RouterBody::Batch(batch) => batch.messages,
    };
    Field("RouterBatch", "messages").at_most(batch.len(), BATCH_MESSAGES_MAX)?;
    Ok(batch)
}
