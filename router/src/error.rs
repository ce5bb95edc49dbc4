//! Errors with which a router cannot start or go on; a client gets an `ApiError` instead.

use model_files::ModelFileError;
use node::door::TlsError;
use thiserror::Error;
use vocabulary::VocabularyError;

use crate::keys::KeyFileError;

/// Failure of the router itself.
#[derive(Debug, Error)]
pub enum Error {
    /// The model folder, one of its files, or a key of a file cannot be used.
    #[error("{0}")]
    ModelFile(ModelFileError),
    /// The tokenizer is not supported or failed.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// Certificate or private key cannot be used.
    #[error("router.tls: {0}")]
    Tls(TlsError),
    /// The key file cannot be used.
    #[error(transparent)]
    Keys(#[from] KeyFileError),
    /// The configuration contradicts itself.
    #[error("{0}")]
    Config(String),
    /// The machine lacks a resource that a router needs.
    #[error("{0}")]
    Lack(String),
    /// The operating system refused something.
    #[error("{operation} failed")]
    Io {
        /// Operation that was tried.
        operation: &'static str,
        /// Cause of the failure.
        source: std::io::Error,
    },
}

impl From<VocabularyError> for Error {
    fn from(cause: VocabularyError) -> Error {
        match cause {
            VocabularyError::ModelFile(cause) => Error::ModelFile(cause),
            VocabularyError::Tokenizer(problem) => Error::Tokenizer(problem),
        }
    }
}

impl From<ModelFileError> for Error {
    /// The text contains the cause, so a `source()` would repeat it in a printed chain.
    fn from(cause: ModelFileError) -> Error {
        Error::ModelFile(cause)
    }
}

impl From<TlsError> for Error {
    /// The text contains the cause.
    fn from(cause: TlsError) -> Error {
        Error::Tls(cause)
    }
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
