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
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// It cannot go on.
    #[error(transparent)]
    Life(#[from] LifeError),
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
            Error::Life(_) => Exit::Internal,
        }
    }
}
