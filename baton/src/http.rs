//! A small HTTP/1.1 client for the commands that talk to a router; knows no OpenAI types, only JSON and event streams.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

const CONNECT_DEADLINE: Duration = Duration::from_secs(5);
const ANSWER_DEADLINE: Duration = Duration::from_secs(600);
const BODY_BYTES_MAX: usize = 64 << 20;

/// An endpoint to talk to, one connection per call.
#[derive(Debug, Clone)]
pub struct Client {
    authority: String,
}

impl Client {
    /// A client of `target`, given as `http://host:port` or `host:port`.
    pub fn new(target: &str) -> Result<Client> {
        ensure!(
            !target.starts_with("https://"),
            "target {target}: only http:// is spoken here, put TLS in front of it"
        );
        let authority = target.strip_prefix("http://").unwrap_or(target).trim_end_matches('/').to_string();
        ensure!(authority.contains(':') && !authority.contains('/'), "target {target}: expected http://HOST:PORT");
        Ok(Client { authority })
    }

    /// `GET path`, as text with its status.
    pub async fn get(&self, path: &str) -> Result<(StatusCode, String)> {
        let response = self.send(Method::GET, path, Bytes::new()).await?;
        let status = response.status();
        Ok((status, String::from_utf8_lossy(&collect(response).await?).into_owned()))
    }

    /// `POST path` with a JSON body; a status other than 2xx is an error that carries the server's message.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let response = self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await?;
        let status = response.status();
        let bytes = collect(response).await?;
        ensure!(status.is_success(), "POST {path}: {status}: {}", message_of(&bytes));
        serde_json::from_slice(&bytes).with_context(|| format!("POST {path}: the answer is not JSON"))
    }

    /// `POST path` with a JSON body, answered by an event stream.
    pub async fn stream(&self, path: &str, body: &Value) -> Result<EventStream> {
        let response = self.send(Method::POST, path, serde_json::to_vec(body)?.into()).await?;
        let status = response.status();
        if !status.is_success() {
            let bytes = collect(response).await?;
            bail!("POST {path}: {status}: {}", message_of(&bytes));
        }
        Ok(EventStream { body: response.into_body(), buffer: Vec::new() })
    }

    async fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Response<Incoming>> {
        let mut sender = self.connect().await?;
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
            .with_context(|| format!("connecting to {}", self.authority))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // The connection ends with its sender; an error on it reaches the caller through the response.
        tokio::spawn(connection);
        Ok(sender)
    }
}

/// Server-sent events of one answer.
#[derive(Debug)]
pub struct EventStream {
    body: Incoming,
    buffer: Vec<u8>,
}

impl EventStream {
    /// The data of the next event; `None` after `[DONE]` or the end. An `error` object in the stream is an error.
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
                    if let Ok(data) = frame.context("the stream broke")?.into_data() {
                        self.buffer.extend_from_slice(&data);
                    }
                    ensure!(self.buffer.len() <= BODY_BYTES_MAX, "an event is larger than {BODY_BYTES_MAX} bytes");
                }
                None => bail!("the stream ended without [DONE]"),
            }
        }
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
