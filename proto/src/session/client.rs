//! The router's end of a session.

use sched::message::ToWorker;
use sched::{Failure, FailureKind};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Status, Streaming};

use super::batch::CommandStream;
use super::{EndReason, RouterHello, SessionEnded, SessionLimits, Welcome, WorkerUpdate};
use crate::convert::limits::{BATCH_MESSAGES_MAX, MESSAGE_BYTES_MAX};
use crate::convert::{ConvertError, Field, Wire};
use crate::generated as wire;
use crate::generated::worker_client::WorkerClient;
use crate::generated::worker_message::Body;
use crate::random;
use crate::secret::{Meeting, Secret, Side};
use crate::status::failure_of;

/// A session that has begun.
#[derive(Debug)]
pub struct Session {
    /// Welcome of the worker.
    pub welcome: Welcome,
    /// Sender of messages to the worker. The session ends when every clone is dropped.
    pub commands: Commands,
    /// Receiver of updates from the worker. The session ends when it is dropped.
    pub updates: Updates,
}

/// Sender of messages to a worker; clones share the queue.
#[derive(Debug, Clone)]
pub struct Commands {
    queue: mpsc::Sender<ToWorker>,
}

/// Reason for which a message was not queued.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SendError {
    /// The session's queue is full.
    #[error("the session's queue is full: the worker reads too slowly")]
    Full,
    /// The session is over.
    #[error("the session is over")]
    Ended,
}

impl Commands {
    /// Queues a message; never waits.
    ///
    /// # Errors
    /// `Full` and `Ended`; the message is not sent.
    pub fn send(&self, message: ToWorker) -> Result<(), SendError> {
        self.queue.try_send(message).map_err(|error| match error {
            mpsc::error::TrySendError::Full(_) => SendError::Full,
            mpsc::error::TrySendError::Closed(_) => SendError::Ended,
        })
    }
}

/// Receiver of the worker's updates.
#[derive(Debug)]
pub struct Updates {
    stream: Streaming<wire::WorkerMessage>,
    ended: Option<SessionEnded>,
}

impl Updates {
    /// Waits for the next update; `Ended` for ever once the session is over. The future may be dropped while it waits.
    pub async fn next(&mut self) -> WorkerUpdate {
        if let Some(ended) = &self.ended {
            return WorkerUpdate::Ended(ended.clone());
        }
        match self.read().await {
            Ok(update) => update,
            Err(reason) => {
                let ended = SessionEnded { reason };
                self.ended = Some(ended.clone());
                WorkerUpdate::Ended(ended)
            }
        }
    }

    async fn read(&mut self) -> Result<WorkerUpdate, EndReason> {
        let body = next_body(&mut self.stream).await?;
        update_from_wire(body).map_err(|error| EndReason::Protocol(error.to_string()))
    }
}

async fn next_body(stream: &mut Streaming<wire::WorkerMessage>) -> Result<Option<Body>, EndReason> {
    match stream.message().await {
        Ok(Some(message)) => Ok(message.body),
        Ok(None) => Err(EndReason::Closed),
        Err(status) => Err(reason_of(&status)),
    }
}

fn update_from_wire(body: Option<Body>) -> Result<WorkerUpdate, ConvertError> {
    Ok(match Field("WorkerMessage", "body").required(body)? {
        Body::Welcome(_) => return Err(Field("WorkerMessage", "welcome").error(crate::Problem::Unexpected)),
        Body::Challenge(_) => return Err(Field("WorkerMessage", "challenge").error(crate::Problem::Unexpected)),
        Body::Batch(batch) => {
            let messages = Field("WorkerBatch", "messages").take_all(batch.messages, BATCH_MESSAGES_MAX)?;
            WorkerUpdate::Messages(messages)
        }
        Body::Status(status) => WorkerUpdate::Status(Wire::from_wire(status)?),
    })
}

/// Converts a status: one without a failure in its details came from the connection, not from the worker.
fn reason_of(status: &Status) -> EndReason {
    if status.details().is_empty()
        && matches!(status.code(), Code::Unavailable | Code::Unknown | Code::Cancelled | Code::Internal)
    {
        return EndReason::Lost(describe(status));
    }
    EndReason::Failed(failure_of(status))
}

/// Text of a status with its causes: tonic has the useful part ("connection refused") in the chain of sources.
pub(crate) fn describe(status: &Status) -> String {
    with_causes(status.message().to_owned(), std::error::Error::source(status))
}

/// Connects to the worker at `address` (`host:port`), says hello, and waits for its welcome once both have proved that
/// they know `secret`. A worker that does not know it learns only the router's instance.
///
/// # Errors
/// The session does not begin: `Lost` without an answer in time, `Failed` if the worker refuses (version, secret) or
/// does not know the secret, `Protocol` if its answer is invalid or of another version.
pub async fn connect(
    address: &str,
    hello: &RouterHello,
    secret: &Secret,
    limits: &SessionLimits,
) -> Result<Session, SessionEnded> {
    match timeout(limits.handshake, open(address, hello, secret, limits)).await {
        Ok(opened) => opened.map_err(|reason| SessionEnded { reason }),
        Err(_) => {
            let reason = EndReason::Lost(format!("{address} did not welcome us within {:?}", limits.handshake));
            Err(SessionEnded { reason })
        }
    }
}

async fn open(
    address: &str,
    hello: &RouterHello,
    secret: &Secret,
    limits: &SessionLimits,
) -> Result<Session, EndReason> {
    let channel = dial(address, limits).await.map_err(EndReason::Lost)?;
    let nonce: [u8; 16] = random::bytes().map_err(EndReason::Failed)?;
    let (prove, proof) = oneshot::channel();
    let (sender, queue) = mpsc::channel(limits.queue_messages_max);
    let mut client = WorkerClient::new(channel)
        .max_decoding_message_size(MESSAGE_BYTES_MAX)
        .max_encoding_message_size(MESSAGE_BYTES_MAX);
    let said =
        wire::RouterHello { version: crate::VERSION, router: Some(hello.router.to_wire()), nonce: nonce.to_vec() };
    let answer = client.session(CommandStream::new(said, proof, queue)).await;
    let mut stream = answer.map_err(|status| reason_of(&status))?.into_inner();
    let challenge = challenge_of(next_body(&mut stream).await?)?;
    // If the stream is gone, the next read reports it.
    let _ = prove.send(answer_to(&challenge, hello, &nonce, secret)?);
    let welcome = welcome_of(next_body(&mut stream).await?)?;
    Ok(Session { welcome, commands: Commands { queue: sender }, updates: Updates { stream, ended: None } })
}

/// Returns the worker's challenge; a worker of another version may answer the hello with a welcome.
fn challenge_of(body: Option<Body>) -> Result<wire::Challenge, EndReason> {
    let (theirs, challenge) = match body {
        Some(Body::Challenge(challenge)) => (challenge.version, Some(challenge)),
        Some(Body::Welcome(welcome)) => (welcome.version, None),
        Some(Body::Batch(_) | Body::Status(_)) | None => (0, None),
    };
    match challenge {
        Some(challenge) if theirs == crate::VERSION => Ok(challenge),
        _ if theirs == 0 || theirs == crate::VERSION => {
            Err(EndReason::Protocol("the worker's first message is no challenge".to_owned()))
        }
        _ => Err(EndReason::Protocol(format!("the worker speaks version {theirs}, this router {}", crate::VERSION))),
    }
}

fn answer_to(
    challenge: &wire::Challenge,
    hello: &RouterHello,
    nonce: &[u8],
    secret: &Secret,
) -> Result<wire::RouterProof, EndReason> {
    let worker = Field("Challenge", "instance").take(challenge.instance);
    let worker = worker.map_err(|error| EndReason::Protocol(error.to_string()))?;
    let meeting = Meeting { client: hello.router, server: worker, client_nonce: nonce, server_nonce: &challenge.nonce };
    if !secret.believes(Side::Worker, &meeting, b"", &challenge.proof) {
        let detail = "the worker's plane.secret is not this router's, or one of them has none";
        return Err(EndReason::Failed(Failure::new(FailureKind::Incompatible, detail)));
    }
    Ok(wire::RouterProof { proof: secret.prove(Side::Router, &meeting, b"") })
}

fn welcome_of(body: Option<Body>) -> Result<Welcome, EndReason> {
    let Some(Body::Welcome(welcome)) = body else {
        return Err(EndReason::Protocol("the worker does not welcome us".to_owned()));
    };
    Welcome::from_wire(welcome).map_err(|error| EndReason::Protocol(error.to_string()))
}

/// Opens a connection to `address` with keepalive, which notices a silent end.
pub(crate) async fn dial(address: &str, limits: &SessionLimits) -> Result<Channel, String> {
    let endpoint = Endpoint::from_shared(format!("http://{address}"))
        .map_err(|error| format!("{address} is not an address: {error}"))?
        .connect_timeout(limits.handshake)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(limits.keepalive_interval)
        .keep_alive_timeout(limits.keepalive_timeout)
        .keep_alive_while_idle(true);
    endpoint.connect().await.map_err(|error| format!("cannot connect to {address}: {}", chain(&error)))
}

fn chain(error: &dyn std::error::Error) -> String {
    with_causes(error.to_string(), error.source())
}

/// Appends causes to a text, each once: layers often repeat the text of those below.
fn with_causes(mut text: String, mut source: Option<&(dyn std::error::Error + 'static)>) -> String {
    while let Some(error) = source {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = if text.is_empty() { cause } else { format!("{text}: {cause}") };
        }
        source = error.source();
    }
    text
}
