//! The giver's end: meets readers that know the secret, then passes on words about leases, both ways.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use prost::Message;
use sched::compat::CompatParts;
use sched::message::{ToGiver, ToReader};
use sched::{Failure, FailureKind, InstanceId, Span};
use tokio_stream::Stream;
use tonic::{Code, Request, Response, Status};

pub use super::listeners::Listeners;
use super::listeners::Words;
use super::signed::{Readers, Signed};
use super::{PeerWelcome, WELCOME};
use crate::convert::limits::WORKER_NAME_BYTES_MAX;
use crate::convert::{Field, Wire};
use crate::generated as wire;
use crate::listen::Pass;
use crate::random;
use crate::secret::{Meeting, Secret, Side};
use crate::status::status_of;
use crate::turned_away::{Complaints, TurnedAway};

const CHALLENGE_AGE_MAX: Duration = Duration::from_secs(5);

/// The giver behind the service.
pub trait PeerHost: Send + Sync + 'static {
    /// Returns the incarnation and compatibility of this giver.
    fn identity(&self) -> Identity;

    /// Returns the welcome for a compatible reader that has proved itself.
    ///
    /// # Errors
    /// No reader can be welcomed now.
    fn welcome(&self, reader: InstanceId) -> Result<PeerWelcome, Failure>;

    /// Accepts a word of a reader; never waits. An answer goes through [`Listeners`].
    ///
    /// # Errors
    /// The word cannot be accepted now.
    fn hear(&self, reader: InstanceId, word: ToGiver) -> Result<(), Failure>;

    /// Waits until this giver leaves in good order, which ends watches, so that readers need no timeout to notice.
    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static;

    /// Counts a caller that was turned away.
    fn turned_away(&self, _why: TurnedAway) {}
}

/// Facts of a giver that are checked before it welcomes a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Incarnation of the giver.
    pub instance: InstanceId,
    /// Compatibility of its KV cache.
    pub compat: CompatParts,
    /// Time after which a lease that its reader has not renewed ends.
    pub lease_span: Span,
}

/// Serves readers for a host.
pub struct PeerService<H> {
    host: Arc<H>,
    secret: Secret,
    readers: Readers,
    listeners: Listeners,
    began: Instant,
    complaints: Complaints,
}

impl<H: PeerHost> PeerService<H> {
    /// Returns a service for readers that know `secret`; `listeners` carry the words of `host` to them.
    pub fn new(host: Arc<H>, listeners: Listeners, secret: Secret) -> PeerService<H> {
        let (readers, complaints) = (Readers::default(), Complaints::default());
        PeerService { host, secret, readers, listeners, began: Instant::now(), complaints }
    }

    /// Answers a hello without keeping state: the reader sends everything back with its proof.
    fn challenge(&self, hello: &wire::PeerHello) -> Result<wire::Challenge, Failure> {
        let (reader, reader_nonce) = greeter(hello)?;
        let giver = self.host.identity().instance;
        let issued = self.began.elapsed().as_micros() as u64;
        let nonce = [issued.to_le_bytes().as_slice(), &random::bytes::<16>()?].concat();
        let meeting = Meeting { client: reader, server: giver, client_nonce: &reader_nonce, server_nonce: &nonce };
        let proof = self.secret.prove(Side::Giver, &meeting, b"");
        Ok(wire::Challenge { version: crate::VERSION, instance: Some(giver.to_wire()), nonce, proof })
    }

    fn greet(&self, mut said: wire::PeerProof, pass: Option<&Pass>) -> Result<wire::PeerWelcome, Status> {
        let proof = std::mem::take(&mut said.proof);
        let fault = |failure: Failure| status_of(&failure);
        let hello = said.hello.clone().ok_or_else(|| Status::unauthenticated(DIFFERENT_SECRET))?;
        let (reader, reader_nonce) = greeter(&hello).map_err(fault)?;
        let Identity { instance, compat, lease_span } = self.host.identity();
        let nonce = said.nonce.clone();
        let meeting = Meeting { client: reader, server: instance, client_nonce: &reader_nonce, server_nonce: &nonce };
        if !self.is_fresh(&nonce) || !self.secret.believes(Side::Reader, &meeting, &said.encode_to_vec(), &proof) {
            return Err(Status::unauthenticated(DIFFERENT_SECRET));
        }
        let key = self.secret.key_of(&meeting);
        self.readers.meet(reader, reader_nonce, key.clone())?;
        if let Some(pass) = pass {
            pass.admit();
        }
        let name = Field("PeerProof", "name").text(said.name, WORKER_NAME_BYTES_MAX);
        let name = name.map_err(|error| fault(error.into()))?;
        let theirs = Field("PeerProof", "compat").take(said.compat).map_err(|error| fault(error.into()))?;
        compare(&compat, &theirs).map_err(fault)?;
        renews_in_time(Span(said.lease_beat_us), lease_span).map_err(fault)?;
        tracing::debug!(reader = name, "a reader has introduced itself");
        let mut welcome = self.host.welcome(reader).map_err(fault)?.to_wire();
        welcome.proof = key.sign(WELCOME, &welcome.encode_to_vec());
        Ok(welcome)
    }

    /// Whether a challenge is recent. The reader's proof covers the nonce, and so shows that this giver made it.
    fn is_fresh(&self, nonce: &[u8]) -> bool {
        let issued = nonce.first_chunk().map(|issued| Duration::from_micros(u64::from_le_bytes(*issued)));
        let now = self.began.elapsed();
        issued.is_some_and(|issued| issued <= now && now - issued <= CHALLENGE_AGE_MAX)
    }

    /// Returns the reader that calls. A call for an earlier incarnation of this giver must not touch its leases.
    fn caller<R: Signed>(
        &self,
        request: &mut R,
        giver: impl Fn(&R) -> Option<wire::Instance>,
    ) -> Result<InstanceId, Status> {
        let reader = self.readers.caller(request).inspect_err(|status| self.complain(status))?;
        let meant: InstanceId =
            Field("request", "giver").take(giver(request)).map_err(|error| status_of(&error.into()))?;
        let ours = self.host.identity().instance;
        if meant == ours {
            return Ok(reader);
        }
        let detail = format!("the giver {meant} is gone; this is {ours}");
        Err(status_of(&Failure::new(FailureKind::WorkerLost, detail)))
    }

    fn complain(&self, status: &Status) {
        if status.code() == Code::Unauthenticated {
            self.host.turned_away(TurnedAway::Stranger);
            self.complaints.log(TurnedAway::Stranger, status.message());
        }
    }

    fn watched(&self, mut request: wire::WatchRequest) -> Result<WatchStream, Status> {
        let reader = self.caller(&mut request, |request| request.giver)?;
        Ok(WatchStream { words: self.listeners.listen(reader), leaving: Box::pin(self.host.leaving()) })
    }

    fn said(&self, mut request: wire::SayRequest) -> Result<wire::SayReply, Status> {
        let reader = self.caller(&mut request, |request| request.giver)?;
        let word = Field("SayRequest", "word").take(request.word).map_err(|error| status_of(&error.into()))?;
        match word {
            // A ping: the answer is all that it asks for.
            ToGiver::Renew(leases) if leases.is_empty() => {}
            word => self.host.hear(reader, word).map_err(|failure| status_of(&failure))?,
        }
        Ok(wire::SayReply {})
    }
}

const DIFFERENT_SECRET: &str = "the reader's plane.secret is not this giver's, or one of them has none";

/// Returns the reader of a hello and its nonce, if it speaks this version.
fn greeter(hello: &wire::PeerHello) -> Result<(InstanceId, [u8; 16]), Failure> {
    if hello.version != crate::VERSION {
        let detail = format!("the reader speaks version {}, this giver {}", hello.version, crate::VERSION);
        return Err(Failure::new(FailureKind::Incompatible, detail));
    }
    let reader = Field("PeerHello", "instance").take(hello.instance)?;
    Ok((reader, Field("PeerHello", "nonce").exactly(&hello.nonce)?))
}

/// Checks that leases outlive one lost heartbeat.
fn renews_in_time(beat: Span, span: Span) -> Result<(), Failure> {
    if beat > Span::ZERO && beat.us().saturating_mul(2) <= span.us() {
        return Ok(());
    }
    let (beat_s, span_s) = (beat.secs_f64(), span.secs_f64());
    let detail = format!(
        "the reader renews its leases every {beat_s} s (lease_beat_ms), this giver ends them after {span_s} s without \
         (lease_span_ms): the beat must be at most half of the span"
    );
    Err(Failure::new(FailureKind::Incompatible, detail))
}

/// Checks compatibility; the error names the part that differs, from the reader's point of view.
pub(super) fn compare(giver: &CompatParts, reader: &CompatParts) -> Result<(), Failure> {
    match reader.difference(giver) {
        None => Ok(()),
        Some(difference) => {
            let detail = format!("the reader cannot use the giver's KV cache: {difference}");
            Err(Failure::new(FailureKind::Incompatible, detail))
        }
    }
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

impl<H: PeerHost> wire::peer_server::Peer for PeerService<H> {
    type WatchStream = WatchStream;

    fn hello<'a, 'b>(&'a self, request: Request<wire::PeerHello>) -> Answer<'b, wire::Challenge>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let challenge = self.challenge(request.get_ref());
            challenge.map(Response::new).map_err(|failure| status_of(&failure))
        })
    }

    fn meet<'a, 'b>(&'a self, request: Request<wire::PeerProof>) -> Answer<'b, wire::PeerWelcome>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let pass = request.extensions().get::<Pass>().cloned();
            let met = self.greet(request.into_inner(), pass.as_ref());
            met.inspect_err(|status| self.complain(status)).map(Response::new)
        })
    }

    fn watch<'a, 'b>(&'a self, request: Request<wire::WatchRequest>) -> Answer<'b, WatchStream>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.watched(request.into_inner()).map(Response::new) })
    }

    fn say<'a, 'b>(&'a self, request: Request<wire::SayRequest>) -> Answer<'b, wire::SayReply>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { self.said(request.into_inner()).map(Response::new) })
    }
}

/// Stream of words to one reader, until the giver leaves.
pub struct WatchStream {
    words: Words,
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for WatchStream {
    type Item = Result<wire::ToReader, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if let Poll::Ready(word) = self.words.poll_recv(cx) {
            return Poll::Ready(word.map(|word: ToReader| Ok(word.to_wire())));
        }
        self.leaving.as_mut().poll(cx).map(|()| None)
    }
}
