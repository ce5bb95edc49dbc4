//! Takes typed fields out of a JSON object with errors that name the field; knows no request.

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::ApiError;
use super::unreadable::unreadable;

/// Most characters of a wrong value that an error shows.
const SHOWN_CHARS_MAX: usize = 40;

/// Fields of a request body that were not taken yet. Null equals absence, as some clients send every field.
#[derive(Debug)]
pub(crate) struct Fields {
    map: Map<String, Value>,
}

impl Fields {
    pub(crate) fn parse(body: &[u8]) -> Result<Fields, ApiError> {
        match serde_json::from_slice(body) {
            Ok(Value::Object(map)) => Ok(Fields { map }),
            Ok(other) => {
                Err(ApiError::malformed(format!("the request body must be a JSON object, but is {}", describe(&other))))
            }
            Err(error) => Err(unreadable(body, &error)),
        }
    }

    /// Takes a field that is there and not null.
    pub(crate) fn take(&mut self, name: &str) -> Option<Value> {
        self.map.swap_remove(name).filter(|value| !value.is_null())
    }

    /// Looks at a field that is there and not null.
    pub(super) fn look(&self, name: &str) -> Option<&Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(crate) fn flag(&mut self, name: &str) -> Result<Option<bool>, ApiError> {
        self.take(name).map(|value| flag(name, &value)).transpose()
    }

    pub(crate) fn string(&mut self, name: &str) -> Result<Option<String>, ApiError> {
        self.take(name).map(|value| string(name, value)).transpose()
    }

    pub(crate) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Result<Option<i64>, ApiError> {
        self.take(name).map(|value| integer(name, &value, &range)).transpose()
    }

    /// An integer within `range`, without a sign.
    pub(crate) fn count(&mut self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        self.take(name).map(|value| count(name, &value, &range)).transpose()
    }

    pub(crate) fn number(&mut self, name: &str, range: RangeInclusive<f32>) -> Result<Option<f32>, ApiError> {
        self.take(name).map(|value| number(name, &value, &range)).transpose()
    }

    pub(crate) fn object(&mut self, name: &str) -> Result<Option<Map<String, Value>>, ApiError> {
        self.take(name)
            .map(|value| match value {
                Value::Object(map) => Ok(map),
                other => Err(wrong(name, "an object", &other)),
            })
            .transpose()
    }

    pub(crate) fn list(&mut self, name: &str) -> Result<Option<Vec<Value>>, ApiError> {
        self.take(name)
            .map(|value| match value {
                Value::Array(list) => Ok(list),
                other => Err(wrong(name, "a list", &other)),
            })
            .transpose()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn owned_names(&self) -> Vec<String> {
        self.names().map(str::to_owned).collect()
    }

    pub(crate) fn of(map: Map<String, Value>) -> Fields {
        Fields { map }
    }
}

pub(crate) fn flag(name: &str, value: &Value) -> Result<bool, ApiError> {
    value.as_bool().ok_or_else(|| wrong(name, "true or false", value))
}

pub(crate) fn string(name: &str, value: Value) -> Result<String, ApiError> {
    match value {
        Value::String(text) => Ok(text),
        other => Err(wrong(name, "a string", &other)),
    }
}

pub(crate) fn integer(name: &str, value: &Value, range: &RangeInclusive<i64>) -> Result<i64, ApiError> {
    let expected = || format!("an integer from {} to {}", range.start(), range.end());
    value.as_i64().filter(|number| range.contains(number)).ok_or_else(|| wrong(name, &expected(), value))
}

pub(crate) fn count(name: &str, value: &Value, range: &RangeInclusive<u32>) -> Result<u32, ApiError> {
    let expected = || format!("an integer from {} to {}", range.start(), range.end());
    value
        .as_u64()
        .and_then(|number| u32::try_from(number).ok())
        .filter(|number| range.contains(number))
        .ok_or_else(|| wrong(name, &expected(), value))
}

pub(crate) fn number(name: &str, value: &Value, range: &RangeInclusive<f32>) -> Result<f32, ApiError> {
    let expected = || format!("a number from {} to {}", range.start(), range.end());
    value.as_f64().map(narrowed).filter(|number| range.contains(number)).ok_or_else(|| wrong(name, &expected(), value))
}

/// Returns the nearest number of 32 bits that has the same sign: what is above 0 stays so.
fn narrowed(number: f64) -> f32 {
    let narrow = number as f32;
    if narrow == 0.0 && number != 0.0 { f32::MIN_POSITIVE.copysign(narrow) } else { narrow }
}

pub(crate) fn wrong(name: &str, expected: &str, value: &Value) -> ApiError {
    ApiError::invalid(name, format!("{name} must be {expected}, but is {}", describe(value)))
}

/// Describes a wrong value in a few words.
pub(crate) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "null".to_owned(),
        Value::Bool(flag) => flag.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) if text.chars().count() <= SHOWN_CHARS_MAX => format!("the string {text:?}"),
        Value::String(text) => {
            let shown: String = text.chars().take(SHOWN_CHARS_MAX).collect();
            format!("the string {shown:?}...")
        }
        Value::Array(list) => format!("a list of {}", list.len()),
        Value::Object(_) => "an object".to_owned(),
    }
}
