//! The giver's end: compares, then passes on what readers say about leases.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use sched::compat::CompatParts;
use sched::message::ReleaseAnswer;
use sched::{Failure, FailureKind, InstanceId, LeaseId};
use tokio_stream::Stream;
use tonic::{Request, Response, Status};

use super::{PeerHello, PeerWelcome};
use crate::convert::limits::RENEW_MAX;
use crate::convert::{Field, Wire, leases_from_wire, leases_to_wire};
use crate::generated as wire;
use crate::status::status_of;

/// The giver behind the service.
pub trait PeerHost: Send + Sync + 'static {
    /// Who this giver is and what its KV cache is compatible with.
    fn identity(&self) -> Identity;

    /// A compatible reader has said hello: what it is told. Its data token is the only one that admits it from now on.
    ///
    /// # Errors
    /// Nobody can be welcomed now.
    fn welcome(&self, reader: InstanceId) -> Result<PeerWelcome, Failure>;

    /// Renews these leases; returns those that are gone.
    ///
    /// # Errors
    /// The replica cannot be asked now.
    fn renew(&self, leases: Vec<LeaseId>) -> Result<Vec<LeaseId>, Failure>;

    /// A reader has everything; resolves, within a bounded time, to the replica's answer.
    fn release(&self, lease: LeaseId) -> impl Future<Output = Result<ReleaseAnswer, Failure>> + Send;

    /// A reader gives up.
    ///
    /// # Errors
    /// The replica cannot be asked now.
    fn abort(&self, lease: LeaseId) -> Result<(), Failure>;

    /// Resolves when this giver leaves in good order: watches end, and readers know without a timeout.
    fn leaving(&self) -> impl Future<Output = ()> + Send + 'static;
}

/// What a giver is known by before it welcomes anybody.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its incarnation.
    pub instance: InstanceId,
    /// What its KV cache is compatible with.
    pub compat: CompatParts,
}

/// Serves readers for a host.
pub struct PeerService<H> {
    host: Arc<H>,
}

impl<H: PeerHost> PeerService<H> {
    /// A service in front of `host`.
    pub fn new(host: Arc<H>) -> PeerService<H> {
        PeerService { host }
    }

    fn greet(&self, hello: wire::PeerHello) -> Result<wire::PeerWelcome, Failure> {
        if hello.version != crate::VERSION {
            let detail = format!("the reader speaks version {}, this giver {}", hello.version, crate::VERSION);
            return Err(Failure::new(FailureKind::Incompatible, detail));
        }
        let hello = PeerHello::from_wire(hello)?;
        compare(&self.host.identity().compat, &hello.compat)?;
        Ok(self.host.welcome(hello.instance)?.to_wire())
    }

    /// A message for an earlier incarnation behind the same address must not touch leases of this one.
    fn meant_for_us(&self, giver: Option<wire::Instance>) -> Result<(), Failure> {
        let meant: InstanceId = Field("request", "giver").take(giver)?;
        let ours = self.host.identity().instance;
        if meant == ours {
            return Ok(());
        }
        Err(Failure::new(FailureKind::WorkerLost, format!("the giver {meant} is gone; this is {ours}")))
    }

    fn renewed(&self, request: wire::RenewRequest) -> Result<wire::RenewReply, Failure> {
        self.meant_for_us(request.giver)?;
        Field("RenewRequest", "leases").at_most(request.leases.len(), RENEW_MAX)?;
        let gone = self.host.renew(leases_from_wire(request.leases))?;
        Ok(wire::RenewReply { gone: leases_to_wire(&gone) })
    }

    async fn released(&self, request: wire::ReleaseRequest) -> Result<wire::ReleaseReply, Failure> {
        self.meant_for_us(request.giver)?;
        let answer = self.host.release(LeaseId(request.lease)).await?;
        Ok(wire::ReleaseReply { answer: answer.to_wire() })
    }

    fn aborted(&self, request: wire::AbortRequest) -> Result<wire::AbortReply, Failure> {
        self.meant_for_us(request.giver)?;
        self.host.abort(LeaseId(request.lease))?;
        Ok(wire::AbortReply {})
    }
}

/// Names the part that differs, from the reader's point of view.
pub(super) fn compare(giver: &CompatParts, reader: &CompatParts) -> Result<(), Failure> {
    match reader.difference(giver) {
        None => Ok(()),
        Some(difference) => {
            let detail = format!("the reader cannot use the giver's KV cache: {difference}");
            Err(Failure::new(FailureKind::Incompatible, detail))
        }
    }
}

fn reply<T>(outcome: Result<T, Failure>) -> Result<Response<T>, Status> {
    outcome.map(Response::new).map_err(|failure| status_of(&failure))
}

type Answer<'a, T> = Pin<Box<dyn Future<Output = Result<Response<T>, Status>> + Send + 'a>>;

impl<H: PeerHost> wire::peer_server::Peer for PeerService<H> {
    type WatchStream = WatchStream;

    fn hello<'a, 'b>(&'a self, request: Request<wire::PeerHello>) -> Answer<'b, wire::PeerWelcome>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { reply(self.greet(request.into_inner())) })
    }

    fn watch<'a, 'b>(&'a self, request: Request<wire::WatchRequest>) -> Answer<'b, WatchStream>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let meant = self.meant_for_us(request.into_inner().giver);
            reply(meant.map(|()| WatchStream { leaving: Box::pin(self.host.leaving()) }))
        })
    }

    fn renew<'a, 'b>(&'a self, request: Request<wire::RenewRequest>) -> Answer<'b, wire::RenewReply>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { reply(self.renewed(request.into_inner())) })
    }

    fn release<'a, 'b>(&'a self, request: Request<wire::ReleaseRequest>) -> Answer<'b, wire::ReleaseReply>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { reply(self.released(request.into_inner()).await) })
    }

    fn abort<'a, 'b>(&'a self, request: Request<wire::AbortRequest>) -> Answer<'b, wire::AbortReply>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move { reply(self.aborted(request.into_inner())) })
    }
}

/// Says nothing until the giver leaves.
pub struct WatchStream {
    leaving: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Stream for WatchStream {
    type Item = Result<wire::WatchReply, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut std::task::Context<'_>) -> std::task::Poll<Option<Self::Item>> {
        self.leaving.as_mut().poll(cx).map(|()| None)
    }
}
