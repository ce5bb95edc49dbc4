//! Source of questions: lines edited in a terminal, or a pipe read to its end.

use std::fs::File;
use std::io::{IsTerminal, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use rustyline::error::ReadlineError;
use rustyline::history::FileHistory;
use rustyline::{Config, DefaultEditor};

/// Most bytes of a piped text.
const PIPED_BYTES_MAX: u64 = 8 << 20;
const HISTORY_LINES_MAX: usize = 1_000;
/// Starts and ends a text of several lines.
const FENCE: &str = "\"\"\"";

pub(super) enum Entered {
    /// One line, or a text of several.
    Text(String),
    /// Ctrl-C: the text typed so far is discarded.
    Cleared,
    /// Ctrl-D.
    End,
}

pub(super) fn is_terminal() -> bool {
    std::io::stdin().is_terminal()
}

/// Returns all of standard input if it is a pipe or a file, else `None`.
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

pub(super) struct Editor {
    lines: DefaultEditor,
    history: Option<PathBuf>,
}

impl Editor {
    /// Loads the history of earlier conversations, if there is a place for it.
    pub(super) fn new() -> Result<Editor> {
        let config = Config::builder().max_history_size(HISTORY_LINES_MAX)?.auto_add_history(true).build();
        let mut lines = rustyline::Editor::<(), FileHistory>::with_config(config)?;
        let history = history_file();
        if let Some(file) = &history {
            // At first there is no file; an unreadable one is replaced.
            let _ = lines.load_history(file);
        }
        Ok(Editor { lines, history })
    }

    /// Reads the next input, on a thread for blocking work.
    pub(super) async fn read(mut self) -> Result<(Editor, Entered)> {
        let read = tokio::task::spawn_blocking(move || {
            let entered = self.text();
            (self, entered)
        });
        let (editor, entered) = read.await.context("reading a line")?;
        Ok((editor, entered?))
    }

    fn text(&mut self) -> Result<Entered> {
        let mut text = match self.lines.readline("> ") {
            Ok(line) => line,
            Err(error) => return ended(error),
        };
        if let Some(begun) = text.trim_start().strip_prefix(FENCE) {
            text = begun.to_owned();
            while !text.trim_end().ends_with(FENCE) {
                match self.lines.readline("… ") {
                    Ok(line) => text = format!("{text}\n{line}"),
                    Err(error) => return ended(error),
                }
            }
            text = text.trim_end().trim_end_matches(FENCE).to_owned();
        }
        if let Some(file) = &self.history {
            // An unwritable history does not end the conversation.
            let _ = self.lines.append_history(file);
        }
        Ok(Entered::Text(text))
    }
}

fn ended(error: ReadlineError) -> Result<Entered> {
    match error {
        ReadlineError::Interrupted => Ok(Entered::Cleared),
        ReadlineError::Eof => Ok(Entered::End),
        other => Err(other).context("reading a line"),
    }
}

/// `$XDG_STATE_HOME/baton/chat_history`, or `~/.local/state/baton/chat_history`; `None` if it cannot be created.
fn history_file() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let state = variable("XDG_STATE_HOME").or_else(|| variable("HOME").map(|home| home.join(".local/state")))?;
    let directory = state.join("baton");
    std::fs::create_dir_all(&directory).ok()?;
    Some(directory.join("chat_history"))
}
