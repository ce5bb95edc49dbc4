//! Small HTTP/1.1 client for commands that talk to a router; knows no OpenAI types, only JSON and event streams.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use node::bind::{host_and_port, listen_address};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(600);
const BODY_BYTES_MAX: usize = 64 << 20;

/// Client of one endpoint, with one connection per call.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
    /// Path before `/v1`, mostly empty.
    base: String,
}

/// Error: the target is no valid address.
#[derive(Debug, thiserror::Error)]
#[error("target {target}: {problem}")]
pub struct WrongTarget {
    target: String,
    problem: String,
}

/// Error: no server answers at the address.
#[derive(Debug, thiserror::Error)]
#[error("connecting to {authority}")]
pub struct Unreachable {
    authority: String,
    source: std::io::Error,
}

impl Client {
    /// Makes a client of `target`: `http://host:port`, with or without the `/v1` of other clients, or a port alone.
    pub fn new(target: &str) -> Result<Client, WrongTarget> {
        let wrong = |problem: &str| WrongTarget { target: target.to_owned(), problem: problem.to_owned() };
        if target.starts_with("https://") {
            return Err(wrong("only http:// is spoken here, put TLS in front of it"));
        }
        let bare = target.strip_prefix("http://");
        let (authority, path) = bare.unwrap_or(target).split_once('/').unwrap_or((bare.unwrap_or(target), ""));
        let with_port = match bare {
            // Without a port a URL means port 80.
            Some(_) if !authority.is_empty() && host_and_port(authority).is_err() => format!("{authority}:80"),
            _ => authority.to_owned(),
        };
        let authority = listen_address(&with_port).map_err(|_| wrong("expected http://HOST:PORT"))?;
        let path = path.trim_end_matches('/');
        let path = path.strip_suffix("v1").filter(|rest| rest.is_empty() || rest.ends_with('/')).unwrap_or(path);
        if path.contains(|letter: char| !letter.is_ascii_graphic() || "?#".contains(letter)) {
            return Err(wrong("expected http://HOST:PORT"));
        }
        let base = if path.is_empty() { String::new() } else { format!("/{}", path.trim_matches('/')) };
        Ok(Client { authority, base })
    }

    /// Sends `GET path`; returns status and text.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, String)> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        Ok((status, String::from_utf8_lossy(&collect(response).await?).into_owned()))
    }

    /// Sends `POST path` with a JSON body; a status other than 2xx is an error with the server's message.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await?;
        let status = response.status();
        let bytes = collect(response).await?;
        ensure!(status.is_success(), "POST {path}: {status}: {}", message_of(&bytes));
        serde_json::from_slice(&bytes).with_context(|| format!("POST {path}: the answer is not JSON"))
    }

    /// Sends `POST path` with a JSON body; the answer is an event stream.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<EventStream> {
        let response = self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await?;
        let status = response.status();
        if !status.is_success() {
            let bytes = collect(response).await?;
            bail!("POST {path}: {status}: {}", message_of(&bytes));
        }
        Ok(EventStream { body: response.into_body(), buffer: Vec::new(), arrived: Instant::now() })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let mut sender = self.connect().await?;
        let path = format!("{}{path}", self.base);
        let uri: Uri = path.parse().with_context(|| format!("path {path}"))?;
        let request = Request::builder()
            .method(method)
            .uri(uri)
            .header("host", &self.authority)
            .header("content-type", "application/json")
            .body(Full::new(body))?;
        let answer = timeout(ANSWER_DEADLINE, sender.send_request(request)).await;
        answer.context("no answer in time")?.with_context(|| format!("{path} at {}", self.authority))
    }

    async fn connect(&self) -> Result<SendRequest<Full<Bytes>>> {
        let connected = timeout(CONNECT_DEADLINE, TcpStream::connect(&self.authority)).await;
        let stream = connected
            .with_context(|| format!("connecting to {} took too long", self.authority))?
            .map_err(|source| Unreachable { authority: self.authority.clone(), source })?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The connection ends with its sender; its errors reach the caller through the response.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Server-sent events of one answer.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
    arrived: Instant,
}

impl EventStream {
    /// Returns the data of the next event; `None` after `[DONE]` or the end. An `error` object is an error.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        loop {
            if let Some(data) = self.take_event() {
                if data == "[DONE]" {
                    return Ok(None);
                }
                let value: Value = serde_json::from_str(&data).with_context(|| format!("event {data:?}"))?;
                if let Some(error) = value.get("error") {
                    bail!("the stream ended with an error: {}", error["message"].as_str().unwrap_or("(no message)"));
                }
                return Ok(Some(value));
            }
            let frame = timeout(ANSWER_DEADLINE, self.body.frame()).await.context("the stream stalled")?;
            match frame {
                Some(frame) => {
                    self.arrived = Instant::now();
                    if let Ok(data) = frame.context("the stream broke")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                    ensure!(self.buffer.len() <= BODY_BYTES_MAX, "an event is larger than {BODY_BYTES_MAX} bytes");
                }
                None => bail!("the stream ended without [DONE]"),
            }
        }
    }

    /// Returns when the bytes of the last event arrived; several events may arrive together.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    fn take_event(&mut self) -> Option<String> {
        let end = self.buffer.windows(2).position(|pair| pair == b"\n\n")?;
        let event: Vec<u8> = self.buffer.drain(..end + 2).collect();
        let text = String::from_utf8_lossy(&event);
        let data: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("data: ")).collect();
        Some(data.join("\n"))
    }
}

async fn collect(response: Response<Incoming>) -> Result<Bytes> {
    let limited = http_body_util::Limited::new(response.into_body(), BODY_BYTES_MAX);
    match timeout(ANSWER_DEADLINE, limited.collect()).await.context("the answer stalled")? {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) => bail!("reading the answer: {error}"),
    }
}

fn message_of(body: &[u8]) -> String {
    let parsed: Option<Value> = serde_json::from_slice(body).ok();
    let message = parsed.as_ref().and_then(|value| value["error"]["message"].as_str());
    message.map_or_else(|| String::from_utf8_lossy(body).into_owned(), str::to_string)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_understood_as_people_copy_them() {
        for (target, authority, base) in [
            ("http://127.0.0.1:8000", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/v1", "127.0.0.1:8000", ""),
            ("http://127.0.0.1:8000/v1/", "127.0.0.1:8000", ""),
            ("localhost:8000/v1", "localhost:8000", ""),
            ("http://host/models/a/v1", "host:80", "/models/a"),
            ("http://[::1]:8000/v1", "[::1]:8000", ""),
            ("8000", "127.0.0.1:8000", ""),
            ("http://a:1/v11", "a:1", "/v11"),
        ] {
            let client = Client::new(target).unwrap();
            assert_eq!((client.authority.as_str(), client.base.as_str()), (authority, base), "{target}");
        }
        for target in ["", "https://a:1", "http://", "localhost", "http://a b:1", "ftp://a:1", "http://a:1/x y"] {
            assert!(Client::new(target).is_err(), "{target:?}");
        }
    }
}
