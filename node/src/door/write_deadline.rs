//! A connection that fails when its other end takes nothing for too long; knows not what is written.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// Wraps a connection. While a client takes nothing, nobody asks its answer for more, so nothing else would ever notice
/// and the answer would keep its place for good.
#[derive(Debug)]
pub(super) struct WriteDeadline<S> {
    stream: S,
    unread_time_max: Duration,
    /// Runs while a write waits.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl<S> WriteDeadline<S> {
    pub(super) fn new(stream: S, unread_time_max: Duration) -> WriteDeadline<S> {
        WriteDeadline { stream, unread_time_max, deadline: None }
    }

    /// What a write has come to; one that waits for too long has failed.
    fn bounded<T>(&mut self, written: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            self.deadline = None;
            return written;
        }
        let time = self.unread_time_max;
        ready!(self.deadline.get_or_insert_with(|| Box::pin(sleep(time))).as_mut().poll(context));
        let message = format!("writing an answer: the client has taken nothing for {time:?}");
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, message)))
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
        self.bounded(written, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.bounded(written, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.stream).poll_flush(context);
        self.bounded(flushed, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let closed = Pin::new(&mut self.stream).poll_shutdown(context);
        self.bounded(closed, context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const SHORT: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_client_that_takes_nothing_is_given_up() {
        let (near, _far) = duplex(4);
        let mut stream = WriteDeadline::new(near, SHORT);
        let error = stream.write_all(b"more than fits").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        assert!(error.to_string().contains("20ms"), "{error}");
    }

    #[tokio::test]
    async fn only_time_in_which_a_write_waits_counts() {
        let (near, mut far) = duplex(4);
        let mut stream = WriteDeadline::new(near, SHORT);
        let mut taken = [0; 4];
        for _ in 0..3 {
            stream.write_all(b"word").await.unwrap();
            sleep(2 * SHORT).await;
            far.read_exact(&mut taken).await.unwrap();
        }
        let (mut stream, mut taken) = (WriteDeadline::new(stream.stream, Duration::from_secs(60)), [0; 8]);
        let (written, read) = tokio::join!(stream.write_all(b"two more"), far.read_exact(&mut taken));
        written.unwrap();
        read.unwrap();
        assert!(stream.deadline.is_none(), "something was taken, so the next wait starts anew");
    }
}
