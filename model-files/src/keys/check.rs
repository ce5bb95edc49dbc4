//! Checks a file against its table: refused keys, and unknown ones.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use super::{Effect, Key, Null, Table, config};
use crate::{Fields, ModelFileError};

/// Keys of a file that are in no table.
pub type Unknown = Vec<String>;

impl Table {
    /// Refuses what asks for something that is not built, with key, file and value; returns unknown keys.
    pub fn check(&self, fields: &Fields) -> Result<Unknown, ModelFileError> {
        let mut unknown = Unknown::new();
        for (name, value) in fields.entries() {
            match self.key(name) {
                Some(key) => key.check(fields, name, value)?,
                None if self.is_config() && config::is_generation(name) => {}
                None => {
                    self.refuse_class_key(fields, name, value)?;
                    unknown.push(name.to_owned());
                }
            }
        }
        Ok(unknown)
    }

    fn is_config(&self) -> bool {
        !self.classes.is_empty()
    }

    fn refuse_class_key(&self, fields: &Fields, name: &str, value: &Value) -> Result<(), ModelFileError> {
        let is_it = |key: &Key| key.name == name && key.effect != Effect::Ignored;
        let is_of_a_class = self.classes.iter().any(|class| class.iter().any(is_it));
        match is_of_a_class && !asks_for_nothing(value) {
            true => {
                let problem = format!("is {}, which this family of models does not have", shortened(value));
                Err(fields.problem(name, problem))
            }
            false => Ok(()),
        }
    }
}

impl Key {
    /// Refuses `value` of `name` if it asks for something that is not built.
    pub(super) fn check(&self, fields: &Fields, name: &str, value: &Value) -> Result<(), ModelFileError> {
        match self.effect {
            Effect::Ignored => Ok(()),
            Effect::Honoured { null: Null::Refused, .. } if value.is_null() => {
                Err(fields.problem(name, "must not be null"))
            }
            Effect::Honoured { .. } => Ok(()),
            Effect::Refused { unless } if unless.iter().any(|neutral| is_equal(neutral, value)) => Ok(()),
            Effect::Refused { unless } => Err(fields.problem(name, self.refusal(name, value, unless))),
        }
    }

    fn refusal(&self, name: &str, value: &Value, unless: &[&str]) -> String {
        if let Some(said) = quantised(name, value) {
            return said;
        }
        let meaning = if self.note.is_empty() { String::new() } else { format!(" ({})", self.note) };
        format!("{} is not supported{meaning}; supported is {}", shortened(value), unless.join(" or "))
    }
}

/// Error for a checkpoint with quantised weights: names the method, and says what to do.
fn quantised(name: &str, value: &Value) -> Option<String> {
    let by_name = matches!(name, "quantization_config" | "quantization" | "compression_config");
    let text = |key: &str| value.get(key).and_then(Value::as_str);
    let method = text("quant_method").or(text("quant_algo"));
    let method = method.unwrap_or(if name == "quantization" { "mlx" } else { "unknown" });
    by_name.then(|| {
        format!(
            "asks for quantised weights ({method}); supported are f32, f16 and bf16 weights: take the original \
             checkpoint (`engine.dtype = \"int8\"` halves its memory)"
        )
    })
}

fn shortened(value: &Value) -> String {
    const CHARACTERS_MAX: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(CHARACTERS_MAX) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}

/// True if a value equals one that a table has as JSON; 1 and 1.0 are equal.
pub(super) fn is_equal(expected: &str, value: &Value) -> bool {
    let Ok(expected) = serde_json::from_str::<Value>(expected) else { return false };
    match (expected.as_f64(), value.as_f64()) {
        (Some(expected), Some(found)) => expected == found,
        _ => expected == *value,
    }
}

/// True if a value switches off whatever its key would switch on.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Bool(true) => false,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty(),
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.is_empty(),
    }
}

/// Warns once per process that a file has unknown keys, which have no effect.
pub fn say_unknown(file: &Path, unknown: &Unknown) {
    static SAID: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());
    if unknown.is_empty() {
        return;
    }
    let keys = unknown.join(", ");
    let mut said = SAID.lock().unwrap_or_else(PoisonError::into_inner);
    if said.insert(format!("{} {keys}", file.display())) {
        tracing::warn!(file = %file.display(), keys, "keys that are not known have no effect");
    }
}

/// Defaults of a table's keys, without null ones.
pub(crate) fn defaults(table: &Table) -> std::collections::BTreeMap<&'static str, Value> {
    let default = |key: &Key| match key.effect {
        Effect::Honoured { default, .. } => serde_json::from_str(default).ok().filter(|value: &Value| !value.is_null()),
        Effect::Refused { .. } | Effect::Ignored => None,
    };
    table.keys().filter_map(|key| Some((key.name, default(key)?))).collect()
}

/// Entries of `fields` that a table knows.
pub(crate) fn known(table: &Table, fields: &Fields) -> Map<String, Value> {
    let known = fields.entries().filter(|(name, _)| table.key(name).is_some());
    known.map(|(name, value)| (name.to_owned(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::Family;

    #[test]
    fn every_default_is_json() {
        for family in Family::ALL {
            for key in Table::config(family).keys() {
                let texts = match key.effect {
                    Effect::Honoured { default, .. } => vec![default],
                    Effect::Refused { unless } => unless.to_vec(),
                    Effect::Ignored => Vec::new(),
                };
                for text in texts {
                    assert!(serde_json::from_str::<Value>(text).is_ok(), "{family}: {} has {text}", key.name);
                }
            }
        }
    }

    #[test]
    fn no_key_is_in_a_table_twice() {
        let tables = Family::ALL.map(Table::config).into_iter().chain([
            super::super::GENERATION,
            super::super::TOKENIZER_CONFIG,
            super::super::SPECIAL_TOKENS_MAP,
            super::super::TOKENIZER,
        ]);
        for table in tables {
            let mut names = BTreeSet::new();
            for key in table.keys() {
                assert!(names.insert(key.name), "{}: {} is there twice", table.file, key.name);
            }
        }
    }

    #[test]
    fn one_number_is_written_in_two_ways() {
        assert!(is_equal("1", &json!(1.0)) && is_equal("null", &Value::Null) && is_equal("[]", &json!([])));
        assert!(!is_equal("1", &json!(true)) && !is_equal("1", &json!("1")) && !is_equal("false", &Value::Null));
    }
}
