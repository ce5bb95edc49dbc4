//! A door on a port of its own, and clients that speak to it byte by byte.
#![allow(dead_code, reason = "each test file uses its own part")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::Response;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Frame;
use node::door::{ConnectionLimits, Crowded, Phase, ReadingPace, Tls, serve};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::timeout;

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);
/// Bytes of the answer at `/large`.
pub(crate) const LARGE_BYTES: usize = 4 << 20;

/// Limits that no test reaches unless it changes them.
pub(crate) fn limits() -> ConnectionLimits {
    ConnectionLimits {
        connections_max: 100,
        head_time_max: PATIENCE,
        reading: ReadingPace { behind_max: PATIENCE, bytes_per_s_min: 1 },
    }
}

pub(crate) struct Door {
    pub(crate) address: SocketAddr,
    pub(crate) phase: watch::Sender<Phase>,
    serving: JoinHandle<()>,
}

impl Door {
    pub(crate) async fn open(limits: ConnectionLimits, tls: Option<Tls>) -> Door {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (phase, seen) = watch::channel(Phase::Open);
        let serving = tokio::spawn(serve(listener, (limits, tls), seen, answer));
        Door { address, phase, serving }
    }

    pub(crate) async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Shuts the door and waits until everybody is gone.
    pub(crate) async fn shut(self) {
        self.phase.send_replace(Phase::Shut);
        timeout(PATIENCE, self.serving).await.expect("everybody leaves").unwrap();
    }
}

/// `/large` is large, `/never` never ends, `/slow` ends after a moment; all others say their version.
async fn answer(request: Request) -> Response {
    if request.extensions().get::<Crowded>().is_some() {
        return Response::new(Body::from("crowded"));
    }
    match request.uri().path() {
        "/large" => Response::new(Body::from(vec![b'x'; LARGE_BYTES])),
        "/never" => Response::new(Body::new(StreamBody::new(futures_util::stream::pending::<
            Result<Frame<Bytes>, Infallible>,
        >()))),
        "/slow" => {
            tokio::time::sleep(Duration::from_millis(300)).await;
            Response::new(Body::from("slow"))
        }
        _ => {
            let version = format!("{:?}", request.version());
            let body = request.into_body().collect().await.map(|body| body.to_bytes().len());
            Response::new(Body::from(format!("{version} {}", body.unwrap_or_default())))
        }
    }
}

/// Reads until the other side closes; fails if it does not.
pub(crate) async fn until_closed(stream: &mut (impl AsyncRead + Unpin)) -> Vec<u8> {
    let mut read = Vec::new();
    // Unread bytes may turn the end into a reset, which is one too.
    let _ = timeout(PATIENCE, stream.read_to_end(&mut read)).await.expect("the connection is closed");
    read
}

pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RESET: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
pub(crate) const END_STREAM: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
pub(crate) const ACK: u8 = 1;

/// A frame of HTTP/2.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = (payload.len() as u32).to_be_bytes()[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// Preface and settings of a client that gives each stream so much room.
pub(crate) fn hello(window: u32) -> Vec<u8> {
    let mut setting = 4_u16.to_be_bytes().to_vec();
    setting.extend(window.to_be_bytes());
    [PREFACE, &frame(SETTINGS, 0, 0, &setting)].concat()
}

/// The head of `GET path`, as HPACK without Huffman codes.
pub(crate) fn head(path: &str) -> Vec<u8> {
    let text = |index: u8, text: &str| [&[index, text.len() as u8], text.as_bytes()].concat();
    // Indices of the static table: 2 is the method GET, 6 the scheme http; 4 is the path, 1 the authority.
    [vec![0x82, 0x86], text(0x04, path), text(0x01, "localhost")].concat()
}

pub(crate) fn get(stream: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &head(path))
}

/// Kind, flags, stream and payload of the next frame; `None` at the end.
pub(crate) async fn next_frame(stream: &mut (impl AsyncRead + Unpin)) -> Option<(u8, u8, u32, Vec<u8>)> {
    let mut head = [0; 9];
    timeout(PATIENCE, stream.read_exact(&mut head)).await.expect("a frame in time").ok()?;
    let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
    let mut payload = vec![0; length];
    stream.read_exact(&mut payload).await.ok()?;
    Some((head[3], head[4], u32::from_be_bytes([head[5], head[6], head[7], head[8]]), payload))
}

/// Reads frames up to one of this kind, and returns its stream and payload; `None` if the connection ends before.
pub(crate) async fn frame_of(stream: &mut (impl AsyncRead + Unpin), wanted: u8) -> Option<(u32, Vec<u8>)> {
    loop {
        let (kind, flags, number, payload) = next_frame(stream).await?;
        let is_acknowledgement = matches!(kind, SETTINGS | PING) && flags & ACK == ACK;
        if kind == wanted && !is_acknowledgement {
            return Some((number, payload));
        }
    }
}

/// Writes as much as the other side takes; it may have closed the connection.
pub(crate) async fn send(stream: &mut (impl AsyncWrite + Unpin), bytes: &[u8]) {
    let _ = timeout(PATIENCE, stream.write_all(bytes)).await;
}
