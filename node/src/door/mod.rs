//! Accepts the connections of HTTP clients within bounds of number, idleness and unread answers, and ends them in good
//! order. Knows no route.

mod arriving;
mod connection;
mod files;
mod guard;
mod opening;
mod seats;
mod streams;
mod tls;
mod write_deadline;

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use hyper::Request;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use connection::converse;
pub use files::{connections_within_files, raise_open_files};
pub use guard::{Crowded, Guard, Strange, check_host, check_origin};
use seats::{Seat, Seats};
pub use tls::{Look, Tls, TlsError, TlsFiles, is_certificate_for};

/// Pause after a failed accept, which would fail again at once when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Number of accept errors in a row per log line.
const ACCEPT_ERRORS_PER_LINE: u64 = 1_000;

/// Bounds on the number of connections, and on the time for which each may stand still.
#[derive(Debug, Clone, Copy)]
pub struct ConnectionLimits {
    /// Connections at a time. When all places are taken, the connection that has waited longest without a whole request
    /// gives up its place.
    pub connections_max: usize,
    /// Time to send the head of a request, on a new connection or after an answer.
    pub head_time_max: Duration,
    /// Slowest pace at which a client may take its answer.
    pub reading: ReadingPace,
}

/// Slowest pace at which a client may take its answer.
#[derive(Debug, Clone, Copy)]
pub struct ReadingPace {
    /// Time for which answers may wait while the client takes nothing.
    pub behind_max: Duration,
    /// Bytes per second at which a client does not fall further behind.
    pub bytes_per_s_min: u64,
}

/// State of the door.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Clients come and stay.
    Open,
    /// Clients still come, but each is told with its next answer to reconnect elsewhere.
    Leaving,
    /// New clients are refused, and connections without a running answer are closed.
    Shut,
}

/// Serves with `answer`, over TLS if there is any, until `phase` is `Shut` or its sender is gone, then waits for the
/// requests that still run.
pub async fn serve<A, F>(
    listener: TcpListener,
    (limits, tls): (ConnectionLimits, Option<Tls>),
    mut phase: watch::Receiver<Phase>,
    answer: A,
) where
    A: Fn(Request<Body>) -> F + Clone + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let seats = Seats::new(limits.connections_max);
    let (alive, mut all_gone) = mpsc::channel::<()>(1);
    loop {
        let (stream, seat) = tokio::select! {
            accepted = accept(&listener, &seats) => accepted,
            () = shut(&mut phase) => break,
        };
        let (answer, phase, alive, tls) = (answer.clone(), phase.clone(), alive.clone(), tls.clone());
        tokio::spawn(async move {
            converse(stream, seat, (limits, tls), phase, answer).await;
            drop(alive);
        });
    }
    drop((listener, alive));
    // Nothing is ever sent: the channel closes with the last connection.
    let _ = all_gone.recv().await;
}

async fn shut(phase: &mut watch::Receiver<Phase>) {
    // An error says that nobody can open the door again.
    let _ = phase.wait_for(|phase| *phase == Phase::Shut).await;
}

/// Accepts the next connection when there is a place; until then clients wait in the listener's queue.
async fn accept(listener: &TcpListener, seats: &Seats) -> (TcpStream, Seat) {
    let seat = seats.take().await;
    let mut errors = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                seat.begin();
                // Tokens are small and must not wait for each other; without the option a socket is only slower.
                if let Err(error) = stream.set_nodelay(true) {
                    debug!(%error, "no TCP_NODELAY");
                }
                return (stream, seat);
            }
            Err(error) => {
                if errors.is_multiple_of(ACCEPT_ERRORS_PER_LINE) {
                    warn!(%error, "a connection could not be accepted");
                }
                errors += 1;
                // Most likely no descriptors are left.
                seats.ask_longest_idle_to_go();
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}
