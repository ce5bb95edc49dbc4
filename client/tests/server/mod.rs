//! Small server of known timing for tests, with or without TLS: streams tokens at a fixed pace, or misbehaves in a named
//! way.
#![allow(dead_code, reason = "each test uses a part of it")]

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Least time to the first token.
pub(crate) const TTFT: Duration = Duration::from_millis(40);
/// Least gap between tokens.
pub(crate) const GAP: Duration = Duration::from_millis(6);

/// Behaviour of a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Behaviour {
    /// Streams as asked, with usage at the end.
    Good,
    /// Streams as asked, without usage.
    WithoutUsage,
    /// Streams, but puts two tokens into each event.
    TwoPerEvent,
    /// Streams without an end.
    Endless,
    /// Answers 500.
    Fails,
    /// Refuses `ignore_eos` with 400.
    RefusesIgnoreEos,
    /// Sends two tokens and nothing more.
    FallsSilent,
    /// Sends two tokens and closes the connection.
    HangsUp,
    /// Sends two tokens and an error object.
    SendsError,
    /// Ends the stream without a token.
    SaysNothing,
    /// Generates tokens that have no text: the only event with a choice is the one that ends it.
    WithoutText,
    /// Closes every connection when the first bytes arrive.
    Slams,
    /// Answers the first bytes with 400, as servers do that cannot read them.
    Objects,
}

/// What connections begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Opening {
    Plain,
    /// TLS with the certificate `one` for the name localhost.
    Tls,
}

/// File of a certificate of the tests: `one` or `two`, both for the name localhost.
pub(crate) fn certificate(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../node/tests/support/certificates")).join(name)
}

/// Server on a port of its own; ends with the test's runtime.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    /// Connections and requests so far.
    pub(crate) connections: Arc<AtomicUsize>,
    pub(crate) requests: Arc<AtomicUsize>,
}

impl Server {
    pub(crate) async fn start(behaviour: Behaviour) -> Server {
        Server::opening(Opening::Plain, behaviour).await
    }

    pub(crate) async fn opening(opening: Opening, behaviour: Behaviour) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (connections, requests) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (connected, asked) = (Arc::clone(&connections), Arc::clone(&requests));
        let acceptor = acceptor();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connected.fetch_add(1, Ordering::SeqCst);
                let (acceptor, asked) = (acceptor.clone(), Arc::clone(&asked));
                tokio::spawn(async move {
                    stream.set_nodelay(true)?;
                    match opening {
                        Opening::Plain => serve(stream, behaviour, asked).await,
                        Opening::Tls => serve(acceptor.accept(stream).await?, behaviour, asked).await,
                    }
                });
            }
        });
        Server { address, connections, requests }
    }
}

fn acceptor() -> TlsAcceptor {
    let chain = vec![CertificateDer::from_pem_file(certificate("one.pem")).unwrap()];
    let key = PrivateKeyDer::from_pem_file(certificate("one.key")).unwrap();
    let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    TlsAcceptor::from(Arc::new(builder.with_single_cert(chain, key).unwrap()))
}

async fn serve<S: Stream>(mut stream: S, behaviour: Behaviour, requests: Arc<AtomicUsize>) -> std::io::Result<()> {
    let mut received = Vec::new();
    if matches!(behaviour, Behaviour::Slams | Behaviour::Objects) {
        stream.read_buf(&mut received).await?;
        return if behaviour == Behaviour::Slams {
            Ok(())
        } else {
            plain(&mut stream, "400 Bad Request", "what?").await
        };
    }
    loop {
        let Some(body) = read_request(&mut stream, &mut received).await? else { return Ok(()) };
        requests.fetch_add(1, Ordering::SeqCst);
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        match behaviour {
            Behaviour::Fails => plain(&mut stream, "500 Internal Server Error", "out of order").await?,
            Behaviour::RefusesIgnoreEos if body.get("ignore_eos").is_some() => {
                plain(&mut stream, "400 Bad Request", "ignore_eos is not known").await?;
            }
            _ => answer(&mut stream, behaviour, &body).await?,
        }
        if behaviour == Behaviour::HangsUp {
            return Ok(());
        }
    }
}

/// Connection, with or without TLS.
trait Stream: AsyncRead + AsyncWrite + Unpin {}

impl<S: AsyncRead + AsyncWrite + Unpin> Stream for S {}

/// Reads headers and body of the next request; `None` at the end of the connection.
async fn read_request<S: Stream>(stream: &mut S, received: &mut Vec<u8>) -> std::io::Result<Option<Vec<u8>>> {
    loop {
        if let Some(head) = received.windows(4).position(|window| window == b"\r\n\r\n") {
            let headers = String::from_utf8_lossy(&received[..head]).to_lowercase();
            let length = headers.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            let end = head + 4 + length.unwrap_or(0);
            if received.len() >= end {
                let body = received[head + 4..end].to_vec();
                received.drain(..end);
                return Ok(Some(body));
            }
        }
        if stream.read_buf(received).await? == 0 {
            return Ok(None);
        }
    }
}

async fn plain<S: Stream>(stream: &mut S, status: &str, message: &str) -> std::io::Result<()> {
    let body = format!("{{\"error\":{{\"message\":\"{message}\"}}}}");
    stream.write_all(format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).as_bytes()).await
}

async fn answer<S: Stream>(stream: &mut S, behaviour: Behaviour, body: &serde_json::Value) -> std::io::Result<()> {
    sleep(TTFT).await;
    stream
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
        .await?;
    let tokens = body["max_tokens"].as_u64().unwrap_or(1);
    let events = match behaviour {
        Behaviour::Endless => u64::MAX,
        Behaviour::TwoPerEvent => tokens / 2,
        Behaviour::FallsSilent | Behaviour::HangsUp | Behaviour::SendsError => 2,
        Behaviour::SaysNothing | Behaviour::WithoutText => 0,
        _ => tokens,
    };
    for event in 0..events {
        if event > 0 {
            sleep(GAP).await;
        }
        send(stream, r#"{"choices":[{"index":0,"text":" x","finish_reason":null}]}"#).await?;
    }
    if behaviour == Behaviour::WithoutText {
        send(stream, r#"{"choices":[{"index":0,"text":"","finish_reason":"length"}]}"#).await?;
    }
    match behaviour {
        Behaviour::FallsSilent => sleep(Duration::from_secs(3600)).await,
        Behaviour::HangsUp => return Ok(()),
        Behaviour::SendsError => send(stream, r#"{"error":{"message":"the worker was lost"}}"#).await?,
        Behaviour::WithoutUsage => {}
        _ => {
            let prompt = body["prompt"].as_array().map_or(0, Vec::len);
            let tokens = if behaviour == Behaviour::SaysNothing { 0 } else { tokens };
            let usage = format!(r#"{{"prompt_tokens":{prompt},"completion_tokens":{tokens}}}"#);
            send(stream, &format!(r#"{{"choices":[],"usage":{usage}}}"#)).await?;
        }
    }
    send(stream, "[DONE]").await?;
    stream.write_all(b"0\r\n\r\n").await
}

async fn send<S: Stream>(stream: &mut S, data: &str) -> std::io::Result<()> {
    let event = format!("data: {data}\n\n");
    stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).await
}
