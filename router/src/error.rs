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
    #[error("{0}")]
    Config(String),
    /// The operating system refused something.
    #[error("{operation} failed")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// Why it failed.
        source: std::io::Error,
    },
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_cause_is_left_to_the_chain() {
        let error = Error::Io { operation: "running the dispatcher", source: std::io::Error::other("it has stopped") };
        assert_eq!(error.to_string(), "running the dispatcher failed");
        assert_eq!(error.source().map(ToString::to_string), Some("it has stopped".to_owned()));
    }
}
