//! Failures of requests, by kind; knows no server.

use serde::Serialize;

use crate::Error;

/// Failure of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Kind.
    pub kind: FailureKind,
    /// Message.
    pub message: String,
}

/// Kind of a failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FailureKind {
    /// Nobody listens at the address, or no connection came up in time or with trust.
    Refused,
    /// The server answered with this status.
    Status(u16),
    /// The connection or the stream broke off.
    Broken,
    /// The stream ended with an `error` object.
    ErrorEvent,
    /// Nothing arrived for the time of silence that is allowed.
    Stalled,
    /// The request took longer than a request may.
    Deadline,
    /// The answer is not JSON, or is too large.
    Malformed,
    /// The stream ended without any token.
    NoTokens,
    /// The request was still running when the time to drain was over.
    Cut,
    /// The run was ended by its user while the request ran; says nothing about the server.
    Interrupted,
    /// Too many requests were in flight: this one was due and was not sent.
    NotSent,
}

impl Serialize for FailureKind {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.label())
    }
}

impl FailureKind {
    /// Name in reports.
    #[must_use]
    pub fn label(self) -> String {
        match self {
            FailureKind::Refused => "refused".to_owned(),
            FailureKind::Status(status) => format!("status_{status}"),
            FailureKind::Broken => "broken".to_owned(),
            FailureKind::ErrorEvent => "error_event".to_owned(),
            FailureKind::Stalled => "stalled".to_owned(),
            FailureKind::Deadline => "deadline".to_owned(),
            FailureKind::Malformed => "malformed".to_owned(),
            FailureKind::NoTokens => "no_tokens".to_owned(),
            FailureKind::Cut => "cut".to_owned(),
            FailureKind::Interrupted => "interrupted".to_owned(),
            FailureKind::NotSent => "not_sent".to_owned(),
        }
    }

    /// True if the failure counts as a missed target. What the user ended says nothing about the server.
    #[must_use]
    pub fn counts(self) -> bool {
        self != FailureKind::Interrupted
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        let kind = match &error {
            Error::Unreachable { .. } | Error::ConnectTimeout { .. } | Error::Tls { .. } => FailureKind::Refused,
            Error::Status { status, .. } => FailureKind::Status(*status),
            Error::Stalled { .. } => FailureKind::Stalled,
            Error::ErrorEvent(_) => FailureKind::ErrorEvent,
            Error::Answer { .. } | Error::TooLarge { .. } => FailureKind::Malformed,
            Error::Broken { .. }
            | Error::NoHttp { .. }
            | Error::NoAuthorities(_)
            | Error::TlsSettings(_)
            | Error::Unfinished
            | Error::Request { .. }
            | Error::Target { .. }
            | Error::ApiKey
            | Error::NoModel(_)
            | Error::Line { .. }
            | Error::File { .. }
            | Error::Io { .. }
            | Error::Settings(_) => FailureKind::Broken,
        };
        let mut message = error.to_string();
        let mut cause = std::error::Error::source(&error);
        while let Some(inner) = cause {
            message.push_str(": ");
            message.push_str(&inner.to_string());
            cause = inner.source();
        }
        Failure { kind, message }
    }
}
