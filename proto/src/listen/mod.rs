//! One gRPC listener for the services of a worker.

mod door;
mod room;

use std::future::Future;
use std::time::Duration;

use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic::transport::server::Router;

use crate::convert::limits::{MESSAGE_BYTES_MAX, PEER_REQUEST_BYTES_MAX};
use crate::generated::peer_server::PeerServer;
use crate::generated::worker_server::WorkerServer;
use crate::peer::server::{PeerHost, PeerService};
use crate::session::SessionLimits;
use crate::session::server::{SessionHost, WorkerService};

pub(crate) use door::{Greeting, Pass};

use door::Door;

/// Limit on streams of one connection; a client needs few connections.
const STREAMS_MAX: u32 = 1024;

/// Services of one listener.
pub struct Services {
    router: Router,
}

impl Services {
    /// Returns services with the one for routers.
    pub fn new<H: SessionHost>(worker: WorkerService<H>, limits: &SessionLimits) -> Services {
        let worker = WorkerServer::new(worker)
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        let mut server = Server::builder()
            .max_concurrent_streams(STREAMS_MAX)
            .http2_keepalive_interval(Some(limits.keepalive_interval))
            .http2_keepalive_timeout(Some(limits.keepalive_timeout));
        Services { router: server.add_service(worker) }
    }

    /// Adds the service for readers.
    #[must_use]
    pub fn with_peer<H: PeerHost>(self, peer: PeerService<H>) -> Services {
        let peer = PeerServer::new(peer).max_decoding_message_size(PEER_REQUEST_BYTES_MAX);
        Services { router: self.router.add_service(peer) }
    }

    /// Serves until `shutdown`, then waits at most `grace` for open streams to end.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()>,
        grace: Duration,
    ) -> Result<(), tonic::transport::Error> {
        let (stopping, mut stopped) = tokio::sync::watch::channel(());
        let stop = async move {
            shutdown.await;
            drop(stopping);
        };
        let serving = self.router.serve_with_incoming_shutdown(Door::new(listener), stop);
        let expired = async move {
            let _ = stopped.changed().await;
            tokio::time::sleep(grace).await;
        };
        tokio::select! {
            served = serving => served,
            () = expired => Ok(()),
        }
    }
}
