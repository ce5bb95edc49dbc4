//! Reads typed values from a model's JSON files; every error names file, key and found value.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::ModelFileError;
use crate::json::{self, JSON_BYTES_MAX};

/// One JSON object of a model folder. Reading a value fails if it is of another type or out of range.
#[derive(Debug, Clone)]
pub struct Fields {
    file: PathBuf,
    /// Dotted path of this object in the file, empty at the top.
    prefix: String,
    map: Map<String, Value>,
    /// Values of keys that the object does not have. A null in the object counts as having the key.
    defaults: BTreeMap<&'static str, Value>,
}

impl Fields {
    /// Reads the object in `file`; `None` if there is no file. Fails if it cannot be read or is no JSON object.
    pub fn read(file: &Path) -> Result<Option<Fields>, ModelFileError> {
        let text = json::read_text(file, JSON_BYTES_MAX)?;
        text.map(|text| Fields::parse(file, &text)).transpose()
    }

    /// Parses the object in `text`, which came from `file`. Fails if it is no JSON object, or has a key twice.
    pub fn parse(file: &Path, text: &str) -> Result<Fields, ModelFileError> {
        Ok(Fields::of(file, json::object(file, text)?))
    }

    /// Wraps the object `map`, which came from `file`.
    #[must_use]
    pub fn of(file: &Path, map: Map<String, Value>) -> Fields {
        Fields { file: file.to_path_buf(), prefix: String::new(), map, defaults: BTreeMap::new() }
    }

    /// Adds defaults for keys that are absent.
    pub(crate) fn with_defaults(mut self, defaults: BTreeMap<&'static str, Value>) -> Fields {
        self.defaults = defaults;
        self
    }

    /// File of the object.
    #[must_use]
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// All keys of the object, with their values; without defaults.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// True if the file itself has `key` with a value other than null.
    #[must_use]
    pub fn is_given(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|value| !value.is_null())
    }

    /// True if the file itself has `key`, with any value.
    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.map.contains_key(key)
    }

    /// Error about `key`.
    #[must_use]
    pub fn problem(&self, key: &str, problem: impl Into<String>) -> ModelFileError {
        ModelFileError::Key { file: self.file.clone(), key: format!("{}{key}", self.prefix), problem: problem.into() }
    }

    /// Value at `key`, or its default if the file does not have the key; `None` for JSON null.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).or_else(|| self.defaults.get(key)).filter(|value| !value.is_null())
    }

    /// Nested object at `key`.
    pub fn object(&self, key: &str) -> Result<Option<Fields>, ModelFileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                let prefix = format!("{}{key}.", self.prefix);
                Ok(Some(Fields { file: self.file.clone(), prefix, map: map.clone(), defaults: BTreeMap::new() }))
            }
            Some(other) => Err(self.wrong(key, "an object", other)),
        }
    }

    /// Whole number of at least 1, if present.
    pub fn count_opt(&self, key: &str) -> Result<Option<u32>, ModelFileError> {
        match self.whole_opt(key)? {
            Some(0) => Err(self.problem(key, "must be at least 1, found 0")),
            other => Ok(other),
        }
    }

    /// Whole number from 1 to `max`.
    pub fn count_to(&self, key: &str, max: u32) -> Result<u32, ModelFileError> {
        self.count_to_opt(key, max)?.ok_or_else(|| self.problem(key, "is missing"))
    }

    /// Whole number from 1 to `max`, if present.
    pub fn count_to_opt(&self, key: &str, max: u32) -> Result<Option<u32>, ModelFileError> {
        match self.count_opt(key)? {
            Some(count) if count > max => Err(self.problem(key, format!("must be at most {max}, found {count}"))),
            other => Ok(other),
        }
    }

    /// Whole number, if present.
    pub fn whole_opt(&self, key: &str) -> Result<Option<u32>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, "a whole number below 2^32", value))
    }

    /// Finite number, if present.
    pub fn number_opt(&self, key: &str) -> Result<Option<f64>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let finite = value.as_f64().filter(|number| number.is_finite());
        finite.map(Some).ok_or_else(|| self.wrong(key, "a number", value))
    }

    /// Finite number above zero.
    pub fn positive(&self, key: &str) -> Result<f64, ModelFileError> {
        match self.number_opt(key)? {
            Some(number) if number > 0.0 => Ok(number),
            Some(number) => Err(self.problem(key, format!("must be above 0, found {number}"))),
            None => Err(self.problem(key, "is missing")),
        }
    }

    /// Truth value, if present.
    pub fn flag_opt(&self, key: &str) -> Result<Option<bool>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_bool().map(Some).ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// Truth value.
    pub fn flag(&self, key: &str) -> Result<bool, ModelFileError> {
        self.flag_opt(key)?.ok_or_else(|| self.problem(key, "is missing"))
    }

    /// Text, if present.
    pub fn text_opt(&self, key: &str) -> Result<Option<&str>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", value))
    }

    /// List of texts, if present.
    pub fn texts_opt(&self, key: &str) -> Result<Option<Vec<&str>>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.wrong(key, "a list of strings", value))
    }

    /// Distinct texts among the values of this object, which must all be texts.
    pub fn distinct_texts(&self) -> Result<Vec<String>, ModelFileError> {
        let mut texts = std::collections::BTreeSet::new();
        for (key, value) in &self.map {
            let text = value.as_str().ok_or_else(|| self.wrong(key, "a string", value))?;
            texts.insert(text.to_owned());
        }
        Ok(texts.into_iter().collect())
    }

    /// Token ids, given as one number or as a list of numbers; empty if absent.
    pub fn token_ids(&self, key: &str) -> Result<Vec<u32>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of token ids", value))
    }

    /// List of whole numbers; empty if absent.
    pub fn whole_list(&self, key: &str) -> Result<Vec<u32>, ModelFileError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let whole = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let list = value.as_array().and_then(|list| list.iter().map(whole).collect());
        list.ok_or_else(|| self.wrong(key, "a list of whole numbers below 2^32", value))
    }

    /// Error about a value of the wrong type or range.
    #[must_use]
    pub fn wrong(&self, key: &str, expected: &str, found: &Value) -> ModelFileError {
        self.problem(key, format!("must be {expected}, found {}", shortened(found)))
    }
}

/// Value as text, cut if long.
fn shortened(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
