//! The reader's end: one connection to one giver.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sched::message::{ToGiver, ToReader};
use sched::{Failure, FailureKind, InstanceId};
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};

use super::server::compare;
use super::signed::Signer;
use super::{PeerHello, PeerWelcome, WELCOME};
use crate::convert::limits::{LEASES_MAX, MESSAGE_BYTES_MAX, NONCE_BYTES_MAX};
use crate::convert::{Field, Wire};
use crate::generated as wire;
use crate::generated::peer_client::PeerClient;
use crate::random;
use crate::secret::{Meeting, MeetingKey, Secret, Side};
use crate::session::SessionLimits;
use crate::session::client::{describe, dial};
use crate::status::failure_of;

/// A giver that was greeted; clones share the connection. Every call ends within its deadline.
#[derive(Debug, Clone)]
pub struct Peer {
    client: PeerClient<Channel>,
    giver: InstanceId,
    signer: Arc<Signer>,
    deadline: Duration,
}

/// Stream of the giver's words to this reader, until the connection is gone.
#[derive(Debug)]
pub struct Watch {
    stream: Streaming<wire::ToReader>,
}

/// Connects to the giver at `address`. Both prove that they know `secret` before the welcome is parsed.
///
/// # Errors
/// `WorkerLost` without an answer in time, `Incompatible` with the part that differs (the secret is one),
/// `InvalidRequest` for an invalid answer.
pub async fn connect(
    address: &str,
    hello: &PeerHello,
    secret: &Secret,
    limits: &SessionLimits,
) -> Result<(Peer, PeerWelcome), Failure> {
    let lost = |detail: String| Failure::new(FailureKind::WorkerLost, detail);
    let channel = dial(address, limits).await.map_err(lost)?;
    let mut client = PeerClient::new(channel).max_decoding_message_size(MESSAGE_BYTES_MAX);
    let nonce: [u8; 16] = random::bytes()?;
    let (version, reader) = (crate::VERSION, hello.instance);
    let said = wire::PeerHello { version, instance: Some(reader.to_wire()), nonce: nonce.to_vec() };
    let challenge = bounded(limits.handshake, client.hello(said.clone())).await?;
    let giver = giver_of(&challenge)?;
    let meeting = Meeting { client: reader, server: giver, client_nonce: &nonce, server_nonce: &challenge.nonce };
    if !secret.believes(Side::Giver, &meeting, b"", &challenge.proof) {
        return Err(Failure::new(FailureKind::Incompatible, DIFFERENT_SECRET));
    }
    let answer = bounded(limits.handshake, client.meet(proof_of(said, &challenge, hello, secret, &meeting))).await?;
    let key = secret.key_of(&meeting);
    let welcome = welcome_of(answer, hello, giver, &key)?;
    let signer = Arc::new(Signer::new(reader, nonce, key));
    Ok((Peer { client, giver, signer, deadline: limits.handshake }, welcome))
}

const DIFFERENT_SECRET: &str = "the giver's plane.secret is not this reader's, or one of them has none";

fn giver_of(challenge: &wire::Challenge) -> Result<InstanceId, Failure> {
    if challenge.version != crate::VERSION {
        let detail = format!("the giver speaks version {}, this reader {}", challenge.version, crate::VERSION);
        return Err(Failure::new(FailureKind::Incompatible, detail));
    }
    Field("Challenge", "nonce").at_most(challenge.nonce.len(), NONCE_BYTES_MAX)?;
    Ok(Field("Challenge", "instance").take(challenge.instance)?)
}

fn proof_of(
    said: wire::PeerHello,
    challenge: &wire::Challenge,
    hello: &PeerHello,
    secret: &Secret,
    meeting: &Meeting<'_>,
) -> wire::PeerProof {
    let mut proof = wire::PeerProof {
        hello: Some(said),
        nonce: challenge.nonce.clone(),
        compat: Some(hello.compat.to_wire()),
        lease_beat_us: hello.lease_beat.us(),
        name: hello.name.clone(),
        proof: Vec::new(),
    };
    proof.proof = secret.prove(Side::Reader, meeting, &proof.encode_to_vec());
    proof
}

/// Returns the welcome if it is the challenger's, unaltered: its endpoints go to parsers that trust their input.
fn welcome_of(
    mut answer: wire::PeerWelcome,
    hello: &PeerHello,
    giver: InstanceId,
    key: &MeetingKey,
) -> Result<PeerWelcome, Failure> {
    let proof = std::mem::take(&mut answer.proof);
    if !key.believes(WELCOME, &answer.encode_to_vec(), &proof) {
        return Err(Failure::new(FailureKind::Incompatible, "the giver does not prove that its welcome is its own"));
    }
    let welcome = PeerWelcome::from_wire(answer)?;
    if welcome.instance != giver {
        let detail = format!("{giver} answers as {}", welcome.instance);
        return Err(Failure::new(FailureKind::InvalidRequest, detail));
    }
    compare(&welcome.compat, &hello.compat)?;
    Ok(welcome)
}

impl Peer {
    /// Returns the giver's incarnation.
    #[must_use]
    pub fn giver(&self) -> InstanceId {
        self.giver
    }

    /// Returns the same connection with another incarnation as receiver: the giver refuses words for it.
    #[must_use]
    pub fn as_if_greeted_by(&self, giver: InstanceId) -> Peer {
        Peer { giver, ..self.clone() }
    }

    /// Opens the stream of the giver's words, which ends with the giver.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone or another incarnation answers.
    pub async fn watch(&self) -> Result<Watch, Failure> {
        let request = wire::WatchRequest { giver: Some(self.giver.to_wire()), caller: None };
        let mut client = self.client.clone();
        let stream = bounded(self.deadline, client.watch(self.signer.sign(request))).await?;
        Ok(Watch { stream })
    }

    /// Asks whether the giver still answers.
    ///
    /// # Errors
    /// `WorkerLost` without an answer within `deadline`, otherwise the failure that it answers.
    pub async fn ping(&self, deadline: Duration) -> Result<(), Failure> {
        // A renewal without leases changes nothing at the giver.
        self.say(&ToGiver::Renew(Vec::new()), deadline).await
    }

    /// Sends a word to the giver; an answer comes over the watch. Every word may be repeated.
    ///
    /// # Errors
    /// `WorkerLost` if the giver is gone or does not reply within `deadline`, otherwise the failure that it replies.
    pub async fn say(&self, word: &ToGiver, deadline: Duration) -> Result<(), Failure> {
        match word {
            ToGiver::Renew(leases) if leases.len() > LEASES_MAX => {
                for part in leases.chunks(LEASES_MAX) {
                    self.call(&ToGiver::Renew(part.to_vec()), deadline).await?;
                }
                Ok(())
            }
            word => self.call(word, deadline).await,
        }
    }

    async fn call(&self, word: &ToGiver, deadline: Duration) -> Result<(), Failure> {
        let request = wire::SayRequest { giver: Some(self.giver.to_wire()), word: Some(word.to_wire()), caller: None };
        let mut client = self.client.clone();
        bounded(deadline, client.say(self.signer.sign(request))).await.map(|_| ())
    }
}

impl Watch {
    /// Waits for the next word.
    ///
    /// # Errors
    /// The reason for which the connection has ended, or the fault of an invalid word.
    pub async fn next(&mut self) -> Result<ToReader, String> {
        match self.stream.message().await {
            Ok(Some(word)) => ToReader::from_wire(word).map_err(|error| error.to_string()),
            Ok(None) => Err("the giver has left".to_owned()),
            Err(status) => Err(describe(&status)),
        }
    }
}

/// Makes a call with a deadline; errors of the connection become `WorkerLost`.
async fn bounded<T>(deadline: Duration, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
    match timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        // Has no details, so that strangers learn nothing; it means that the secrets differ.
        Ok(Err(status)) if status.code() == Code::Unauthenticated => Err(failure_of(&status)),
        Ok(Err(status)) if status.details().is_empty() => Err(Failure::new(FailureKind::WorkerLost, describe(&status))),
        Ok(Err(status)) => Err(failure_of(&status)),
        Err(_) => Err(Failure::new(FailureKind::WorkerLost, format!("no answer within {deadline:?}"))),
    }
}
