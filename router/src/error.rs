//! Why a router cannot start or go on; what a client gets is an `ApiError` instead.

use std::path::PathBuf;

use thiserror::Error;

/// A failure of the router itself.
#[derive(Debug, Error)]
pub enum Error {
    /// A file of the model cannot be used.
    #[error("cannot use model file {}: {reason}", path.display())]
    ModelFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The tokenizer is not supported or failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The configuration contradicts itself.
    #[error("router configuration: {0}")]
    Config(String),
    /// The operating system refused something.
    #[error("{operation}: {source}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}
