//! Errors between a model directory, a configuration and a running replica.

use std::path::PathBuf;

use kernels::collective::CollectiveError;
use model_files::ModelFileError;
use thiserror::Error;

/// Error of the engine. Names the file, key, tensor or number that is wrong.
#[derive(Debug, Error)]
pub enum EngineError {
    /// A file of the model directory cannot be read.
    #[error("cannot read {}: {reason}", file.display())]
    Read {
        /// File that cannot be read.
        file: PathBuf,
        /// Error of the system.
        reason: String,
    },
    /// The model folder, one of its files, or a key in it cannot be used.
    #[error("{0}")]
    ModelFile(ModelFileError),
    /// A weight file is not what its header says.
    #[error("{}: {problem}", file.display())]
    WeightFile {
        /// The weight file.
        file: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },
    /// A tensor that the architecture needs is in no weight file.
    #[error("{}: no tensor {tensor} in any weight file", directory.display())]
    TensorMissing {
        /// The model directory.
        directory: PathBuf,
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor has another shape than config.json implies.
    #[error("{}: tensor {tensor} has shape {found:?}, config.json implies {expected:?}", file.display())]
    TensorShape {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Shape that config.json implies.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor has an unsupported element type, or another one than the tensors of the same matrix.
    #[error("{}: tensor {tensor} is {found}; {rule}", file.display())]
    TensorDtype {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// Type in the file.
        found: String,
        /// Types that are allowed.
        rule: String,
    },
    /// A tensor has an element that cannot be computed with.
    #[error("{}: tensor {tensor} {problem}", file.display())]
    TensorValue {
        /// The weight file.
        file: PathBuf,
        /// Name of the tensor.
        tensor: String,
        /// The element, its indices, and what is wrong with it.
        problem: String,
    },
    /// A field of the engine's own configuration is out of range or contradicts another.
    #[error("engine.{key} {problem}")]
    Config {
        /// Name of the field.
        key: &'static str,
        /// What is wrong with its value.
        problem: String,
    },
    /// Memory is lacking or could not be allocated.
    #[error("cannot allocate {bytes} bytes for {what}: {reason}")]
    Memory {
        /// Purpose of the memory.
        what: &'static str,
        /// Bytes that were asked for.
        bytes: u64,
        /// Reason, from the system or from the check at start.
        reason: String,
    },
    /// Packed weights could not be shared with other processes; a start handles this itself and goes on without them.
    #[error("weights cache: {0}")]
    WeightsCache(crate::model::CacheFault),
    /// A step plan contradicts the pool, the model or itself, or cannot be carried out: a defect of ours.
    #[error("step plan: {0}")]
    Plan(String),
    /// A numeric operation refused its arguments or failed.
    #[error("kernels: {0}")]
    Kernels(kernels::KernelError),
    /// The ranks of the worker cannot go on together; every later step fails, too.
    #[error("ranks: {problem}")]
    Ranks {
        /// What happened, and to which rank.
        problem: String,
        /// Blame for the error of that rank.
        blame: Blame,
    },
    /// A transfer operation failed.
    #[error("transport {transport}: {problem}")]
    Transport {
        /// Name of the transport.
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
        /// Bound of the inbox.
        events_max: usize,
    },
    /// The replica thread has ended.
    #[error("the replica has stopped")]
    Stopped,
    /// A thread could not be started, or failed during the start.
    #[error("cannot start thread {name}: {reason}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// Error of the system, or what happened to the thread.
        reason: String,
    },
}

impl From<CollectiveError> for EngineError {
    /// The text contains the cause; as `source()` a printed chain would repeat it.
    fn from(cause: CollectiveError) -> EngineError {
        let blame = match &cause {
            CollectiveError::Failed { kind, .. } | CollectiveError::Ended { kind, .. } => Blame::of_kind(*kind),
            _ => Blame::Ours,
        };
        EngineError::Ranks { problem: cause.to_string(), blame }
    }
}

impl From<ModelFileError> for EngineError {
    /// The text contains the cause; as `source()` a printed chain would repeat it.
    fn from(cause: ModelFileError) -> EngineError {
        EngineError::ModelFile(cause)
    }
}

impl From<kernels::KernelError> for EngineError {
    /// The text contains the cause; as `source()` a printed chain would repeat it.
    fn from(cause: kernels::KernelError) -> EngineError {
        EngineError::Kernels(cause)
    }
}

/// Party that can fix an error; decides the exit code of a process that ends with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blame {
    /// The provider of the model's files.
    Model,
    /// The author of the configuration.
    Config,
    /// The operator of the machine: memory, devices, ports.
    Machine,
    /// Ourselves: a defect, or the replica has already stopped.
    Ours,
}

impl Blame {
    /// Number by which ranks tell each other the blame.
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
    /// An error of ranks that is a defect of ours.
    pub(crate) fn ranks(problem: impl std::fmt::Display) -> EngineError {
        EngineError::Ranks { problem: problem.to_string(), blame: Blame::Ours }
    }

    /// Returns who can fix the error.
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
