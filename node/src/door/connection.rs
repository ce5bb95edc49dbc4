//! One connection: its requests over HTTP/1.1 or HTTP/2, and its end; knows no route.

use std::convert::Infallible;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Version};
use axum::response::Response;
use hyper::Request;
use hyper::body::{Bytes, Frame, Incoming, SizeHint};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpStream;
use tokio::sync::{Notify, watch};
use tracing::debug;

use super::arriving::Arriving;
use super::guard::Crowded;
use super::opening::open;
use super::seats::{Occupied, Seat};
use super::streams::{InPieces, Streams};
use super::write_deadline::WriteDeadline;
use super::{ConnectionLimits, Phase, Tls, shut};

/// Most bytes that a connection buffers of its input and of its output. The head of a request must fit.
const BUFFER_BYTES: usize = 64 << 10;
/// Time for a connection without a request to close.
const CLOSE_TIME: Duration = Duration::from_secs(1);

/// Streams of one HTTP/2 connection at a time, and most bytes of the head of a request on one.
const STREAMS_MAX: u32 = 128;
const STREAM_HEAD_BYTES_MAX: u32 = 32 << 10;
/// Bytes that a client may send on a stream, and on all of a connection, before somebody reads them.
const STREAM_BYTES: u32 = 64 << 10;
const CONNECTION_BYTES: u32 = 128 << 10;

/// Why a connection must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Leave {
    /// It has waited too long for a request, or its place is needed.
    Idle,
    /// The door is shut.
    Shut,
    /// The door is about to shut, and the client is told to go elsewhere.
    Elsewhere,
    /// Its client gives up more requests than it lets come to an end.
    Restless,
    /// Its client does not take its answers.
    Unread,
}

/// What the requests of one connection share.
#[derive(Debug, Clone)]
struct Line {
    seat: Arc<Seat>,
    phase: watch::Receiver<Phase>,
    streams: Streams,
    /// Told at each request over HTTP/2.
    multiplexes: Arc<Notify>,
}

/// Serves one connection.
pub(super) async fn converse<A, F>(
    stream: TcpStream,
    seat: Seat,
    (limits, tls): (ConnectionLimits, Option<Tls>),
    mut phase: watch::Receiver<Phase>,
    answer: A,
) where
    A: Fn(Request<Body>) -> F + Send + 'static,
    F: Future<Output = Response> + Send + 'static,
{
    let line = Line::new(seat, limits, phase.clone());
    let opened = tokio::select! {
        opened = open(stream, tls.as_ref(), limits.head_time_max) => opened,
        () = line.seat.asked_to_go() => return,
        () = shut(&mut phase) => return,
    };
    let stream = match opened {
        Ok(stream) => TokioIo::new(WriteDeadline::new(stream, limits.reading)),
        Err(error) => return debug!(%error, "a connection was not opened"),
    };
    let attending = line.clone();
    let service = hyper::service::service_fn(move |request| attending.attend(request, &answer));
    let server = server(limits);
    let mut connection = pin!(server.serve_connection(stream, service));
    let leave = tokio::select! {
        ended = connection.as_mut() => return report(ended),
        leave = line.leaves(limits) => leave,
    };
    match leave {
        Leave::Unread => return debug!("a client does not take its answers"),
        // A graceful end would wait for a request that may never be whole.
        Leave::Idle if line.seat.is_owed() => return,
        Leave::Idle | Leave::Shut | Leave::Elsewhere | Leave::Restless => connection.as_mut().graceful_shutdown(),
    }
    tokio::select! {
        ended = connection.as_mut() => report(ended),
        () = line.seat.idle_for(CLOSE_TIME) => {}
        () = line.streams.overdue() => debug!("a client does not take its answers"),
    }
}

fn report(ended: Result<(), Box<dyn std::error::Error + Send + Sync>>) {
    if let Err(error) = ended {
        debug!(%error, "connection has ended badly");
    }
}

fn server(limits: ConnectionLimits) -> auto::Builder<TokioExecutor> {
    let mut server = auto::Builder::new(TokioExecutor::new());
    server
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head_time_max)
        .max_buf_size(BUFFER_BYTES)
        .http2()
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(STREAM_HEAD_BYTES_MAX)
        .initial_stream_window_size(STREAM_BYTES)
        .initial_connection_window_size(CONNECTION_BYTES)
        .max_send_buf_size(BUFFER_BYTES);
    server
}

impl Line {
    fn new(seat: Seat, limits: ConnectionLimits, phase: watch::Receiver<Phase>) -> Line {
        let streams = Streams::new(limits.reading);
        Line { seat: Arc::new(seat), phase, streams, multiplexes: Arc::default() }
    }

    /// Answers a request, which occupies the place before the first `await`, whatever becomes of the connection.
    fn attend<A, F>(
        &self,
        request: Request<Incoming>,
        answer: &A,
    ) -> impl Future<Output = Result<hyper::Response<Answered>, Infallible>> + Send + use<A, F>
    where
        A: Fn(Request<Body>) -> F,
        F: Future<Output = Response> + Send + 'static,
    {
        let (line, occupied) = (self.clone(), Arc::new(self.seat.occupy()));
        let fate = (request.version() == Version::HTTP_2).then(|| {
            self.multiplexes.notify_one();
            self.streams.begin()
        });
        let mut request = request.map(|body| Body::new(Arriving::new(body, Arc::clone(&occupied))));
        // Requests over HTTP/1.1 are bounded by their connections, and must not suffer from the others.
        if fate.is_some() && self.seat.is_crowded() {
            request.extensions_mut().insert(Crowded);
        }
        let answered = answer(request);
        async move {
            let response = answered.await;
            // The answer does not wait for the rest of the request.
            occupied.complete();
            Ok(match fate {
                Some(fate) => response.map(|body| Answered::Stream(line.streams.watch(body, fate, occupied))),
                None => line.closing(response.map(|body| Answered::Whole { body, _occupied: occupied })),
            })
        }
    }

    /// Tells a client of HTTP/1.1 to close the connection unless the door is open.
    fn closing(&self, mut response: hyper::Response<Answered>) -> hyper::Response<Answered> {
        if *self.phase.borrow() != Phase::Open {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }

    /// Resolves when the connection must end.
    async fn leaves(&self, limits: ConnectionLimits) -> Leave {
        let mut phase = self.phase.clone();
        tokio::select! {
            () = self.seat.asked_to_go() => Leave::Idle,
            () = self.seat.waits_longer_than(limits.head_time_max) => Leave::Idle,
            () = shut(&mut phase) => Leave::Shut,
            () = self.elsewhere() => Leave::Elsewhere,
            () = self.streams.restless() => Leave::Restless,
            () = self.streams.overdue() => Leave::Unread,
        }
    }

    /// Resolves when a client of HTTP/2 has to go elsewhere: at once, but a newcomer not before its first request.
    async fn elsewhere(&self) {
        let mut phase = self.phase.clone();
        // An error says that nobody can open the door again.
        let _ = phase.wait_for(|phase| *phase != Phase::Open).await;
        self.multiplexes.notified().await;
    }
}

/// Answer that keeps its connection's place taken.
enum Answered {
    Whole { body: Body, _occupied: Arc<Occupied> },
    Stream(InPieces),
}

impl hyper::body::Body for Answered {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        match self.get_mut() {
            Answered::Whole { body, .. } => Pin::new(body).poll_frame(context),
            Answered::Stream(pieces) => Pin::new(pieces).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Answered::Whole { body, .. } => body.is_end_stream(),
            Answered::Stream(pieces) => pieces.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Answered::Whole { body, .. } => body.size_hint(),
            Answered::Stream(pieces) => pieces.size_hint(),
        }
    }
}
