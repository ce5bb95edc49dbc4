//! Accepts connections within bounds of number and idleness, and ends them in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;
use tracing::{debug, warn};

use super::write_deadline::WriteDeadline;
use crate::LimitsConfig;

/// Pause after the system refused to accept, for it does so again at once when it is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// How many connections there may be, and how long each may stand still.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ConnectionLimits {
    /// Connections at a time.
    pub(crate) connections_max: usize,
    /// Time to send the head of a request, also the first and after an answer.
    pub(crate) head_time_max: Duration,
    /// Time in which a client may take nothing of its answer.
    pub(crate) unread_time_max: Duration,
}

impl From<&LimitsConfig> for ConnectionLimits {
    fn from(limits: &LimitsConfig) -> ConnectionLimits {
        ConnectionLimits {
            connections_max: limits.connections_max,
            head_time_max: Duration::from_millis(limits.head_ms_max),
            unread_time_max: Duration::from_millis(limits.unread_ms_max),
        }
    }
}

/// Serves `routes` until `stopped` loses its sender, then waits for the requests that still run.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    limits: ConnectionLimits,
    mut stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(limits.connections_max));
    let connections = GracefulShutdown::new();
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // The sender says nothing; that it is gone is the signal.
            _ = stopped.changed() => break,
        };
        let routes = routes.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| routes.clone().call(request));
        let stream = TokioIo::new(WriteDeadline::new(stream, limits.unread_time_max));
        let connection = connections.watch(server(limits).serve_connection(stream, service));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                debug!(%error, "connection has ended badly");
            }
            drop(place);
        });
    }
    drop(listener);
    connections.shutdown().await;
}

/// HTTP/1.1 only: of HTTP/2 there is no bound on how long a connection says nothing, or takes nothing by flow control.
fn server(limits: ConnectionLimits) -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head_time_max);
    server
}

/// The next connection, as soon as there is a place for it; until then clients wait in the listener's queue.
async fn accept(listener: &TcpListener, places: &Arc<Semaphore>) -> (TcpStream, Option<OwnedSemaphorePermit>) {
    // The semaphore is never closed.
    let place = Arc::clone(places).acquire_owned().await.ok();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                // Tokens are small and must not wait for each other; a socket without the option is only slower.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "no TCP_NODELAY");
                }
                return (stream, place);
            }
            Err(error) => {
                warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
