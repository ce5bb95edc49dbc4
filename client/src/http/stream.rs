//! Event stream of one answer: frames become events; knows `[DONE]` and the `error` object, nothing else of the API.

use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use hyper::body::Incoming;
use serde_json::Value;
use tokio::time::timeout;

use super::answer::beginning;
use super::client::Client;
use super::pool::Connection;
use super::sse::SseParser;
use crate::{Error, Result};

const EVENT_BYTES_MAX: usize = 64 << 20;
/// Time for the body's end after `[DONE]`; without it the connection is not used again.
const END_DEADLINE: Duration = Duration::from_secs(1);

/// Server-sent events of one answer. Dropping it before its end closes the connection, which cancels the request.
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    path: String,
    body: Incoming,
    connection: Option<Connection>,
    parser: SseParser,
    arrived: Instant,
}

impl EventStream {
    pub(super) fn new(client: Client, path: &str, body: Incoming, connection: Connection) -> EventStream {
        let parser = SseParser::default();
        let path = path.to_owned();
        EventStream { client, path, body, connection: Some(connection), parser, arrived: Instant::now() }
    }

    /// Reads the next event; false after `[DONE]`. The end of the body before that is an error.
    pub async fn advance(&mut self) -> Result<bool> {
        loop {
            if self.parser.advance() {
                if self.parser.data() == b"[DONE]" {
                    self.finish().await;
                    return Ok(false);
                }
                return Ok(true);
            }
            let after = self.client.deadlines().silence;
            let frame = timeout(after, self.body.frame()).await;
            let frame = frame.map_err(|_| Error::Stalled { path: self.path.clone(), after })?;
            let Some(frame) = frame else { return Err(Error::Unfinished) };
            self.arrived = Instant::now();
            if let Ok(data) = frame.map_err(|error| self.client.broken(&self.path, error))?.into_data() {
                self.parser.push(&data);
            }
            if self.parser.held_bytes() > EVENT_BYTES_MAX {
                return Err(Error::TooLarge { path: self.path.clone(), bytes_max: EVENT_BYTES_MAX });
            }
        }
    }

    /// Data of the event that was read last.
    #[must_use]
    pub fn data(&self) -> &[u8] {
        self.parser.data()
    }

    /// Returns the next event as JSON; `None` after `[DONE]`. An `error` object is an error.
    pub async fn next(&mut self) -> Result<Option<Value>> {
        if !self.advance().await? {
            return Ok(None);
        }
        let value: Value = serde_json::from_slice(self.data()).map_err(|source| self.malformed(source))?;
        match value.get("error").filter(|error| !error.is_null()) {
            Some(error) => {
                let message = error["message"].as_str().or(error.as_str()).unwrap_or("(no message)");
                Err(Error::ErrorEvent(message.to_owned()))
            }
            None => Ok(Some(value)),
        }
    }

    /// Error that names the last event as one that is not the expected JSON.
    #[must_use]
    pub fn malformed(&self, source: serde_json::Error) -> Error {
        Error::Answer { path: self.path.clone(), text: beginning(self.data()), source }
    }

    /// Returns when the bytes of the last event arrived; several events may arrive together.
    #[must_use]
    pub fn arrived(&self) -> Instant {
        self.arrived
    }

    /// Reads to the end of the body, so that the connection can carry the next request.
    async fn finish(&mut self) {
        let end = async { while let Some(Ok(_)) = self.body.frame().await {} };
        if timeout(END_DEADLINE, end).await.is_ok()
            && let Some(connection) = self.connection.take()
        {
            self.client.put_back(connection);
        }
    }
}
