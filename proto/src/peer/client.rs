//! The reader's end: one connection to one giver.

use std::time::Duration;

use sched::message::ReleaseAnswer;
use sched::{Failure, FailureKind, InstanceId, LeaseId};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Response, Status, Streaming};

use super::server::compare;
use super::{PeerHello, PeerWelcome};
use crate::convert::limits::{MESSAGE_BYTES_MAX, RENEW_MAX};
use crate::convert::{Field, Wire, leases_from_wire, leases_to_wire};
use crate::generated as wire;
use crate::generated::peer_client::PeerClient;
use crate::session::SessionLimits;
use crate::session::client::{describe, dial};
use crate::status::failure_of;

/// A giver that has been greeted; clones share the connection. Every call ends within its deadline.
#[derive(Debug, Clone)]
pub struct Peer {
    client: PeerClient<Channel>,
    giver: InstanceId,
    deadline: Duration,
}

/// Resolves when the giver's connection is gone.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<wire::WatchReply>,
}

/// Connects to the giver at `address` and compares before anything else of its answer is looked at.
///
/// # Errors
/// `WorkerLost` if nobody answers in time, `Incompatible` naming the part that differs, `InvalidRequest` for an
/// answer that means nothing.
pub async fn connect(address: &str, hello: &PeerHello, limits: &SessionLimits) -> Result<(Peer, PeerWelcome), Failure> {
    let lost = |detail: String| Failure::new(FailureKind::WorkerLost, detail);
    let channel = dial(address, limits).await.map_err(lost)?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let answer = bounded(limits.handshake, client.hello(hello.to_wire())).await?;
    let welcome = welcome_of(answer, hello)?;
    Ok((Peer { client, giver: welcome.instance, deadline: limits.handshake }, welcome))
}

fn welcome_of(answer: wire::PeerWelcome, hello: &PeerHello) -> Result<PeerWelcome, Failure> {
    if answer.version != crate::VERSION {
        let detail = format!("the giver speaks version {}, this reader {}", answer.version, crate::VERSION);
        return Err(Failure::new(FailureKind::Incompatible, detail));
    }
    let compat = Field("PeerWelcome", "compat").take(answer.compat.clone())?;
    compare(&compat, &hello.compat)?;
    PeerWelcome::from_wire(answer).map_err(Failure::from)
}

impl Peer {
    /// The giver's incarnation.
    #[must_use]
    pub fn giver(&self) -> InstanceId {
        self.giver
    }

    /// The same connection, but for an earlier incarnation: what is left to say to it is refused by name.
    #[must_use]
    pub fn as_if_greeted_by(&self, giver: InstanceId) -> Peer {
        Peer { giver, ..self.clone() }
    }

    /// Opens the stream that ends with the giver.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone or another incarnation answers.
    pub async fn watch(&self) -> Result<Watch, Failure> {
        let mut client = self.client.clone();
        let stream = bounded(self.deadline, client.watch(wire::WatchRequest { giver: self.us() })).await?;
        Ok(Watch { stream })
    }

    /// Asks whether the giver still answers.
    ///
    /// # Errors
    /// `WorkerLost` if it does not within `deadline`, whatever it answers otherwise.
    pub async fn ping(&self, deadline: Duration) -> Result<(), Failure> {
        // A renewal of nothing: every giver answers it, and nothing changes.
        let request = wire::RenewRequest { giver: self.us(), leases: Vec::new() };
        let mut client = self.client.clone();
        bounded(deadline, client.renew(request)).await.map(|_| ())
    }

    /// Renews leases; returns those that are gone.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone, whatever it answers otherwise.
    pub async fn renew(&self, leases: &[LeaseId]) -> Result<Vec<LeaseId>, Failure> {
        let mut gone = Vec::new();
        for part in leases.chunks(RENEW_MAX) {
            let request = wire::RenewRequest { giver: self.us(), leases: leases_to_wire(part) };
            let mut client = self.client.clone();
            gone.extend(leases_from_wire(bounded(self.deadline, client.renew(request)).await?.gone));
        }
        Ok(gone)
    }

    /// Tells the giver that everything has been read. May be repeated: the answer stays the same for a lease span.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone, whatever it answers otherwise.
    pub async fn release(&self, lease: LeaseId, deadline: Duration) -> Result<ReleaseAnswer, Failure> {
        let request = wire::ReleaseRequest { giver: self.us(), lease: lease.0 };
        let mut client = self.client.clone();
        let reply = bounded(deadline, client.release(request)).await?;
        ReleaseAnswer::from_wire(reply.answer).map_err(Failure::from)
    }

    /// Tells the giver that nothing will be read any more.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone, whatever it answers otherwise.
    pub async fn abort(&self, lease: LeaseId) -> Result<(), Failure> {
        let request = wire::AbortRequest { giver: self.us(), lease: lease.0 };
        let mut client = self.client.clone();
        bounded(self.deadline, client.abort(request)).await.map(|_| ())
    }

    fn us(&self) -> Option<wire::Instance> {
        Some(self.giver.to_wire())
    }
}

impl Watch {
    /// Waits for the end of the giver's connection and says how it ended.
    pub async fn ended(&mut self) -> String {
        loop {
            match self.stream.message().await {
                Ok(Some(wire::WatchReply {})) => {}
                Ok(None) => return "the giver has left".to_owned(),
                Err(status) => return describe(&status),
            }
        }
    }
}

/// One call with a deadline of our own; what the connection reports is a lost worker.
async fn bounded<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) if status.details().is_empty() => Err(Failure::new(FailureKind::WorkerLost, describe(&status))),
        Ok(Err(status)) => Err(failure_of(&status)),
        Err(_) => Err(Failure::new(FailureKind::WorkerLost, format!("no answer within {deadline:?}"))),
    }
}
