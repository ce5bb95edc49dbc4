//! Running hash over all events: two runs are equal if their hashes are.

use std::fmt::{Display, Write};

use sched::Time;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Chained hash of an event log's lines.
#[derive(Debug, Default)]
pub(crate) struct LogHash {
    hash: u64,
    lines: u64,
    line: String,
}

impl LogHash {
    pub(crate) fn add(&mut self, now: Time, sequence: u64, what: &dyn Display) {
        self.line.clear();
        // Writing to a string cannot fail.
        let _ = write!(self.line, "{now} {sequence} {what}");
        self.hash = xxh3_64_with_seed(self.line.as_bytes(), self.hash);
        self.lines += 1;
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    pub(crate) fn lines(&self) -> u64 {
        self.lines
    }
}
