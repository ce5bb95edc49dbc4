//! What commands print for people; a reader that has seen enough (`| head`) is no error.

use std::io::{ErrorKind, Write};

use thiserror::Error;

/// Why something was not printed.
#[derive(Debug, Error)]
pub enum OutputError {
    /// Nobody reads it any more: the command ends, and nobody needs to hear why.
    #[error("nobody reads the output any more")]
    Closed,
    /// It cannot be written.
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
///
/// # Errors
/// See [`OutputError`].
pub fn say(line: impl std::fmt::Display) -> Result<(), OutputError> {
    print(&format!("{line}\n"))
}

/// Prints text as it is, at once.
///
/// # Errors
/// See [`OutputError`].
pub fn print(text: &str) -> Result<(), OutputError> {
    let mut out = std::io::stdout().lock();
    Ok(out.write_all(text.as_bytes()).and_then(|()| out.flush())?)
}

/// Says something about the output beside it, on standard error; where nobody reads that, nobody misses it.
pub fn remark(line: impl std::fmt::Display) {
    let _ = writeln!(std::io::stderr(), "{line}");
}
