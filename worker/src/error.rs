//! Errors for which a worker cannot start or has to end.

use engine::{Blame, EngineError};
use node::exit::Exit;
use thiserror::Error;

use crate::life::LifeError;

/// An error that ends the process.
#[derive(Debug, Error)]
pub enum Error {
    /// A fault of model, configuration or transport. The text has the cause, so `source()` is empty: a printed chain
    /// would repeat it.
    #[error("{}", in_section(.section, .error))]
    Engine {
        /// Section of the configuration that has the engine's keys.
        section: &'static str,
        /// Error of the engine.
        error: EngineError,
    },
    /// The running process cannot go on.
    #[error(transparent)]
    Life(#[from] LifeError),
}

/// Prefixes the key of a configuration error with its section.
fn in_section(section: &str, error: &EngineError) -> String {
    match error {
        EngineError::Config { .. } => format!("{section}.{error}"),
        other => other.to_string(),
    }
}

impl Error {
    /// Returns the exit code of a process that ends with this error.
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
