//! Everything that can go wrong between a model directory, a configuration and a running replica.

use std::path::PathBuf;

use kernels::collective::CollectiveError;
use model_files::ModelFileError;
use thiserror::Error;

/// An error of the engine. Names the file, key, tensor or number that is wrong.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A file of the model directory cannot be read.
    #[error("cannot read {}: {reason}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The model folder, one of its files, or a key in it cannot be used.
    #[error("{0}")]
    ModelFile(ModelFileError),
    /// A weight file is not what its header says.
    #[error("{}: {problem}", file.display())]
    WeightFile {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
    /// A tensor that the architecture needs is in no weight file.
    #[error("{}: no tensor {tensor} in any weight file", directory.display())]
    TensorMissing {
        /// The model directory.
        directory: PathBuf,
        /// The tensor.
        tensor: String,
    },
    /// A tensor has another shape than config.json implies.
    #[error("{}: tensor {tensor} has shape {found:?}, config.json implies {expected:?}", file.display())]
    TensorShape {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The shape that config.json implies.
        expected: Vec<usize>,
        /// The shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an element type that is not supported, or not beside the tensors it is computed with.
    #[error("{}: tensor {tensor} is {found}; {rule}", file.display())]
    TensorDtype {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The type in the file.
        found: String,
        /// What it must be.
        rule: String,
    },
    /// A tensor has an element that cannot be computed with.
    #[error("{}: tensor {tensor} {problem}", file.display())]
    TensorValue {
        /// The weight file.
        file: PathBuf,
        /// The tensor.
        tensor: String,
        /// The element, where it is, and what is wrong with it.
        problem: String,
    },
    /// A field of the engine's own configuration is out of range or contradicts another.
    #[error("engine.{key} {problem}")]
    Config {
        /// The field.
        key: &'static str,
        /// What is wrong with it.
        problem: String,
    },
    /// Memory could not be had.
    #[error("cannot allocate {bytes} bytes for {what}: {reason}")]
    Memory {
        /// What it was for.
        what: &'static str,
        /// How much.
        bytes: u64,
        /// What the system said.
        reason: String,
    },
    /// Packed weights could not be shared with other processes; never leaves a start, which goes on without them.
    #[error("weights cache: {0}")]
    WeightsCache(crate::model::CacheFault),
    /// A step plan contradicts the pool, the model or itself; a defect of the scheduler.
    #[error("step plan: {0}")]
    Plan(String),
    /// A numeric operation refused its arguments or failed.
    #[error("kernels: {0}")]
    Kernels(kernels::KernelError),
    /// The ranks of the worker cannot go on together; whatever follows fails too.
    #[error("ranks: {problem}")]
    Ranks {
        /// What has happened, and to which rank.
        problem: String,
        /// Who can do something about the error of that rank.
        blame: Blame,
    },
    /// A transfer operation failed.
    #[error("transport {transport}: {problem}")]
    Transport {
        /// Its name.
        transport: String,
        /// What went wrong.
        problem: String,
    },
    /// The scheduler refused its configuration.
    #[error("scheduler: {0}")]
    Scheduler(String),
    /// The operating system gives no random bytes.
    #[error("the system gives no random bytes: {0}")]
    Random(String),
    /// The replica's inbox is full; the sender is faster than the replica.
    #[error("the replica's inbox is full ({events_max} events)")]
    InboxFull {
        /// Its bound.
        events_max: usize,
    },
    /// The replica thread has ended.
    #[error("the replica has stopped")]
    Stopped,
    /// A thread could not be started.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// What the system said.
        reason: String,
    },
}

impl From<CollectiveError> for EngineError {
    /// The text carries the cause, so it is no `source()` that a printed chain would repeat.
    fn from(cause: CollectiveError) -> EngineError {
        let blame = match &cause {
            CollectiveError::Failed { kind, .. } | CollectiveError::Ended { kind, .. } => Blame::of_kind(*kind),
            _ => Blame::Ours,
        };
        EngineError::Ranks { problem: cause.to_string(), blame }
    }
}

impl From<ModelFileError> for EngineError {
    /// The text carries the cause, so it is no `source()` that a printed chain would repeat.
    fn from(cause: ModelFileError) -> EngineError {
        EngineError::ModelFile(cause)
    }
}

impl From<kernels::KernelError> for EngineError {
    /// The text carries the cause, so it is no `source()` that a printed chain would repeat.
    fn from(cause: kernels::KernelError) -> EngineError {
        EngineError::Kernels(cause)
    }
}

/// Who can do something about an error; decides the exit code of a process that ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The files of the model.
    Model,
    /// The configuration.
    Config,
    /// The machine: memory, devices, ports.
    Machine,
    /// Nobody outside: a defect of ours, or the replica is at its end.
    Ours,
}

impl Blame {
    /// The number by which ranks tell each other.
    pub(crate) fn kind(self) -> u32 {
        match self {
            Blame::Ours => 0,
            Blame::Model => 1,
            Blame::Config => 2,
            Blame::Machine => 3,
        }
    }

    fn of_kind(kind: u32) -> Blame {
        [Blame::Model, Blame::Config, Blame::Machine]
            .into_iter()
            .find(|blame| blame.kind() == kind)
            .unwrap_or(Blame::Ours)
    }
}

impl EngineError {
    /// A defect of ranks that nobody outside can do something about.
    pub(crate) fn ranks(problem: impl std::fmt::Display) -> EngineError {
        EngineError::Ranks { problem: problem.to_string(), blame: Blame::Ours }
    }

    /// Who can do something about it.
    #[must_use]
    pub fn blame(&self) -> Blame {
        match self {
            EngineError::Read { .. }
            | EngineError::ModelFile(_)
            | EngineError::WeightFile { .. }
            | EngineError::TensorMissing { .. }
            | EngineError::TensorShape { .. }
            | EngineError::TensorDtype { .. }
            | EngineError::TensorValue { .. } => Blame::Model,
            EngineError::Config { .. } | EngineError::Scheduler(_) => Blame::Config,
            EngineError::Memory { .. }
            | EngineError::WeightsCache(_)
            | EngineError::Transport { .. }
            | EngineError::Random(_) => Blame::Machine,
            EngineError::Ranks { blame, .. } => *blame,
            EngineError::Plan(_)
            | EngineError::Kernels(_)
            | EngineError::InboxFull { .. }
            | EngineError::Stopped
            | EngineError::Thread { .. } => Blame::Ours,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error as _;

    use super::*;

    #[test]
    fn a_cause_is_told_once() {
        let error = EngineError::from(kernels::KernelError::Threads { what: "spawn".to_owned() });
        assert_eq!(error.to_string(), "kernels: worker threads: spawn");
        assert!(error.source().is_none());
    }
}
