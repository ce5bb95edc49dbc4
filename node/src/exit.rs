//! Exit codes of every Baton process (the numbers of BSD's sysexits, so that supervisors can tell causes apart).

use std::process::ExitCode;

/// Way in which a process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Ended as asked.
    Done,
    /// A check failed (`verify`, `bench` against targets).
    Failed,
    /// The command line or the configuration is wrong; restarting does not help.
    Usage,
    /// The model's files are missing or unusable.
    ModelMissing,
    /// A port is in use, or another process that this one needs is missing.
    Unavailable,
    /// A defect of Baton.
    Internal,
    /// Output could not be written, for example on a full disk.
    OutputLost,
}

impl Exit {
    /// Returns the number that the parent process sees.
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
