//! CSV files with a header: columns by name. Fields are not quoted, as in the traces that are read here.

use std::path::Path;

use super::lines::{Line, Lines};
use crate::{Error, Result};

#[derive(Debug)]
pub(in crate::workload) struct Table {
    lines: Lines,
    names: &'static [&'static str],
    /// Place of each named column in a line.
    places: Vec<usize>,
}

/// Line of a table, its fields in the order of the names.
#[derive(Debug, Clone)]
pub(in crate::workload) struct Fields<'a> {
    pub(super) line: Line<'a>,
    names: &'static [&'static str],
    fields: Vec<&'a str>,
}

impl Table {
    /// Opens a file whose first line has these columns, in any order and among others.
    pub(in crate::workload) fn open(file: &Path, names: &'static [&'static str]) -> Result<Table> {
        let mut lines = Lines::open(file)?;
        let empty = || Error::File { file: file.to_owned(), problem: "the file is empty".to_owned() };
        let header = lines.next_line()?.ok_or_else(empty)?;
        let columns: Vec<&str> = header.text.split(',').map(str::trim).collect();
        let place = |name: &&str| columns.iter().position(|column| column == name);
        let found = names.iter().map(|name| place(name).ok_or_else(|| header.wrong(format!("no column {name:?}"))));
        let places = found.collect::<Result<Vec<usize>>>()?;
        Ok(Table { lines, names, places })
    }

    pub(in crate::workload) fn next_line(&mut self) -> Result<Option<Fields<'_>>> {
        let Some(line) = self.lines.next_line()? else { return Ok(None) };
        let all: Vec<&str> = line.text.split(',').map(str::trim).collect();
        let field = |(place, name): (&usize, &&str)| {
            all.get(*place)
                .copied()
                .ok_or_else(|| line.wrong(format!("{name}: the line has only {} fields", all.len())))
        };
        let fields = self.places.iter().zip(self.names).map(field).collect::<Result<Vec<&str>>>()?;
        Ok(Some(Fields { line, names: self.names, fields }))
    }
}

impl Fields<'_> {
    pub(super) fn text(&self, column: usize) -> &str {
        self.fields[column]
    }

    /// Reads a number of tokens; some files write `12.0`.
    pub(in crate::workload) fn tokens(&self, column: usize) -> Result<u32> {
        let text = self.fields[column];
        let whole = text.strip_suffix(".0").unwrap_or(text);
        let tokens = whole.parse::<u32>().ok().filter(|tokens| *tokens <= super::super::lengths::TOKENS_MAX);
        tokens.ok_or_else(|| self.wrong(column, "a number of tokens"))
    }

    pub(super) fn wrong(&self, column: usize, expected: &str) -> Error {
        self.line.wrong(format!("{}: expected {expected}, found {:?}", self.names[column], self.fields[column]))
    }
}
