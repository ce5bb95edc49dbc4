//! Why a decode worker could not start or had to end.

use engine::{Blame, EngineError};
use node::bind::BindError;
use node::exit::Exit;
use node::life::LifeError;
use thiserror::Error;

/// An error that ends the process.
#[derive(Debug, Error)]
pub enum Error {
    /// A port cannot be opened.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The model, the configuration or the transport.
    #[error("{}", in_section(.0))]
    Engine(EngineError),
    /// It cannot go on.
    #[error(transparent)]
    Life(#[from] LifeError),
}

impl From<EngineError> for Error {
    /// The text carries the cause, so it is no `source()` that a printed chain would repeat.
    fn from(error: EngineError) -> Error {
        Error::Engine(error)
    }
}

/// Keys are named as they stand in the configuration.
fn in_section(error: &EngineError) -> String {
    match error {
        EngineError::Config { .. } => format!("decode.{error}"),
        other => other.to_string(),
    }
}

impl Error {
    /// The exit code of a process that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::Bind(_) => Exit::Unavailable,
            Error::Engine(error) => match error.blame() {
                Blame::Model => Exit::ModelMissing,
                Blame::Config => Exit::Usage,
                Blame::Machine => Exit::Unavailable,
                Blame::Ours => Exit::Internal,
            },
            Error::Life(LifeError::Stalled(_)) => Exit::Unavailable,
            Error::Life(LifeError::Replica(_) | LifeError::Task { .. }) => Exit::Internal,
        }
    }
}
