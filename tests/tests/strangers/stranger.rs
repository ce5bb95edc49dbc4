//! Client of the public contracts, written without the crates of this repository and without the secret.

use anyhow::{Context, Result};
use prost::Message;
use tokio_stream::StreamExt;
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_prost::ProstCodec;

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Instance {
    #[prost(fixed64, tag = "1")]
    pub high: u64,
    #[prost(fixed64, tag = "2")]
    pub low: u64,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Hello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub router: Option<Instance>,
    #[prost(bytes = "vec", tag = "3")]
    pub nonce: Vec<u8>,
}

/// Version of the plane's contracts.
pub const VERSION: u32 = 6;

impl Hello {
    pub fn new(version: u32) -> Hello {
        Hello { version, router: Some(Instance { high: 6, low: 66 }), nonce: vec![3; 16] }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Proof {
    #[prost(bytes = "vec", tag = "1")]
    pub proof: Vec<u8>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Leg {
    #[prost(fixed64, tag = "1")]
    pub request: u64,
    #[prost(uint32, tag = "2")]
    pub attempt: u32,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Cancel {
    #[prost(message, optional, tag = "1")]
    pub leg: Option<Leg>,
}

#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ToWorker {
    #[prost(message, optional, tag = "4")]
    pub cancel: Option<Cancel>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Batch {
    #[prost(message, repeated, tag = "1")]
    pub messages: Vec<ToWorker>,
}

impl Batch {
    pub fn cancel(cancel: Cancel) -> Batch {
        Batch { messages: vec![ToWorker { cancel: Some(cancel) }] }
    }
}

/// Message of a router.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Said {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<Hello>,
    #[prost(message, optional, tag = "2")]
    pub batch: Option<Batch>,
    #[prost(message, optional, tag = "3")]
    pub proof: Option<Proof>,
}

impl Said {
    pub fn hello(hello: Hello) -> Said {
        Said { hello: Some(hello), ..Said::default() }
    }

    pub fn batch(batch: Batch) -> Said {
        Said { batch: Some(batch), ..Said::default() }
    }

    pub fn proof(proof: Vec<u8>) -> Said {
        Said { proof: Some(Proof { proof }), ..Said::default() }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Challenge {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "2")]
    pub instance: Option<Instance>,
    #[prost(bytes = "vec", tag = "3")]
    pub nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "4")]
    pub proof: Vec<u8>,
}

/// Message of a worker; strangers get challenges only.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Heard {
    #[prost(message, optional, tag = "4")]
    pub challenge: Option<Challenge>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PeerHello {
    #[prost(uint32, tag = "1")]
    pub version: u32,
    #[prost(message, optional, tag = "3")]
    pub instance: Option<Instance>,
    #[prost(bytes = "vec", tag = "4")]
    pub nonce: Vec<u8>,
}

impl PeerHello {
    pub fn new(version: u32) -> PeerHello {
        PeerHello { version, instance: Some(Instance { high: 6, low: 67 }), nonce: vec![3; 16] }
    }
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct PeerProof {
    #[prost(message, optional, tag = "1")]
    pub hello: Option<PeerHello>,
    #[prost(bytes = "vec", tag = "2")]
    pub nonce: Vec<u8>,
    #[prost(bytes = "vec", tag = "6")]
    pub proof: Vec<u8>,
}

#[derive(Clone, PartialEq, Eq, Message)]
pub struct Caller {
    #[prost(message, optional, tag = "1")]
    pub reader: Option<Instance>,
    #[prost(fixed64, tag = "2")]
    pub meeting: u64,
    #[prost(uint64, tag = "3")]
    pub sequence: u64,
    #[prost(bytes = "vec", tag = "4")]
    pub proof: Vec<u8>,
}

/// Call about leases; the field with the caller's name depends on the method, so both are set.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct LeaseCall {
    #[prost(message, optional, tag = "1")]
    pub giver: Option<Instance>,
    #[prost(message, optional, tag = "3")]
    pub caller: Option<Caller>,
}

pub struct Stranger {
    grpc: Grpc<Channel>,
}

impl Stranger {
    pub async fn at(port: u16) -> Result<Stranger> {
        let channel = Endpoint::from_shared(format!("http://127.0.0.1:{port}"))?.connect().await?;
        Ok(Stranger { grpc: Grpc::new(channel) })
    }

    /// Sends all messages as a router; returns the answers until the worker ends the session.
    pub async fn session(&mut self, said: Vec<Said>) -> Result<(Vec<Heard>, Code), Status> {
        let open = tokio_stream::iter(said).chain(tokio_stream::pending());
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = http::uri::PathAndQuery::from_static("/baton.v1.Worker/Session");
        let codec = ProstCodec::<Said, Heard>::default();
        let mut heard = self.grpc.streaming(Request::new(open), path, codec).await?.into_inner();
        let mut all = Vec::new();
        loop {
            match heard.message().await {
                Ok(Some(message)) => all.push(message),
                Ok(None) => return Ok((all, Code::Ok)),
                Err(status) => return Ok((all, status.code())),
            }
        }
    }

    /// Sends a hello of the right version and then `said`; returns the challenge and the status at the end.
    pub async fn greeted(&mut self, said: Vec<Said>) -> Result<(Challenge, Code)> {
        let all = std::iter::once(Said::hello(Hello::new(VERSION))).chain(said).collect();
        let (heard, end) = self.session(all).await?;
        anyhow::ensure!(heard.len() == 1, "a stranger was told {heard:?}");
        let challenge = heard.into_iter().next().and_then(|heard| heard.challenge).context("a challenge")?;
        Ok((challenge, end))
    }

    /// Sends the worker's own proof back to it.
    pub async fn mirrored(&mut self, then: Batch) -> Result<(Challenge, Code)> {
        let (say, said) = tokio::sync::mpsc::channel(4);
        say.send(Said::hello(Hello::new(VERSION))).await?;
        self.grpc.ready().await?;
        let path = http::uri::PathAndQuery::from_static("/baton.v1.Worker/Session");
        let (codec, said) = (ProstCodec::<Said, Heard>::default(), tokio_stream::wrappers::ReceiverStream::new(said));
        let mut heard = self.grpc.streaming(Request::new(said), path, codec).await?.into_inner();
        let challenge = heard.message().await?.and_then(|heard| heard.challenge).context("a challenge")?;
        say.send(Said::proof(challenge.proof.clone())).await?;
        // The session may be over before this is sent.
        let _ = say.send(Said::batch(then)).await;
        match heard.message().await {
            Ok(more) => anyhow::bail!("a stranger was told {more:?}"),
            Err(status) => Ok((challenge, status.code())),
        }
    }

    /// Makes one call to the service that readers use.
    pub async fn call<Q, A>(&mut self, method: &str, request: Q) -> Result<A, Status>
    where
        Q: Message + 'static,
        A: Message + Default + 'static,
    {
        self.grpc.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let path = format!("/baton.v1.Peer/{method}").parse::<http::uri::PathAndQuery>();
        let path = path.map_err(|error| Status::internal(error.to_string()))?;
        let answer = self.grpc.unary(Request::new(request), path, ProstCodec::<Q, A>::default()).await?;
        Ok(answer.into_inner())
    }
}
