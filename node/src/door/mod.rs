//! Accepts the connections of HTTP clients within bounds of number, idleness and unread answers, and ends them in good
//! order. Knows no route.

mod arriving;
mod files;
mod guard;
mod seats;
mod write_deadline;

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONNECTION;
use axum::response::Response;
use hyper::Request;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use arriving::Arriving;
pub use files::{connections_within_files, raise_open_files};
pub use guard::{Guard, Strange, check_host, check_origin};
use seats::{Occupied, Seat, Seats};
use write_deadline::WriteDeadline;

/// Pause after a failed accept, which would fail again at once when descriptors are used up.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Number of accept errors in a row per log line.
const ACCEPT_ERRORS_PER_LINE: u64 = 1_000;
/// Most bytes that a connection buffers of its input and of its output. The head of a request must fit.
const BUFFER_BYTES: usize = 64 << 10;
/// Time for a connection without a request to close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

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

/// Serves with `answer` until `phase` is `Shut` or its sender is gone, then waits for the requests that still run.
pub async fn serve<A, F>(listener: TcpListener, limits: ConnectionLimits, mut phase: watch::Receiver<Phase>, answer: A)
where
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
        let (answer, phase, alive) = (answer.clone(), phase.clone(), alive.clone());
        tokio::spawn(async move {
            converse(stream, seat, limits, phase, answer).await;
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

/// Serves one connection.
async fn converse<A, F>(
    stream: TcpStream,
    seat: Seat,
    limits: ConnectionLimits,
    mut phase: watch::Receiver<Phase>,
    answer: A,
) where
    A: Fn(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let (now, seat) = (phase.clone(), Arc::new(seat));
    let place = Arc::clone(&seat);
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        // Before the first `await`, so that the request counts whatever becomes of the connection.
        let occupied = Arc::new(place.occupy());
        let request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&occupied))));
        let (answered, now) = (answer(request), now.clone());
        async move { Ok::<_, std::convert::Infallible>(finish(answered.await, occupied, &now)) }
    });
    let stream = TokioIo::new(WriteDeadline::new(stream, limits.reading));
    let mut connection = pin!(server(limits).serve_connection(stream, service));
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        () = seat.asked_to_go() => None,
        () = shut(&mut phase) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        // A graceful end would wait for a request that may never be whole.
        None if seat.is_owed() && *phase.borrow() != Phase::Shut => Ok(()),
        None => {
            connection.as_mut().graceful_shutdown();
            tokio::select! {
                ended = connection.as_mut() => ended,
                () = seat.idle_for(CLOSE_TIME) => Ok(()),
            }
        }
    };
    if let Err(error) = ended {
        debug!(%error, "connection has ended badly");
    }
}

/// Wraps the answer: it keeps the place taken until its last byte, and closes the connection unless the door is open.
fn finish(response: Response, occupied: Arc<Occupied>, phase: &watch::Receiver<Phase>) -> hyper::Response<Answered> {
    occupied.complete();
    let mut response = response.map(|body| Answered { body, _occupied: occupied });
    if *phase.borrow() != Phase::Open {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// HTTP/1.1 only: HTTP/2 has no bound on the time for which a connection is silent or blocked by flow control.
fn server(limits: ConnectionLimits) -> http1::Builder {
    let mut server = http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(limits.head_time_max).max_buf_size(BUFFER_BYTES);
    server
}

/// Accepts the next connection when there is a place; until then clients wait in the listener's queue.
async fn accept(listener: &TcpListener, seats: &Seats) -> (TcpStream, Seat) {
    let seat = seats.take().await;
    let mut errors = 0_u64;
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
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

/// Answer that keeps its connection's place taken.
struct Answered {
    body: Body,
    _occupied: Arc<Occupied>,
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
