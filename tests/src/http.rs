//! HTTP client for tests: blocking calls of the crate `client`, with raw status, headers and body, and streams that can be
//! hung up.

use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use client::http::{Client, Deadlines, EventStream};
use serde_json::Value;
use tokio::runtime::{Builder, Runtime};

/// Enough for a prompt of 1,500 tokens in a model of 1.1 billion parameters: two minutes on one slow core.
const DEADLINE: Duration = Duration::from_secs(240);

/// Complete answer.
#[derive(Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// Header lines in lower case, `name: value`.
    pub headers: Vec<String>,
    /// Body.
    pub body: String,
}

impl Answer {
    /// Parses the body as JSON.
    pub fn json(&self) -> Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("not JSON: {:?}", self.body))
    }
}

/// Sends `GET path`.
pub fn get(address: SocketAddr, path: &str) -> Result<Answer> {
    Ok(Answer::from(runtime()?.block_on(client(address)?.get(path))?))
}

/// Sends `POST path` with a JSON body.
pub fn post(address: SocketAddr, path: &str, body: &Value) -> Result<Answer> {
    post_text(address, path, &body.to_string())
}

/// Sends `POST path` with a text as the body.
pub fn post_text(address: SocketAddr, path: &str, body: &str) -> Result<Answer> {
    Ok(Answer::from(runtime()?.block_on(client(address)?.post_bytes(path, body.to_owned().into()))?))
}

/// Sends `POST path`; the answer is an event stream, and dropping it hangs up.
pub fn stream(address: SocketAddr, path: &str, body: &Value) -> Result<Events> {
    Ok(Events { stream: runtime()?.block_on(client(address)?.stream(path, body.to_string().into()))? })
}

/// Server-sent events of one answer.
#[derive(Debug)]
pub struct Events {
    stream: EventStream,
}

impl Events {
    /// Returns the next event's data; `None` after `[DONE]`.
    pub fn next_data(&mut self) -> Result<Option<Value>> {
        if !runtime()?.block_on(self.stream.advance())? {
            return Ok(None);
        }
        let data = self.stream.data();
        let event = serde_json::from_slice(data);
        event.with_context(|| format!("event {:?}", String::from_utf8_lossy(data))).map(Some)
    }

    /// Returns every event until `[DONE]`.
    pub fn collect(mut self) -> Result<Vec<Value>> {
        let mut events = Vec::new();
        while let Some(event) = self.next_data()? {
            events.push(event);
        }
        Ok(events)
    }
}

impl From<client::http::Answer> for Answer {
    fn from(answer: client::http::Answer) -> Answer {
        let line = |(name, value): (_, &[u8])| format!("{name}: {}", String::from_utf8_lossy(value).to_lowercase());
        Answer {
            status: answer.status.as_u16(),
            headers: answer.headers.iter().map(|(name, value)| line((name, value.as_bytes()))).collect(),
            body: answer.text(),
        }
    }
}

/// Returns a client with connections of its own: each call opens one, which ends with the answer.
fn client(address: SocketAddr) -> Result<Client> {
    let deadlines = Deadlines { connect: DEADLINE, silence: DEADLINE };
    Ok(Client::new(&address.to_string())?.with_deadlines(deadlines))
}

/// Returns the runtime of all connections. It has a thread of its own, so that a stream hangs up as soon as it is dropped,
/// although no test waits for anything.
fn runtime() -> Result<&'static Runtime> {
    static RUNTIME: LazyLock<std::io::Result<Runtime>> =
        LazyLock::new(|| Builder::new_multi_thread().worker_threads(1).enable_all().build());
    RUNTIME.as_ref().map_err(|error| anyhow!("no runtime for connections: {error}"))
}
