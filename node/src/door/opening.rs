//! The beginning of a connection: TLS where the listener has it, within a bounded time; knows no HTTP but one answer.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use super::tls::Tls;

/// Longest time for a handshake, which costs a client one or two round trips.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(10);
/// First byte of a TLS connection; no HTTP request begins with it.
const TLS_HANDSHAKE: u8 = 0x16;
const NOT_TLS: &str = "This port speaks HTTPS and not plain HTTP.\n";
/// Bounds on what is read of such a client, so that it gets the answer and not a reset.
const LEFT_BYTES_MAX: u64 = 64 << 10;
const LEFT_TIME_MAX: Duration = Duration::from_secs(1);

/// Connection of a client, ready for HTTP.
#[derive(Debug)]
pub(super) enum Opened {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Opens a connection within `time_max`. Fails when the client is too slow or speaks something else.
pub(super) async fn open(stream: TcpStream, tls: Option<&Tls>, time_max: Duration) -> io::Result<Opened> {
    let Some(tls) = tls else { return Ok(Opened::Plain(stream)) };
    let opening = async {
        let mut first = [0];
        if stream.peek(&mut first).await? > 0 && first != [TLS_HANDSHAKE] {
            refuse(stream).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the client does not speak TLS"));
        }
        Ok(Opened::Tls(Box::new(tls.acceptor().accept(stream).await?)))
    };
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "the TLS handshake takes too long");
    timeout(time_max.min(HANDSHAKE_TIME_MAX), opening).await.map_err(late)?
}

async fn refuse(mut stream: TcpStream) -> io::Result<()> {
    let head = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close";
    let answer = format!("{head}\r\ncontent-length: {}\r\n\r\n{NOT_TLS}", NOT_TLS.len());
    stream.write_all(answer.as_bytes()).await?;
    stream.shutdown().await?;
    let left = async { tokio::io::copy(&mut (&mut stream).take(LEFT_BYTES_MAX), &mut tokio::io::sink()).await };
    let _ = timeout(LEFT_TIME_MAX, left).await;
    Ok(())
}

impl AsyncRead for Opened {
    fn poll_read(self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Opened::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Opened::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Opened {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Opened::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Opened::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Opened::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Opened::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Opened::Plain(stream) => stream.is_write_vectored(),
            Opened::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Opened::Plain(stream) => Pin::new(stream).poll_flush(context),
            Opened::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Opened::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Opened::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
