//! A connection that fails when its peer takes too little of the answers; knows nothing of their contents.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::ReadingPace;

/// Wraps a connection. While a client takes nothing, its answer is not polled, so nothing else would notice, and the
/// answer would keep its place for ever.
///
/// A client has a credit of time: waiting for it uses the credit up, and each byte that it takes earns some back. A
/// client that takes a byte a minute is given up like one that takes nothing; one that keeps the pace never is.
#[derive(Debug)]
pub(super) struct WriteDeadline<S> {
    stream: S,
    pace: ReadingPace,
    /// Time for which writes may still wait.
    credit: Duration,
    /// Present while a write waits.
    waiting: Option<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    since: Instant,
    end: Pin<Box<Sleep>>,
}

impl<S> WriteDeadline<S> {
    pub(super) fn new(stream: S, pace: ReadingPace) -> WriteDeadline<S> {
        WriteDeadline { stream, pace, credit: pace.behind_max, waiting: None }
    }

    /// Returns the outcome of a write; a write that waits beyond the credit fails.
    fn bounded<T>(
        &mut self,
        written: Poll<io::Result<T>>,
        bytes: impl FnOnce(&T) -> usize,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if let Poll::Ready(written) = written {
            self.earn(written.as_ref().map_or(0, bytes));
            return Poll::Ready(written);
        }
        let credit = self.credit;
        let waiting =
            self.waiting.get_or_insert_with(|| Waiting { since: Instant::now(), end: Box::pin(sleep(credit)) });
        ready!(waiting.end.as_mut().poll(context));
        let (behind, pace) = (self.pace.behind_max, self.pace.bytes_per_s_min);
        let message = format!("writing an answer: the client is {behind:?} behind a pace of {pace} bytes per second");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
    }

    /// Ends a write: subtracts its wait from the credit and adds the time that `bytes` earn.
    fn earn(&mut self, bytes: usize) {
        if let Some(waiting) = self.waiting.take() {
            self.credit = self.credit.saturating_sub(waiting.since.elapsed());
        }
        let micros = (bytes as u64).saturating_mul(1_000_000) / self.pace.bytes_per_s_min.max(1);
        self.credit = self.credit.saturating_add(Duration::from_micros(micros)).min(self.pace.behind_max);
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for WriteDeadline<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for WriteDeadline<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.bounded(written, |&bytes| bytes, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(written, |&bytes| bytes, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(flushed, |()| 0, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(closed, |()| 0, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const BEHIND: Duration = Duration::from_secs(20);
    const PACE: ReadingPace = ReadingPace { behind_max: BEHIND, bytes_per_s_min: 100 };

    #[tokio::test(start_paused = true)]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (near, _far) = duplex(4);
        let mut stream = WriteDeadline::new(near, PACE);
        let began = Instant::now();
        let error = stream.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("20s behind a pace of 100 bytes per second"), "{error}");
        assert!(began.elapsed() < BEHIND + Duration::from_secs(1));
    }

    /// Returns how long a client lives that takes `bytes` every `pause`.
    async fn lives(bytes: usize, pause: Duration) -> Duration {
        let (near, mut far) = duplex(bytes);
        let mut stream = WriteDeadline::new(near, PACE);
        let began = Instant::now();
        let reading = async {
            let mut taken = vec![0; bytes];
            loop {
                sleep(pause).await;
                far.read_exact(&mut taken).await.unwrap();
            }
        };
        let writing = stream.write_all(&[0; 30_000]);
        tokio::select! {
            _ = writing => {}
            () = reading => {}
        }
        began.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_must_take_its_answer_at_a_pace() {
        assert_eq!(lives(1, Duration::from_secs(19)).await.as_secs(), 20, "a byte now and then");
        let slow = lives(50, Duration::from_secs(1)).await;
        assert!(slow > BEHIND && slow < 3 * BEHIND, "half the pace: {slow:?}");
        assert_eq!(lives(1_500, Duration::from_secs(14)).await.as_secs(), 19 * 14, "a pace with pauses: all is taken");
    }

    #[tokio::test(start_paused = true)]
    async fn only_time_in_which_a_write_waits_counts() {
        let (near, mut far) = duplex(4);
        let mut stream = WriteDeadline::new(near, PACE);
        let mut taken = [0; 4];
        for _ in 0..3 {
            stream.write_all(b"word").await.unwrap();
            sleep(2 * BEHIND).await;
            far.read_exact(&mut taken).await.unwrap();
        }
        stream.write_all(b"word").await.unwrap();
        assert_eq!(stream.credit, BEHIND);
    }
}
