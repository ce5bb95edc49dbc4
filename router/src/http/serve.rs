//! Accepts connections within bounds of number and idleness, and ends them in good order.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower::Service;
use tracing::{debug, warn};

/// How long a connection may take to send the head of a request, also the first and after an answer.
const HEAD_TIME_MAX: Duration = Duration::from_secs(75);
/// Requests at a time on one HTTP/2 connection.
const STREAMS_MAX: u32 = 256;
/// Pause after the system refused to accept, for it does so again at once when it is out of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `routes` until `stopped` loses its sender, then waits for the requests that still run.
pub(crate) async fn serve(
    listener: TcpListener,
    routes: Router,
    connections_max: usize,
    mut stopped: watch::Receiver<()>,
) {
    let places = Arc::new(Semaphore::new(connections_max));
    let connections = GracefulShutdown::new();
    loop {
        let (stream, place) = tokio::select! {
            accepted = accept(&listener, &places) => accepted,
            // The sender says nothing; that it is gone is the signal.
            _ = stopped.changed() => break,
        };
        let routes = routes.clone();
        let service = hyper::service::service_fn(move |request: Request<Incoming>| routes.clone().call(request));
        let connection = server().serve_connection(TokioIo::new(stream), service).into_owned();
        let connection = connections.watch(connection);
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

fn server() -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(HEAD_TIME_MAX);
    server.http2().timer(TokioTimer::new()).max_concurrent_streams(STREAMS_MAX);
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
