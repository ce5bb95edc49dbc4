//! Connections of callers that have not proved themselves (strangers): few of them, for a short time, a few bytes each.
//!
//! A connection is a stranger's until a service that got a proof over it calls [`Pass::admit`]. Strangers share a small
//! number of places; a new one takes the place of the oldest, so that idle connections block no caller.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::time::{Sleep, sleep};
use tokio_stream::Stream;
use tonic::transport::server::Connected;

use super::room;
use crate::seldom::Seldom;

/// Longest time that a connection may stay a stranger's.
const STRANGER_DEADLINE: Duration = Duration::from_secs(10);
/// Bytes that a stranger may send; hello and proof take less than a tenth of it.
const STRANGER_BYTES_MAX: usize = 32 << 10;
/// Calls of a stranger's connection that may wait for a proof at once.
const GREETINGS_MAX: usize = 4;
/// Pause after a failed accept; then the oldest stranger's connection ends if descriptors or memory ran out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Time for the task of an ended connection to release its descriptor.
const LEAVE_PAUSE: Duration = Duration::from_millis(2);
/// Shortest time between two log lines: without free descriptors every accept fails at once.
const FAILURES_LOG_EVERY: Duration = Duration::from_secs(60);

pub(super) struct Door {
    listener: TcpListener,
    strangers: Strangers,
    pause: Option<Pause>,
    failures: Seldom,
}

struct Pause {
    over: Pin<Box<Sleep>>,
    then: Then,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    TurnOutOldest,
    TryAgain,
}

impl Door {
    pub(super) fn new(listener: TcpListener) -> Door {
        let (strangers, failures) = (Strangers::new(room::strangers_max()), Seldom::once_in(FAILURES_LOG_EVERY));
        Door { listener, strangers, pause: None, failures }
    }

    /// Waits after a failed accept, so that a process without free descriptors does not spin.
    fn poll_pause(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        while let Some(pause) = &mut self.pause {
            ready!(pause.over.as_mut().poll(cx));
            self.pause = match pause.then {
                Then::TurnOutOldest => {
                    self.strangers.turn_out_oldest();
                    Some(Pause { over: Box::pin(sleep(LEAVE_PAUSE)), then: Then::TryAgain })
                }
                Then::TryAgain => None,
            };
        }
        Poll::Ready(())
    }

    fn accept_failed(&mut self, error: &io::Error) {
        if let Some(more) = self.failures.say(Instant::now()) {
            tracing::warn!(%error, more_since_the_last_line = more, "a connection cannot be accepted");
        }
        let then = if room::is_missing(error) { Then::TurnOutOldest } else { Then::TryAgain };
        self.pause = Some(Pause { over: Box::pin(sleep(ACCEPT_PAUSE)), then });
    }
}

impl Stream for Door {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<io::Result<Connection>>> {
        loop {
            ready!(self.poll_pause(cx));
            match ready!(self.listener.poll_accept(cx)) {
                Ok((stream, _)) => match stream.set_nodelay(true) {
                    Ok(()) => return Poll::Ready(Some(Ok(Connection::new(stream, &self.strangers)))),
                    // The caller is gone already.
                    Err(error) => tracing::debug!(%error, "a connection ended before it began"),
                },
                Err(error) => self.accept_failed(&error),
            }
        }
    }
}

/// Places of strangers, oldest first. Dropping an entry's sender ends its connection.
#[derive(Clone)]
struct Strangers {
    places: Arc<Mutex<Places>>,
    places_max: usize,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: VecDeque<(u64, oneshot::Sender<()>)>,
}

impl Strangers {
    fn new(places_max: usize) -> Strangers {
        Strangers { places: Arc::default(), places_max }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn enter(&self) -> (u64, oneshot::Receiver<()>) {
        let (turn_out, turned_out) = oneshot::channel();
        let mut places = self.places();
        let id = places.next;
        places.next += 1;
        places.taken.push_back((id, turn_out));
        if places.taken.len() > self.places_max {
            places.taken.pop_front();
        }
        (id, turned_out)
    }

    fn turn_out_oldest(&self) {
        self.places().taken.pop_front();
    }

    fn leave(&self, id: u64) {
        self.places().taken.retain(|(taken, _)| *taken != id);
    }
}

/// Handle of the services on a connection.
#[derive(Clone)]
pub(crate) struct Pass(Arc<PassState>);

struct PassState {
    id: u64,
    strangers: Strangers,
    admitted: AtomicBool,
    greetings: AtomicUsize,
}

impl Pass {
    /// Lifts the limits of a connection whose caller has proved that it knows the secret.
    pub(crate) fn admit(&self) {
        if !self.0.admitted.swap(true, Ordering::Relaxed) {
            self.0.strangers.leave(self.0.id);
        }
    }

    /// Takes a place for a call that waits for its proof; `None` if too many wait on this connection.
    pub(crate) fn greet(&self) -> Option<Greeting> {
        let greetings = self.0.greetings.fetch_add(1, Ordering::Relaxed);
        let greeting = Greeting(self.clone());
        (self.is_admitted() || greetings < GREETINGS_MAX).then_some(greeting)
    }

    fn is_admitted(&self) -> bool {
        self.0.admitted.load(Ordering::Relaxed)
    }
}

impl Drop for PassState {
    fn drop(&mut self) {
        self.strangers.leave(self.id);
    }
}

pub(crate) struct Greeting(Pass);

impl Greeting {
    pub(crate) fn admit(&self) {
        self.0.admit();
    }
}

impl Drop for Greeting {
    fn drop(&mut self) {
        self.0.0.greetings.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection that ends if it stays a stranger's too long.
pub(super) struct Connection {
    stream: TcpStream,
    pass: Pass,
    turned_out: oneshot::Receiver<()>,
    deadline: Pin<Box<Sleep>>,
    heard: usize,
}

impl Connection {
    fn new(stream: TcpStream, strangers: &Strangers) -> Connection {
        let (id, turned_out) = strangers.enter();
        let (admitted, greetings) = (AtomicBool::new(false), AtomicUsize::new(0));
        let pass = Pass(Arc::new(PassState { id, strangers: strangers.clone(), admitted, greetings }));
        Connection { stream, pass, turned_out, deadline: Box::pin(sleep(STRANGER_DEADLINE)), heard: 0 }
    }

    /// Returns the reason for which a stranger's connection must end now, if there is one.
    fn poll_overstayed(&mut self, cx: &mut Context<'_>) -> Option<io::Error> {
        let turned_out = self.turned_out.is_terminated() || Pin::new(&mut self.turned_out).poll(cx).is_ready();
        // An admitted caller has left its place, too.
        if self.pass.is_admitted() {
            return None;
        }
        if turned_out {
            return Some(io::Error::new(io::ErrorKind::QuotaExceeded, "too many callers have not proved themselves"));
        }
        if self.deadline.as_mut().poll(cx).is_ready() {
            return Some(io::Error::new(io::ErrorKind::TimedOut, "the caller has not proved itself in time"));
        }
        None
    }
}

impl Connected for Connection {
    type ConnectInfo = Pass;

    fn connect_info(&self) -> Pass {
        self.pass.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.pass.is_admitted() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        if let Some(error) = this.poll_overstayed(cx) {
            return Poll::Ready(Err(error));
        }
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        this.heard += buffer.filled().len() - before;
        if this.heard > STRANGER_BYTES_MAX {
            let error = io::Error::new(io::ErrorKind::QuotaExceeded, "the caller says much and proves nothing");
            return Poll::Ready(Err(error));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Connection {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buffer)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
