//! What can be wrong with a model folder; every message names the file, and the key where there is one.

use std::path::PathBuf;

use thiserror::Error;

/// Why a model folder cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ModelFileError {
    /// A file cannot be read.
    #[error("cannot read {}: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// A file is not what its name says.
    #[error("{}: {problem}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it, with what was expected.
        problem: String,
    },
    /// A key is missing, or has a value that is wrong or not supported.
    #[error("{}: {key} {problem}", file.display())]
    Key {
        /// The file.
        file: PathBuf,
        /// The key, dotted where it is nested.
        key: String,
        /// What is wrong with it, with the value found.
        problem: String,
    },
    /// What was named is no model folder that can be served.
    #[error("{}: {what}; {advice}", path.display())]
    Folder {
        /// What was named.
        path: PathBuf,
        /// What it is instead.
        what: String,
        /// What to do.
        advice: String,
    },
}
