//! Exit codes of every Baton process (the numbers of BSD's sysexits, so that supervisors can tell causes apart).

use std::process::ExitCode;

/// How a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// As asked.
    Done,
    /// Something it checked did not hold (`verify`, `bench` against targets).
    Failed,
    /// The command line or the configuration is wrong; starting again will not help.
    Usage,
    /// The model's files are missing or unusable.
    ModelMissing,
    /// A port is in use or another process it needs is not there.
    Unavailable,
    /// A defect of ours.
    Internal,
    /// What was to be printed could not be written: a full disk.
    OutputLost,
}

impl Exit {
    /// The number that the parent process sees.
    #[must_use]
    pub const fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 64,
            Exit::ModelMissing => 66,
            Exit::Unavailable => 69,
            Exit::Internal => 70,
            Exit::OutputLost => 74,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}
