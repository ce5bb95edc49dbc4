//! Why a deployment cannot start or go on, beyond what its parts say themselves.

use std::time::Duration;

use thiserror::Error;

/// A failure of the deployment as a whole.
#[derive(Debug, Error)]
pub enum ServeError {
    /// Prefill and decode cannot exchange KV.
    #[error("the KV cache cannot be moved over {transport}: {problem}")]
    KvCannotMove {
        /// The transport that was tried last.
        transport: &'static str,
        /// What the pair said.
        problem: String,
    },
    /// Prefill and decode do not fit each other.
    #[error("prefill and decode cannot hand KV over, whatever the transport: {problem}")]
    Incompatible {
        /// What the pair said.
        problem: String,
    },
    /// The files of the deployment's processes can be kept nowhere.
    #[error("no directory for the files of this run: {problems}; TMPDIR may name one")]
    NoDirectory {
        /// What was wrong with each that was tried.
        problems: String,
    },
    /// The router found nobody to work for it.
    #[error("the router has reached no worker within {waited:?}")]
    NoWorker {
        /// How long it tried.
        waited: Duration,
    },
    /// The router ended although nobody asked it to.
    #[error("the router ended by itself")]
    RouterEnded,
}
