//! Errors of a model folder; every message names the file, and the key if there is one.

use std::path::PathBuf;

use thiserror::Error;

/// Reason why a model folder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelFileError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", file.display())]
    Read {
        /// File that cannot be read.
        file: PathBuf,
        /// Error of the system.
        reason: String,
    },
    /// A file is not what its name promises.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with the file, and what was expected.
        problem: String,
    },
    /// A key is missing, or has a value that is wrong or not supported.
    #[error("{}: {key} {problem}", file.display())]
    Key {
        /// File that has or lacks the key.
        file: PathBuf,
        /// Name of the key, dotted if it is nested.
        key: String,
        /// What is wrong with the key, with the value found.
        problem: String,
    },
    /// The named path is no model folder that can be served.
    #[error("{}: {what}; {advice}", path.display())]
    Folder {
        /// Path that was named.
        path: PathBuf,
        /// What is there instead.
        what: String,
        /// What to do.
        advice: String,
    },
}
