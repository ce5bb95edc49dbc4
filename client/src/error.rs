//! Errors of the crate; knows no exit codes.

use std::path::PathBuf;
use std::time::Duration;

/// Result with an error of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Reason why something could not be sent, read, made or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The target is no valid address.
    #[error("target {target}: {problem}")]
    Target {
        /// Target as it was given.
        target: String,
        /// Expected form.
        problem: &'static str,
    },
    /// The API key cannot be sent in a header.
    #[error("the API key contains characters that a header cannot carry")]
    ApiKey,
    /// No server answers at the address.
    #[error("connecting to {authority}")]
    Unreachable {
        /// Host and port.
        authority: String,
        /// Refusal of the system.
        source: std::io::Error,
    },
    /// The server did not accept a connection in time.
    #[error("connecting to {authority} took longer than {after:?}")]
    ConnectTimeout {
        /// Host and port.
        authority: String,
        /// Deadline.
        after: Duration,
    },
    /// The server has no TLS, or a certificate that is not trusted.
    #[error("TLS with {authority}: {problem}")]
    Tls {
        /// Host and port.
        authority: String,
        /// Meaning of the cause.
        problem: &'static str,
        /// Cause.
        source: std::io::Error,
    },
    /// The system has no authority to trust.
    #[error("no certificates of authorities on this system ({0}); --ca FILE names whom to trust")]
    NoAuthorities(String),
    /// TLS cannot be set up at all.
    #[error("setting up TLS")]
    TlsSettings(#[source] tokio_rustls::rustls::Error),
    /// The request cannot be written as HTTP.
    #[error("request to {path}")]
    Request {
        /// Path on the server.
        path: String,
        /// Problem with method, path or header.
        source: hyper::http::Error,
    },
    /// The connection ended in the middle of a request or an answer.
    #[error("{path} at {authority}: the connection broke")]
    Broken {
        /// Path on the server.
        path: String,
        /// Host and port.
        authority: String,
        /// Cause.
        source: hyper::Error,
    },
    /// What answers is not HTTP/1.1.
    #[error("{path} at {authority}: what answers is not HTTP; a port with TLS needs https://")]
    NoHttp {
        /// Path on the server.
        path: String,
        /// Host and port.
        authority: String,
        /// Cause.
        source: hyper::Error,
    },
    /// The answer or its next part did not come in time.
    #[error("{path}: nothing arrived for {after:?}")]
    Stalled {
        /// Path on the server.
        path: String,
        /// Deadline.
        after: Duration,
    },
    /// The server answered with a status other than 2xx.
    #[error("{path}: {status}: {message}")]
    Status {
        /// Path on the server.
        path: String,
        /// Status code.
        status: u16,
        /// Message of the server.
        message: String,
    },
    /// The answer is not the JSON that was expected.
    #[error("{path}: the answer is not as expected: {text:?}")]
    Answer {
        /// Path on the server.
        path: String,
        /// Beginning of the answer.
        text: String,
        /// Problem.
        source: serde_json::Error,
    },
    /// An answer or an event is larger than this client accepts.
    #[error("{path}: the answer is larger than {bytes_max} bytes")]
    TooLarge {
        /// Path on the server.
        path: String,
        /// Limit.
        bytes_max: usize,
    },
    /// The stream ended early.
    #[error("the stream ended without [DONE]")]
    Unfinished,
    /// The stream ended with an `error` object.
    #[error("the stream ended with an error: {0}")]
    ErrorEvent(String),
    /// The server lists no model.
    #[error("the server at {0} serves no model")]
    NoModel(String),
    /// A line of a file cannot be used.
    #[error("{}:{line}: {problem}", file.display())]
    Line {
        /// File.
        file: PathBuf,
        /// Line, from 1.
        line: usize,
        /// Problem, with the name of the field.
        problem: String,
    },
    /// A file cannot be used as a whole.
    #[error("{}: {problem}", file.display())]
    File {
        /// File.
        file: PathBuf,
        /// Problem.
        problem: String,
    },
    /// A file cannot be read or written.
    #[error("{}", file.display())]
    Io {
        /// File.
        file: PathBuf,
        /// Refusal of the system.
        source: std::io::Error,
    },
    /// Settings of a workload, an SLO or a sweep that cannot work.
    #[error("{0}")]
    Settings(String),
}
