//! Why a prefill worker could not start or had to end.

use engine::EngineError;
use node::bind::BindError;
use node::exit::Exit;
use sched::Failure;
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
    /// The replica thread has ended by itself.
    #[error("the replica has stopped: {0}")]
    Replica(Failure),
    /// A listener failed while it served.
    #[error("serving {purpose} failed: {reason}")]
    Serve {
        /// What was served.
        purpose: &'static str,
        /// Why it failed.
        reason: String,
    },
}

impl Error {
    /// The exit code of a process that ends with this.
    #[must_use]
    pub fn exit(&self) -> Exit {
        match self {
            Error::Bind(_) => Exit::Unavailable,
            Error::Engine(error) => exit_of(error),
            Error::Replica(_) | Error::Serve { .. } => Exit::Internal,
        }
    }
}

fn exit_of(error: &EngineError) -> Exit {
    match error {
        EngineError::Read { .. }
        | EngineError::ModelConfig { .. }
        | EngineError::WeightFile { .. }
        | EngineError::TensorMissing { .. }
        | EngineError::TensorShape { .. }
        | EngineError::TensorDtype { .. } => Exit::ModelMissing,
        EngineError::Config { .. } | EngineError::Scheduler(_) => Exit::Usage,
        EngineError::Transport { .. } | EngineError::Memory { .. } => Exit::Unavailable,
        EngineError::Plan(_)
        | EngineError::Logits { .. }
        | EngineError::Kernels(_)
        | EngineError::InboxFull { .. }
        | EngineError::Stopped
        | EngineError::Thread { .. } => Exit::Internal,
    }
}
