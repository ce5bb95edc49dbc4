//! Lines of a file, bounded, with their numbers for errors.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

const LINE_BYTES_MAX: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Lines {
    file: PathBuf,
    reader: BufReader<File>,
    buffer: Vec<u8>,
    number: usize,
}

/// Line that is not blank, without spaces around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    file: &'a Path,
    pub(super) number: usize,
    pub(super) text: &'a str,
}

impl Line<'_> {
    pub(super) fn wrong(&self, problem: impl Into<String>) -> Error {
        Error::Line { file: self.file.to_owned(), line: self.number, problem: problem.into() }
    }
}

impl Lines {
    pub(super) fn open(file: &Path) -> Result<Lines> {
        let opened = File::open(file).map_err(|source| Error::Io { file: file.to_owned(), source })?;
        Ok(Lines { file: file.to_owned(), reader: BufReader::new(opened), buffer: Vec::new(), number: 0 })
    }

    /// Returns the next line that is not blank.
    pub(super) fn next_line(&mut self) -> Result<Option<Line<'_>>> {
        loop {
            self.buffer.clear();
            self.number += 1;
            let mut limited = self.reader.by_ref().take(LINE_BYTES_MAX as u64 + 1);
            let read = limited.read_until(b'\n', &mut self.buffer);
            if read.map_err(|source| Error::Io { file: self.file.clone(), source })? == 0 {
                return Ok(None);
            }
            let is_blank = self.buffer.iter().all(u8::is_ascii_whitespace);
            if !is_blank || self.buffer.len() > LINE_BYTES_MAX {
                break;
            }
        }
        let wrong = |problem: String| Error::Line { file: self.file.clone(), line: self.number, problem };
        if self.buffer.len() > LINE_BYTES_MAX {
            return Err(wrong(format!("the line is longer than {LINE_BYTES_MAX} bytes")));
        }
        let text = std::str::from_utf8(&self.buffer).map_err(|_| wrong("the line is not UTF-8".to_owned()))?;
        // The first line of a file may begin with a byte order mark.
        let text = text.trim_start_matches('\u{feff}').trim();
        Ok(Some(Line { file: &self.file, number: self.number, text }))
    }
}
