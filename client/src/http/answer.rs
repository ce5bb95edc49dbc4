//! Whole answer with its status and headers; knows no request.

use bytes::Bytes;
use hyper::{HeaderMap, StatusCode};
use serde_json::Value;

use crate::{Error, Result};

/// Most characters of a server's answer that an error quotes.
const QUOTED_CHARS_MAX: usize = 500;

/// Whole answer, whatever its status.
#[derive(Debug)]
pub struct Answer {
    /// Status.
    pub status: StatusCode,
    /// Headers.
    pub headers: HeaderMap,
    /// Body.
    pub body: Bytes,
}

impl Answer {
    /// Body as a text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Returns the answer if its status is 2xx.
    pub(super) fn accepted(self, path: &str) -> Result<Answer> {
        if self.status.is_success() { Ok(self) } else { Err(self.refusal(path)) }
    }

    /// Error of a status other than 2xx, with the server's message.
    pub(super) fn refusal(&self, path: &str) -> Error {
        let parsed: Option<Value> = serde_json::from_slice(&self.body).ok();
        let message = parsed.as_ref().and_then(|value| value["error"]["message"].as_str());
        let message = message.map_or_else(|| beginning(&self.body), str::to_string);
        Error::Status { path: path.to_owned(), status: self.status.as_u16(), message }
    }

    /// Body as JSON.
    pub(super) fn json(&self, path: &str) -> Result<Value> {
        let unexpected = |source| Error::Answer { path: path.to_owned(), text: beginning(&self.body), source };
        serde_json::from_slice(&self.body).map_err(unexpected)
    }
}

pub(super) fn beginning(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).chars().take(QUOTED_CHARS_MAX).collect()
}
