//! Answers on the streams of one HTTP/2 connection: which of them its client does not take; knows no socket.
//!
//! A client decides how much of each stream may be sent. One that gives no room for an answer, but reads everything
//! else, would hold the answer's place for ever, and no write would wait. So each answer is handed out in small pieces,
//! and a piece counts as waiting until HTTP/2 has passed it on to the connection.

use std::pin::Pin;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use hyper::body::{Body as _, Bytes, Frame, SizeHint};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::ReadingPace;
use super::seats::Occupied;

/// Largest piece of an answer that waits outside of its body.
const PIECE_BYTES: usize = 16 << 10;
/// Parts of the time that an answer may wait, after each of which the streams are looked at.
const LOOKS: u32 = 8;
const LOOK_MIN: Duration = Duration::from_millis(5);
/// Most requests that a client may give up beyond those that come to an end.
const GIVEN_UP_MAX: u32 = 256;

/// Streams of one connection; clones share them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    pace: ReadingPace,
    answers: Arc<Mutex<Vec<Weak<Answer>>>>,
    /// Told at each answer.
    watched: Arc<Notify>,
    given_up: Arc<GivenUp>,
}

/// How many more requests were given up by their client than have come to an end.
#[derive(Debug, Default)]
struct GivenUp {
    excess: AtomicU32,
    too_many: Notify,
}

/// What becomes of a request: it counts as given up unless its answer comes to an end.
#[derive(Debug)]
pub(super) struct Fate {
    is_ended: bool,
    given_up: Arc<GivenUp>,
}

/// Answer on a stream, until its last piece is gone.
#[derive(Debug)]
struct Answer {
    waits: Mutex<Waits>,
    pace: ReadingPace,
    _occupied: Arc<Occupied>,
}

#[derive(Debug)]
struct Waits {
    /// Time for which pieces may still wait.
    credit: Duration,
    /// Pieces that wait.
    pieces: usize,
    /// Time since which one waits, if any does.
    since: Instant,
}

/// Body that is handed out in pieces.
pub(super) struct InPieces {
    body: Body,
    rest: Bytes,
    fate: Fate,
    answer: Arc<Answer>,
}

struct Piece {
    bytes: Bytes,
    answer: Arc<Answer>,
}

impl Streams {
    pub(super) fn new(pace: ReadingPace) -> Streams {
        Streams { pace, answers: Arc::default(), watched: Arc::default(), given_up: Arc::default() }
    }

    /// Begins a request.
    pub(super) fn begin(&self) -> Fate {
        Fate { is_ended: false, given_up: Arc::clone(&self.given_up) }
    }

    /// Resolves when the client keeps giving requests up: each costs it nothing, and others the work that it began.
    pub(super) async fn restless(&self) {
        self.given_up.too_many.notified().await;
    }

    /// Wraps the body of an answer.
    pub(super) fn watch(&self, body: Body, mut fate: Fate, occupied: Arc<Occupied>) -> InPieces {
        fate.is_ended = body.is_end_stream();
        self.watched.notify_one();
        let waits = Waits { credit: self.pace.behind_max, pieces: 0, since: Instant::now() };
        let answer = Arc::new(Answer { waits: Mutex::new(waits), pace: self.pace, _occupied: occupied });
        let mut answers = locked(&self.answers);
        // The list doubles at most between two cleanings, so that they cost little per answer.
        if answers.len() == answers.capacity() {
            answers.retain(|answer| answer.strong_count() > 0);
        }
        answers.push(Arc::downgrade(&answer));
        InPieces { body, rest: Bytes::new(), fate, answer }
    }

    /// Resolves when an answer has waited for its client beyond the credit.
    pub(super) async fn overdue(&self) {
        let every = (self.pace.behind_max / LOOKS).max(LOOK_MIN);
        loop {
            // Connections of HTTP/1.1 never have an answer here, and must not wake up for it.
            if locked(&self.answers).is_empty() {
                self.watched.notified().await;
            }
            tokio::time::sleep(every).await;
            let now = Instant::now();
            if locked(&self.answers).iter().filter_map(Weak::upgrade).any(|answer| answer.is_overdue(now)) {
                return;
            }
        }
    }
}

impl Answer {
    fn is_overdue(&self, now: Instant) -> bool {
        let waits = locked(&self.waits);
        waits.pieces > 0 && now.duration_since(waits.since) > waits.credit
    }

    fn handed_out(&self) {
        let mut waits = locked(&self.waits);
        if waits.pieces == 0 {
            waits.since = Instant::now();
        }
        waits.pieces += 1;
    }

    /// Notes that a piece is gone: its wait uses credit up, and its bytes earn some back.
    fn taken(&self, bytes: usize) {
        let (now, mut waits) = (Instant::now(), locked(&self.waits));
        let waited = now.duration_since(waits.since);
        let earned = Duration::from_micros((bytes as u64).saturating_mul(1_000_000) / self.pace.bytes_per_s_min.max(1));
        waits.credit = waits.credit.saturating_sub(waited).saturating_add(earned).min(self.pace.behind_max);
        waits.pieces -= 1;
        waits.since = now;
    }
}

impl InPieces {
    fn piece(&mut self) -> Bytes {
        let bytes = self.rest.split_to(self.rest.len().min(PIECE_BYTES));
        self.fate.is_ended = self.is_end_stream();
        self.answer.handed_out();
        Bytes::from_owner(Piece { bytes, answer: Arc::clone(&self.answer) })
    }
}

impl hyper::body::Body for InPieces {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if self.rest.is_empty() {
            let frame = match Pin::new(&mut self.body).poll_frame(context) {
                Poll::Ready(Some(Ok(frame))) => frame,
                other => {
                    self.fate.is_ended |= matches!(other, Poll::Ready(None));
                    return other;
                }
            };
            match frame.into_data() {
                Ok(data) if data.is_empty() => return Poll::Ready(Some(Ok(Frame::data(data)))),
                Ok(data) => self.rest = data,
                Err(other) => return Poll::Ready(Some(Ok(other))),
            }
        }
        let piece = self.piece();
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (body, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(body.lower() + rest);
        if let Some(upper) = body.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

impl Drop for Fate {
    fn drop(&mut self) {
        let GivenUp { excess, too_many } = &*self.given_up;
        if self.is_ended {
            // An error says that there is no excess.
            let _ = excess.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |excess| excess.checked_sub(1));
        } else if excess.fetch_add(1, Ordering::Relaxed) >= GIVEN_UP_MAX {
            too_many.notify_one();
        }
    }
}

impl AsRef<[u8]> for Piece {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.answer.taken(self.bytes.len());
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;
    use tokio::time::{advance, timeout};

    use super::super::seats::Seats;
    use super::*;

    const BEHIND: Duration = Duration::from_secs(20);
    const PACE: ReadingPace = ReadingPace { behind_max: BEHIND, bytes_per_s_min: 16 << 10 };

    async fn answer(streams: &Streams, bytes: usize) -> InPieces {
        let seat = Arc::new(Seats::new(1).take().await);
        streams.watch(Body::from(vec![7; bytes]), streams.begin(), Arc::new(seat.occupy()))
    }

    async fn next(body: &mut InPieces) -> Bytes {
        body.frame().await.unwrap().unwrap().into_data().unwrap()
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_whole_in_its_pieces() {
        let streams = Streams::new(PACE);
        let mut body = answer(&streams, 40_000).await;
        assert_eq!(body.size_hint().exact(), Some(40_000));
        let sizes = [next(&mut body).await.len(), next(&mut body).await.len(), next(&mut body).await.len()];
        assert_eq!(sizes, [PIECE_BYTES, PIECE_BYTES, 40_000 - 2 * PIECE_BYTES]);
        assert!(body.is_end_stream() && body.frame().await.is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_piece_that_nobody_takes_is_overdue_even_if_it_is_the_last() {
        let streams = Streams::new(PACE);
        let mut body = answer(&streams, 100).await;
        advance(10 * BEHIND).await;
        assert!(timeout(BEHIND, streams.overdue()).await.is_err(), "nothing was handed out");
        let piece = next(&mut body).await;
        drop(body);
        let began = Instant::now();
        streams.overdue().await;
        assert!(began.elapsed() >= BEHIND && began.elapsed() < BEHIND + BEHIND / 4, "{:?}", began.elapsed());
        drop(piece);
        assert!(timeout(10 * BEHIND, streams.overdue()).await.is_err(), "it is gone");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_that_are_taken_earn_time() {
        let streams = Streams::new(PACE);
        let mut body = answer(&streams, 100 * PIECE_BYTES).await;
        for _ in 0..40 {
            let piece = next(&mut body).await;
            advance(Duration::from_secs(1)).await;
            drop(piece);
        }
        assert_eq!(locked(&body.answer.waits).credit, BEHIND, "a piece per second is the pace");
        for _ in 0..15 {
            let piece = next(&mut body).await;
            advance(Duration::from_secs(2)).await;
            drop(piece);
        }
        assert_eq!(locked(&body.answer.waits).credit, Duration::from_secs(5), "half of the pace uses the credit up");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_keeps_giving_up_is_restless() {
        let streams = Streams::new(PACE);
        let moment = Duration::from_millis(1);
        for _ in 0..2 * GIVEN_UP_MAX {
            drop(answer(&streams, 10).await);
            let mut ending = answer(&streams, 10).await;
            next(&mut ending).await;
        }
        assert!(timeout(moment, streams.restless()).await.is_err(), "half of them have ended");
        (0..=GIVEN_UP_MAX).for_each(|_| drop(streams.begin()));
        timeout(moment, streams.restless()).await.expect("none has ended");
    }

    #[tokio::test(start_paused = true)]
    async fn ended_answers_are_forgotten() {
        let streams = Streams::new(PACE);
        for _ in 0..10_000 {
            drop(answer(&streams, 1).await);
        }
        assert!(locked(&streams.answers).len() < 64);
    }
}
