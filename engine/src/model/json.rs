//! Reading typed values out of a model's JSON files so that every complaint names file, key and found value.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::EngineError;

/// One JSON object of a model directory.
#[derive(Debug, Clone)]
pub(crate) struct Fields {
    file: PathBuf,
    /// Dotted path of this object inside the file, empty at the top.
    prefix: String,
    map: Map<String, Value>,
}

impl Fields {
    /// Reads the object in `file`.
    pub(crate) fn read(file: &Path) -> Result<Fields, EngineError> {
        let text = std::fs::read_to_string(file)
            .map_err(|error| EngineError::Read { file: file.to_path_buf(), reason: error.to_string() })?;
        Fields::parse(file, &text)
    }

    /// Parses the object in `text`, which came from `file`.
    pub(crate) fn parse(file: &Path, text: &str) -> Result<Fields, EngineError> {
        let not_json =
            |problem: String| EngineError::ModelConfig { file: file.to_path_buf(), key: "file".to_owned(), problem };
        match serde_json::from_str(text) {
            Ok(Value::Object(map)) => Ok(Fields { file: file.to_path_buf(), prefix: String::new(), map }),
            Ok(other) => Err(not_json(format!("must be a JSON object, found {}", kind(&other)))),
            Err(error) => Err(not_json(format!("is not valid JSON: {error}"))),
        }
    }

    /// An error about `key`.
    pub(crate) fn problem(&self, key: &str, problem: impl Into<String>) -> EngineError {
        EngineError::ModelConfig {
            file: self.file.clone(),
            key: format!("{}{key}", self.prefix),
            problem: problem.into(),
        }
    }

    /// The value at `key`; JSON null counts as absent.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    /// The nested object at `key`.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Fields>, EngineError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => {
                Ok(Some(Fields { file: self.file.clone(), prefix: format!("{}{key}.", self.prefix), map: map.clone() }))
            }
            Some(other) => Err(self.wrong(key, "an object", other)),
        }
    }

    /// A whole number of at least 1, if there.
    pub(crate) fn count_opt(&self, key: &str) -> Result<Option<u32>, EngineError> {
        match self.whole_opt(key)? {
            Some(0) => Err(self.problem(key, "must be at least 1, found 0")),
            other => Ok(other),
        }
    }

    /// A whole number from 1 to `max`.
    pub(crate) fn count_to(&self, key: &str, max: u32) -> Result<u32, EngineError> {
        self.count_to_opt(key, max)?.ok_or_else(|| self.problem(key, "is missing"))
    }

    /// A whole number from 1 to `max`, if there.
    pub(crate) fn count_to_opt(&self, key: &str, max: u32) -> Result<Option<u32>, EngineError> {
        match self.count_opt(key)? {
            Some(count) if count > max => Err(self.problem(key, format!("must be at most {max}, found {count}"))),
            other => Ok(other),
        }
    }

    /// A whole number, if there.
    pub(crate) fn whole_opt(&self, key: &str) -> Result<Option<u32>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        number.map(Some).ok_or_else(|| self.wrong(key, "a whole number below 2^32", value))
    }

    /// A finite number, if there.
    pub(crate) fn number_opt(&self, key: &str) -> Result<Option<f64>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_f64().map(Some).ok_or_else(|| self.wrong(key, "a number", value))
    }

    /// A finite number above zero.
    pub(crate) fn positive(&self, key: &str) -> Result<f64, EngineError> {
        match self.number_opt(key)? {
            Some(number) if number > 0.0 => Ok(number),
            Some(number) => Err(self.problem(key, format!("must be above 0, found {number}"))),
            None => Err(self.problem(key, "is missing")),
        }
    }

    /// A truth value, `default` when absent.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool, EngineError> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.wrong(key, "true or false", value))
    }

    /// A text, if there.
    pub(crate) fn text_opt(&self, key: &str) -> Result<Option<&str>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        value.as_str().map(Some).ok_or_else(|| self.wrong(key, "a string", value))
    }

    /// A list of texts, if there.
    pub(crate) fn texts_opt(&self, key: &str) -> Result<Option<Vec<&str>>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let texts = value.as_array().and_then(|list| list.iter().map(Value::as_str).collect());
        texts.map(Some).ok_or_else(|| self.wrong(key, "a list of strings", value))
    }

    /// The distinct texts among the values of this object, which must all be texts.
    pub(crate) fn distinct_texts(&self) -> Result<Vec<String>, EngineError> {
        let mut texts = std::collections::BTreeSet::new();
        for (key, value) in &self.map {
            let text = value.as_str().ok_or_else(|| self.wrong(key, "a string", value))?;
            texts.insert(text.to_owned());
        }
        Ok(texts.into_iter().collect())
    }

    /// Token ids given as one number or a list of numbers; empty when absent.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let id = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let ids = match value {
            Value::Array(list) => list.iter().map(id).collect(),
            single => id(single).map(|id| vec![id]),
        };
        ids.ok_or_else(|| self.wrong(key, "a token id or a list of token ids", value))
    }

    /// A list of whole numbers; empty when absent.
    pub(crate) fn whole_list(&self, key: &str) -> Result<Vec<u32>, EngineError> {
        let Some(value) = self.get(key) else { return Ok(Vec::new()) };
        let whole = |value: &Value| value.as_u64().and_then(|number| u32::try_from(number).ok());
        let list = value.as_array().and_then(|list| list.iter().map(whole).collect());
        list.ok_or_else(|| self.wrong(key, "a list of whole numbers below 2^32", value))
    }

    fn wrong(&self, key: &str, expected: &str, found: &Value) -> EngineError {
        self.problem(key, format!("must be {expected}, found {}", shortened(found)))
    }
}

/// The value as text, cut where a whole file could follow.
fn shortened(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
