//! Reasons why a deployment cannot start or go on, beyond the errors of its parts.

use std::time::Duration;

use thiserror::Error;

/// Failure of the deployment as a whole.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Prefill and decode cannot exchange KV.
    #[error("the KV cache cannot be moved over {transport}: {problem}")]
    KvCannotMove {
        /// Transport that was tried last.
        transport: &'static str,
        /// Report of the pair.
        problem: String,
    },
    /// Prefill and decode workers do not fit each other.
    #[error("prefill and decode cannot hand KV over, whatever the transport: {problem}")]
    Incompatible {
        /// Report of the pair.
        problem: String,
    },
    /// No directory can hold the files of the deployment's processes.
    #[error("no directory for the files of this run: {problems}; TMPDIR may name one")]
    NoDirectory {
        /// Problem of each directory that was tried.
        problems: String,
    },
    /// The router found no worker.
    #[error("the router has reached no worker within {waited:?}")]
    NoWorker {
        /// Time that it tried.
        waited: Duration,
    },
    /// The router ended although nobody asked it to.
    #[error("the router ended by itself")]
    RouterEnded,
}
