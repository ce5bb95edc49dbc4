//! Why a template cannot be read or fails on its variables; knows no chat.

use thiserror::Error;

/// What went wrong. The messages are Python's where a template's author would look one up.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum Error {
    /// The source is not a template.
    #[error("syntax error: {message} (line {line})")]
    Syntax {
        /// What is wrong.
        message: String,
        /// Where, counted from 1.
        line: u32,
    },
    /// An expression has no value: a wrong type, an undefined variable, a missing argument.
    #[error("{message} (line {line})")]
    Fault {
        /// What is wrong.
        message: String,
        /// The statement at fault, counted from 1; 0 while it is not known yet.
        line: u32,
    },
    /// The template called `raise_exception`.
    #[error("{0}")]
    Raised(String),
    /// The template takes more steps than a prompt may.
    #[error("more than {0} steps")]
    Endless(u64),
    /// Whoever watches the run has stopped it.
    #[error("it was stopped")]
    Stopped,
    /// The values that the template holds take more memory than a prompt may.
    #[error("more than {0} bytes of values")]
    Large(usize),
    /// The machine has no thread for the run.
    #[error("no thread for the template: {0}")]
    NoThread(String),
    /// Macros and expressions are nested deeper than a prompt may.
    #[error("more than {0} nested calls")]
    Deep(u32),
}

impl Error {
    /// A fault whose place the interpreter adds.
    pub(super) fn fault(message: impl Into<String>) -> Error {
        Error::Fault { message: message.into(), line: 0 }
    }

    /// The same error with the place, if it had none.
    pub(super) fn at(self, line: u32) -> Error {
        match self {
            Error::Fault { message, line: 0 } => Error::Fault { message, line },
            other => other,
        }
    }
}
