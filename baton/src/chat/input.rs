//! Where questions come from: lines that are edited in a terminal, or a pipe that is read to its end.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;

use anyhow::{Context, Result, ensure};
use tokio::sync::mpsc;

use crate::terminal::print;

/// Longest text that is piped in.
const PIPED_BYTES_MAX: u64 = 8 << 20;
/// Begins and ends a text of several lines.
const FENCE: &str = "\"\"\"";

/// What was entered.
pub(super) enum Entered {
    /// A line, or a text of several.
    Text(String),
    /// Ctrl-C: whatever had been typed is gone.
    Cleared,
    /// Ctrl-D.
    End,
}

/// Whether somebody types.
pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// The whole of standard input where it is a pipe or a file; `None` where it is neither.
pub(super) fn piped() -> Result<Option<String>> {
    let stdin = File::from(std::io::stdin().as_fd().try_clone_to_owned().context("standard input")?);
    let kind = stdin.metadata().context("standard input")?.file_type();
    if !kind.is_fifo() && !kind.is_file() {
        return Ok(None);
    }
    let mut bytes = Vec::new();
    stdin.take(PIPED_BYTES_MAX + 1).read_to_end(&mut bytes).context("reading standard input")?;
    ensure!(bytes.len() as u64 <= PIPED_BYTES_MAX, "standard input has more than {PIPED_BYTES_MAX} bytes");
    Ok(Some(String::from_utf8(bytes).context("standard input is not UTF-8")?))
}

/// The lines of a terminal, which edits them itself.
pub(super) struct Editor {
    lines: mpsc::Receiver<std::io::Result<String>>,
}

impl Editor {
    /// Reads from now on, on a thread of its own: a pending read of the runtime would keep the process from ending.
    pub(super) fn new() -> Result<Editor> {
        let (tell, lines) = mpsc::channel(1);
        let body = move || {
            for line in std::io::stdin().lines() {
                if tell.blocking_send(line).is_err() {
                    return;
                }
            }
        };
        std::thread::Builder::new().name("lines".to_owned()).spawn(body).context("starting a thread")?;
        Ok(Editor { lines })
    }

    /// What is entered next.
    pub(super) async fn read(&mut self) -> Result<Entered> {
        let Some(line) = self.line("> ").await? else { return Ok(Entered::Cleared) };
        let Some(line) = line else { return Ok(Entered::End) };
        let Some(begun) = line.trim_start().strip_prefix(FENCE) else { return Ok(Entered::Text(line)) };
        let mut text = begun.to_owned();
        while !text.trim_end().ends_with(FENCE) {
            match self.line("… ").await? {
                None => return Ok(Entered::Cleared),
                Some(None) => return Ok(Entered::End),
                Some(Some(line)) => text = format!("{text}\n{line}"),
            }
        }
        Ok(Entered::Text(text.trim_end().trim_end_matches(FENCE).to_owned()))
    }

    /// The next line; `None` within is the end of input, `None` instead of it Ctrl-C.
    async fn line(&mut self, prompt: &str) -> Result<Option<Option<String>>> {
        print(prompt)?;
        tokio::select! {
            line = self.lines.recv() => Ok(Some(line.transpose().context("reading a line")?)),
            interrupted = tokio::signal::ctrl_c() => {
                interrupted?;
                print("\n")?;
                Ok(None)
            }
        }
    }
}
