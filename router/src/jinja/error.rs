//! Errors of a template that cannot be read or fails on its variables; knows no chat.

use thiserror::Error;

/// Error of a template, with Python's message where an author would look it up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The source is not a template.
    #[error("syntax error: {message} (line {line})")]
    Syntax {
        /// Fault found.
        message: String,
        /// Line, counted from 1.
        line: u32,
    },
    /// An expression has no value: wrong type, undefined variable, missing argument.
    #[error("{message} (line {line})")]
    Fault {
        /// Fault found.
        message: String,
        /// Line of the statement, counted from 1; 0 while unknown.
        line: u32,
    },
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// The template takes more steps than a prompt may.
    #[error("more than {0} steps")]
    Endless(u64),
    /// The run was stopped by its `Watch`.
    #[error("it was stopped")]
    Stopped,
    /// The values that the template holds take more memory than a prompt may.
    #[error("more than {0} bytes of values")]
    Large(usize),
    /// The system gave no stack for the run.
    #[error("no stack for the template: {0}")]
    NoStack(String),
    /// Macros and expressions are nested deeper than a prompt may.
    #[error("more than {0} nested calls")]
    Deep(u32),
}

impl Error {
    /// A fault to which the interpreter adds the line.
    pub(super) fn fault(message: impl Into<String>) -> Error {
        Error::Fault { message: message.into(), line: 0 }
    }

    /// Adds the line if the error has none.
    pub(super) fn at(self, line: u32) -> Error {
        match self {
            Error::Fault { message, line: 0 } => Error::Fault { message, line },
            other => other,
        }
    }
}
