//! The worker's check that a router knows the shared secret, before any other message of it counts.

use std::time::Duration;

use sched::{Failure, FailureKind, InstanceId};
use tokio::time::timeout;
use tonic::{Status, Streaming};

use crate::convert::{Field, Wire};
use crate::generated as wire;
use crate::generated::router_message::Body as RouterBody;
use crate::listen::{Greeting, Pass};
use crate::secret::{Meeting, Secret, Side};
use crate::status::status_of;

pub(super) struct Asked {
    hello: Hello,
    worker: InstanceId,
    nonce: [u8; 16],
}

impl Asked {
    pub(super) fn new(hello: Hello, worker: InstanceId, nonce: [u8; 16]) -> Asked {
        Asked { hello, worker, nonce }
    }

    pub(super) fn router(&self) -> InstanceId {
        self.hello.router
    }

    fn meeting(&self) -> Meeting<'_> {
        let (client, server) = (self.hello.router, self.worker);
        Meeting { client, server, client_nonce: &self.hello.nonce, server_nonce: &self.nonce }
    }

    pub(super) fn challenge(&self, secret: &Secret) -> wire::Challenge {
        wire::Challenge {
            version: crate::VERSION,
            instance: Some(self.worker.to_wire()),
            nonce: self.nonce.to_vec(),
            proof: secret.prove(Side::Worker, &self.meeting(), b""),
        }
    }

    pub(super) fn check(
        &self,
        secret: &Secret,
        said: Result<Option<wire::RouterMessage>, Failure>,
    ) -> Result<(), Status> {
        let body = said.map_err(|failure| status_of(&failure))?.and_then(|message| message.body);
        let Some(RouterBody::Proof(wire::RouterProof { proof })) = body else {
            return Err(Status::unauthenticated("a router has not proved that it knows this worker's plane.secret"));
        };
        match secret.believes(Side::Router, &self.meeting(), b"", &proof) {
            true => Ok(()),
            false => Err(Status::unauthenticated(DIFFERENT_SECRET)),
        }
    }
}

const DIFFERENT_SECRET: &str = "the router's plane.secret is not this worker's, or one of them has none";

/// Takes a place for a call that waits for its caller's proof.
pub(super) fn greeting_of<T>(request: &tonic::Request<T>) -> Result<Greeting, Status> {
    let pass = request.extensions().get::<Pass>().ok_or(Status::internal("a connection that came through no door"))?;
    pass.greet().ok_or(Status::resource_exhausted("too many calls of this connection have not proved themselves"))
}

pub(super) async fn next_message(
    inbound: &mut Streaming<wire::RouterMessage>,
    limit: Duration,
    what: &str,
) -> Result<Option<wire::RouterMessage>, Failure> {
    let said = timeout(limit, inbound.message()).await;
    let said = said.map_err(|_| protocol(format!("no {what} within {limit:?}")))?;
    said.map_err(|status| protocol(status.message().to_owned()))
}

pub(super) struct Hello {
    router: InstanceId,
    nonce: [u8; 16],
}

pub(super) fn hello_of(first: Option<wire::RouterMessage>) -> Result<Hello, Failure> {
    let Some(RouterBody::Hello(hello)) = first.and_then(|message| message.body) else {
        return Err(protocol("the router's first message is no hello".to_owned()));
    };
    if hello.version != crate::VERSION {
        let detail = format!("the router speaks version {}, this worker {}", hello.version, crate::VERSION);
        return Err(Failure::new(FailureKind::Incompatible, detail));
    }
    let router = Field("RouterHello", "router").take(hello.router)?;
    Ok(Hello { router, nonce: Field("RouterHello", "nonce").exactly(&hello.nonce)? })
}

fn protocol(detail: String) -> Failure {
    Failure::new(FailureKind::InvalidRequest, detail)
}
