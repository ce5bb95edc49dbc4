//! Output of commands for people; a reader that has seen enough (`| head`) is no error.

use std::io::{ErrorKind, Write};

use thiserror::Error;

/// Reason why output was not printed.
#[derive(Debug, Error)]
pub enum OutputError {
    /// The reader has closed the output: the command ends without a message.
    #[error("nobody reads the output any more")]
    Closed,
    /// The output cannot be written.
    #[error("cannot write to standard output")]
    Failed(#[source] std::io::Error),
}

impl From<std::io::Error> for OutputError {
    fn from(error: std::io::Error) -> OutputError {
        match error.kind() {
            ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Failed(error),
        }
    }
}

/// Prints a line.
pub fn say(line: impl std::fmt::Display) -> Result<(), OutputError> {
    print(&format!("{line}\n"))
}

/// Prints text as it is, at once.
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Prints a remark about the output on standard error, and ignores errors.
pub fn remark(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// Prints text as it is on standard error, and ignores errors.
pub fn murmur(text: &str) {
    let _ = write!(std::io::stderr(), "{text}");
}
