//! Why a worker could not start or had to end.

use engine::{Blame, EngineError};
use node::exit::Exit;
use thiserror::Error;

use crate::life::LifeError;

/// An error that ends the process.
#[derive(Debug, Error)]
pub enum Error {
    /// The model, the configuration or the transport. The text carries the cause, so it is no `source()` that a printed
    /// chain would repeat.
    #[error("{}", in_section(.section, .error))]
    Engine {
        /// The section of the configuration that its keys stand in.
        section: &'static str,
        /// What went wrong.
        error: EngineError,
    },
    /// It cannot go on.
    #[error(transparent)]
    Life(#[from] LifeError),
}

/// Keys are named as they stand in the configuration.
fn in_section(section: &str, error: &EngineError) -> String {
    match error {
        EngineError::Config { .. } => format!("{section}.{error}"),
        other => other.to_string(),
    }
}

impl Error {
    /// The exit code of a process that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::Engine { error, .. } => match error.blame() {
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
