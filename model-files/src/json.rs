//! Reads a file as one JSON object, with bounds and without guesses; knows no key.
//!
//! Only a plain file of bounded size is read, as a whole. A key that occurs twice is refused, because parsers differ in
//! which value they take.

use std::fmt;
use std::io::Read;
use std::path::Path;

use serde::Deserialize;
use serde::de::{Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::ModelFileError;
use crate::kinds::is_lfs_pointer;

/// Largest JSON file other than tokenizer.json, in bytes.
pub const JSON_BYTES_MAX: u64 = 32 << 20;
/// Largest tokenizer.json, in bytes; the largest published ones have some 40 MB.
pub const TOKENIZER_BYTES_MAX: u64 = 512 << 20;

/// Reads a plain file of at most `bytes_max`; `None` if there is no such file. Fails if it is no plain file, too large,
/// a Git LFS pointer, or unreadable.
pub fn read_bytes(file: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>, ModelFileError> {
    let unreadable =
        |error: std::io::Error| ModelFileError::Read { file: file.to_path_buf(), reason: error.to_string() };
    let wrong = |problem: String| Err(ModelFileError::File { file: file.to_path_buf(), problem });
    match std::fs::metadata(file) {
        // A link that leads nowhere means a broken folder, not an absent file.
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return match std::fs::symlink_metadata(file) {
                Ok(_) => wrong("is a link to a file that does not exist: the download is incomplete".to_owned()),
                Err(_) => Ok(None),
            };
        }
        Err(error) => return Err(unreadable(error)),
        Ok(meta) if !meta.is_file() => return wrong("must be a file, found something else".to_owned()),
        Ok(meta) if meta.len() > bytes_max => {
            return wrong(format!("has {} bytes, at most {bytes_max} are read", meta.len()));
        }
        Ok(_) => {}
    }
    let opened = std::fs::File::open(file).map_err(unreadable)?;
    let mut bytes = Vec::new();
    opened.take(bytes_max + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return wrong(format!("has more than {bytes_max} bytes"));
    }
    if is_lfs_pointer(&bytes) {
        return wrong("is a Git LFS pointer, not the file itself: run `git lfs pull` in the folder".to_owned());
    }
    Ok(Some(bytes))
}

/// Reads a file as [`read_bytes`] does, as text. Fails also if it is not UTF-8.
pub fn read_text(file: &Path, bytes_max: u64) -> Result<Option<String>, ModelFileError> {
    let Some(bytes) = read_bytes(file, bytes_max)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        ModelFileError::File { file: file.to_path_buf(), problem: format!("is not UTF-8 from byte {at} on") }
    })
}

/// Parses the object in `text`, which came from `file`.
pub(crate) fn object(file: &Path, text: &str) -> Result<Map<String, Value>, ModelFileError> {
    let wrong = |problem: String| ModelFileError::File { file: file.to_path_buf(), problem };
    match serde_json::from_str(text) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(Strict(other)) => Err(wrong(format!("must be a JSON object, found {}", kind(&other)))),
        Err(error) => Err(wrong(format!("is not valid JSON: {error}{}", hint(text, &error)))),
    }
}

/// Parses the object in `bytes`, in which no key may occur twice; the error says what is wrong.
pub fn object_of(bytes: &[u8]) -> Result<Map<String, Value>, String> {
    match serde_json::from_slice(bytes) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(Strict(other)) => Err(format!("must be a JSON object, found {}", kind(&other))),
        Err(error) => Err(format!("is not valid JSON: {error}")),
    }
}

/// Type of a value, for messages.
pub(crate) fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Explains values that Python writes into such files although they are no JSON.
fn hint(text: &str, error: &serde_json::Error) -> String {
    if text.starts_with('\u{feff}') {
        return " (the file begins with a byte order mark)".to_owned();
    }
    let line = text.lines().nth(error.line().saturating_sub(1)).unwrap_or_default();
    let rest = line.get(error.column().saturating_sub(1)..).unwrap_or_default();
    let found = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| rest.starts_with(word));
    // The parser takes the sign before it fails.
    let found = found.or_else(|| rest.starts_with('I').then_some("Infinity"));
    found.map_or_else(String::new, |word| format!(" ({word} is no JSON number)"))
}

/// A value in which no object has a key twice.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Strict, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            values.push(value);
        }
        Ok(Value::Array(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            if map.contains_key(&key) {
                return Err(A::Error::custom(format!("{key} occurs twice")));
            }
            let Strict(value) = entries.next_value()?;
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str) -> String {
        object(Path::new("config.json"), text).unwrap_err().to_string()
    }

    #[test]
    fn what_python_writes_but_json_does_not_know_is_named() {
        for (text, word) in [
            ("{\"a\": NaN}", "NaN is no JSON number"),
            ("{\"a\": 1,\n \"b\": Infinity}", "Infinity is no JSON number"),
            ("{\"a\": -Infinity}", "Infinity is no JSON number"),
            ("\u{feff}{}", "byte order mark"),
            ("{\"a\": 1e999}", "out of range"),
        ] {
            assert!(refused(text).starts_with("config.json: is not valid JSON: "), "{}", refused(text));
            assert!(refused(text).contains(word), "{}", refused(text));
        }
    }

    #[test]
    fn a_key_that_occurs_twice_is_named() {
        assert!(refused(r#"{"a": 1, "b": 2, "a": 3}"#).contains("a occurs twice"));
        assert!(refused(r#"{"rope": [{"factor": 1, "factor": 1}]}"#).contains("factor occurs twice"));
    }

    #[test]
    fn depth_is_bounded() {
        let deep = format!("{{\"a\": {}{}}}", "[".repeat(100_000), "]".repeat(100_000));
        assert!(refused(&deep).contains("recursion limit"), "{}", refused(&deep));
    }

    #[test]
    fn what_is_no_object_is_named() {
        assert_eq!(refused("[]"), "config.json: must be a JSON object, found a list");
        assert_eq!(refused("7"), "config.json: must be a JSON object, found a number");
    }
}
