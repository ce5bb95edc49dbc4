//! Errors of this crate.

use model_files::ModelFileError;
use thiserror::Error;

/// Failure to read a vocabulary.
#[derive(Debug, Error)]
pub enum VocabularyError {
    /// The model folder, one of its files, or a key of a file cannot be used.
    #[error("{0}")]
    ModelFile(ModelFileError),
    /// The tokenizer is not supported.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
}

impl From<ModelFileError> for VocabularyError {
    /// The text contains the cause, so a `source()` would repeat it in a printed chain.
    fn from(cause: ModelFileError) -> VocabularyError {
        VocabularyError::ModelFile(cause)
    }
}

/// Failure to compile or to follow a grammar, in words for the client who sent it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct GrammarError(pub String);
