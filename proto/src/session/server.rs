//! The worker's end of its sessions: takes legs in, routes what the replica says back, cancels what a lost router left.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use sched::message::{FromWorker, Load, ToWorker};
use sched::{Failure, FailureKind, Leg, Request};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_stream::Stream;
use tonic::{Response, Status, Streaming};

use super::batch::Batch;
use super::table::{Outgoing, Queue, QueueReader, SessionId, Table};
use super::{Pair, PairProblem, RouterHello, SessionLimits, Welcome};
use crate::convert::limits::BATCH_MESSAGES_MAX;
use crate::convert::{ConvertError, Field, Wire};
use crate::generated as wire;
use crate::generated::router_message::Body as RouterBody;
use crate::generated::worker_message::Body as WorkerBody;
use crate::status::status_of;

/// How long to wait before a full inbox is tried again.
const INBOX_RETRY: Duration = Duration::from_millis(1);

/// The worker behind the sessions.
pub trait SessionHost: Send + Sync + 'static {
    /// What a router is told first.
    fn welcome(&self) -> Welcome;

    /// Takes in one message; never waits.
    ///
    /// # Errors
    /// `Busy` gives the message back: it is tried again for [`SessionLimits::inbox_wait`].
    fn accept(&self, message: ToWorker) -> Result<(), Refused>;
}

/// Why a host did not take a message.
#[derive(Debug, Clone, PartialEq)]
pub enum Refused {
    /// No room now.
    Busy(Box<ToWorker>),
    /// It will never be taken. Ends the leg; if the message began none, the session.
    Never(Failure),
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
    /// Told whenever legs or sessions end.
    ended: Notify,
}

impl Shared {
    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sessions {
    /// No session yet.
    #[must_use]
    pub fn new(limits: SessionLimits) -> Sessions {
        let table = Mutex::new(Table::new(limits.clone()));
        Sessions { shared: Arc::new(Shared { table, limits, ended: Notify::new() }) }
    }

    /// Sends messages to the routers of their legs, in order, one write per router. Never waits. Returns how many
    /// had no router any more because their leg was cancelled.
    pub fn tell(&self, messages: impl IntoIterator<Item = FromWorker>) -> usize {
        let orphans = self.shared.table().deliver(messages.into_iter());
        self.shared.ended.notify_waiters();
        orphans
    }

    /// Tells every router how full the worker is.
    pub fn load(&self, load: Load) {
        self.shared.table().publish(|status| status.load = load);
    }

    /// Tells every router which givers the worker can read from.
    pub fn pairs(&self, pairs: Vec<Pair>, problems: Vec<PairProblem>) {
        self.shared.table().publish(|status| (status.pairs, status.problems) = (pairs, problems));
    }

    /// From now on new legs are refused; those that run go on.
    pub fn drain(&self) {
        self.shared.table().drain();
    }

    /// Whether this leg came through a session and has not ended.
    #[must_use]
    pub fn runs(&self, leg: Leg) -> bool {
        self.shared.table().runs(leg)
    }

    /// Legs that have not ended.
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
            // Registered before the check, so that no end between check and wait is missed.
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
}

impl<H> Clone for WorkerService<H> {
    fn clone(&self) -> Self {
        WorkerService { host: self.host.clone(), sessions: self.sessions.clone() }
    }
}

impl<H: SessionHost> WorkerService<H> {
    /// A service whose answers go through `sessions`.
    pub fn new(host: Arc<H>, sessions: Sessions) -> WorkerService<H> {
        WorkerService { host, sessions }
    }

    async fn read(self, id: SessionId, mut inbound: Streaming<wire::RouterMessage>, queue: Queue) {
        loop {
            let message = tokio::select! {
                message = inbound.message() => message,
                () = queue.closed() => break,
                () = queue.ending.notified() => break,
            };
            // A broken stream and a finished one mean the same: the router is not there any more.
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

    /// Registers what begins, passes it on, unregisters what ends. An error ends the session.
    async fn take(&self, id: SessionId, message: ToWorker) -> Result<(), Failure> {
        let begins = request_of(&message).map(|request| request.leg);
        if let Some(request) = request_of(&message) {
            let mut table = self.sessions.shared.table();
            if let Err(failure) = table.begin(id, request) {
                table.refuse(id, request.leg, failure);
                return Ok(());
            }
        }
        let ends = Ends::of(&message);
        if let Err(failure) = self.pass(message).await {
            let leg = begins.ok_or(failure.clone())?;
            self.sessions.tell([FromWorker::Failed { leg, failure }]);
            return Ok(());
        }
        self.settle(ends);
        Ok(())
    }

    fn settle(&self, ends: Ends) {
        {
            let mut table = self.sessions.shared.table();
            match ends {
                Ends::Nothing => return,
                Ends::Leg(leg) => table.end_leg(leg),
                Ends::Choices(leg, choices) => choices.into_iter().for_each(|choice| table.end_choice(leg, choice)),
            }
        }
        self.sessions.shared.ended.notify_waiters();
    }

    /// Gives one message to the host, waiting a bounded time for room.
    async fn pass(&self, mut message: ToWorker) -> Result<(), Failure> {
        let limit = self.sessions.shared.limits.inbox_wait;
        let deadline = Instant::now() + limit;
        loop {
            message = match self.host.accept(message) {
                Ok(()) => return Ok(()),
                Err(Refused::Stopped) => return Err(Failure::new(FailureKind::WorkerLost, "the worker has stopped")),
                Err(Refused::Never(failure)) => return Err(failure),
                Err(Refused::Busy(message)) => *message,
            };
            if Instant::now() >= deadline {
                let detail = format!("the worker's inbox was full for {limit:?}");
                return Err(Failure::new(FailureKind::Overloaded, detail));
            }
            sleep(INBOX_RETRY).await;
        }
    }

    async fn close(&self, id: SessionId, queue: &Queue) {
        let legs = self.sessions.shared.table().close(id);
        match legs.len() {
            0 => tracing::debug!("a router's session has ended"),
            legs => tracing::info!(legs, "a router's session has ended; its legs are cancelled"),
        }
        for leg in legs {
            if let Err(failure) = self.pass(ToWorker::Cancel { leg, choice: None }).await {
                tracing::warn!(%leg, %failure, "a leg was not cancelled; its request lease will end it");
            }
        }
        queue.end(Failure::new(FailureKind::WorkerLost, "the session is over"));
        self.sessions.shared.ended.notify_waiters();
    }

    async fn begin(&self, mut inbound: Streaming<wire::RouterMessage>) -> Result<Response<WorkerStream>, Failure> {
        let limit = self.sessions.shared.limits.handshake;
        let first = timeout(limit, inbound.message()).await;
        let first = first.map_err(|_| protocol(format!("no hello within {limit:?}")))?;
        let hello = hello_of(first.map_err(|status| protocol(status.message().to_owned()))?)?;
        let (id, queue, reader) = self.sessions.shared.table().open();
        tracing::debug!(router = %hello.router, "a router has connected");
        tokio::spawn(self.clone().read(id, inbound, queue));
        Ok(Response::new(WorkerStream::new(&self.host.welcome(), reader)))
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
        Box::pin(async move { self.begin(request.into_inner()).await.map_err(|failure| status_of(&failure)) })
    }
}

/// What a message of the router ends in the table.
enum Ends {
    Nothing,
    Leg(Leg),
    Choices(Leg, Vec<sched::Choice>),
}

impl Ends {
    fn of(message: &ToWorker) -> Ends {
        match message {
            ToWorker::Submit(..) | ToWorker::Offer(_) | ToWorker::Renew(_) => Ends::Nothing,
            ToWorker::Cancel { leg, choice: None } => Ends::Leg(*leg),
            ToWorker::Cancel { leg, choice: Some(choice) } => Ends::Choices(*leg, vec![*choice]),
            ToWorker::Commit(commit) => {
                let ended = commit.firsts.iter().filter(|first| first.ended.is_some());
                Ends::Choices(commit.leg, ended.map(|first| first.choice).collect())
            }
        }
    }
}

fn request_of(message: &ToWorker) -> Option<&Request> {
    match message {
        ToWorker::Submit(request, _) => Some(request),
        ToWorker::Offer(offer) => Some(&offer.request),
        ToWorker::Commit(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => None,
    }
}

fn batch_of(message: wire::RouterMessage) -> Result<Vec<wire::ToWorker>, ConvertError> {
    let batch = match Field("RouterMessage", "body").required(message.body)? {
        RouterBody::Hello(_) => return Err(Field("RouterMessage", "hello").error(crate::Problem::Unexpected)),
        RouterBody::Batch(batch) => batch.messages,
    };
    Field("RouterBatch", "messages").at_most(batch.len(), BATCH_MESSAGES_MAX)?;
    Ok(batch)
}

fn hello_of(first: Option<wire::RouterMessage>) -> Result<RouterHello, Failure> {
    let Some(RouterBody::Hello(hello)) = first.and_then(|message| message.body) else {
        return Err(protocol("the router's first message is no hello".to_owned()));
    };
    if hello.version != crate::VERSION {
        let detail = format!("the router speaks version {}, this worker {}", hello.version, crate::VERSION);
        return Err(Failure::new(FailureKind::Incompatible, detail));
    }
    RouterHello::from_wire(hello).map_err(Failure::from)
}

fn protocol(detail: String) -> Failure {
    Failure::new(FailureKind::InvalidRequest, detail)
}

/// The worker's half: a welcome, then batches and statuses until the session ends.
pub struct WorkerStream {
    welcome: Option<wire::Welcome>,
    queue: QueueReader,
    /// Taken from the queue, not yet in a batch.
    pending: VecDeque<FromWorker>,
    /// Came after messages that have to be written first.
    next: Option<Outgoing>,
    over: bool,
}

impl WorkerStream {
    fn new(welcome: &Welcome, queue: QueueReader) -> WorkerStream {
        WorkerStream { welcome: Some(welcome.to_wire()), queue, pending: VecDeque::new(), next: None, over: false }
    }

    /// Fills a batch with everything that is ready.
    fn fill(&mut self, cx: &mut Context<'_>) -> Option<Vec<wire::FromWorker>> {
        let mut batch = Batch::new();
        while !batch.is_full() {
            if let Some(message) = self.pending.pop_front() {
                self.queue.written(1);
                batch.push(message.to_wire());
            } else if self.next.is_some() {
                break;
            } else {
                match self.queue.receiver.poll_recv(cx) {
                    Poll::Ready(Some(Outgoing::Messages(messages))) => self.pending.extend(messages),
                    Poll::Ready(Some(other)) => self.next = Some(other),
                    Poll::Ready(None) => self.next = Some(Outgoing::End(protocol("the session is over".to_owned()))),
                    Poll::Pending => break,
                }
            }
        }
        batch.take()
    }
}

impl Stream for WorkerStream {
    type Item = Result<wire::WorkerMessage, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Some(welcome) = self.welcome.take() {
            return Poll::Ready(Some(Ok(message(WorkerBody::Welcome(welcome)))));
        }
        if self.over {
            return Poll::Ready(None);
        }
        if let Some(messages) = self.fill(cx) {
            return Poll::Ready(Some(Ok(message(WorkerBody::Batch(wire::WorkerBatch { messages })))));
        }
        match self.next.take() {
            // Taken only now, so that what changed while earlier messages were written is in it.
            Some(Outgoing::Status) => match self.queue.status() {
                Some(status) => Poll::Ready(Some(Ok(message(WorkerBody::Status(status.to_wire()))))),
                None => {
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Some(Outgoing::End(failure)) => {
                self.over = true;
                Poll::Ready(Some(Err(status_of(&failure))))
            }
            Some(Outgoing::Messages(_)) | None => Poll::Pending,
        }
    }
}

fn message(body: WorkerBody) -> wire::WorkerMessage {
    wire::WorkerMessage { body: Some(body) }
}
