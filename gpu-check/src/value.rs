//! JSON values of the document's fields; knows nothing of what is reported.

use std::fmt::Display;

use serde_json::{Value, json};

/// Rounds to four significant digits, the most that a measurement has. What is not finite stays so, and becomes null.
pub(crate) fn rounded(value: f64) -> f64 {
    format!("{value:.3e}").parse().unwrap_or(f64::NAN)
}

pub(crate) fn error(message: impl Display) -> Value {
    json!({"error": message.to_string()})
}

/// The part, or its error: a failed part of a document is an error in its own field.
pub(crate) fn or_error<T: Into<Value>, E: Display>(part: Result<T, E>) -> Value {
    part.map_or_else(error, Into::into)
}

/// A field that this device or installation does not have, which is not a failure.
pub(crate) fn unavailable(reason: impl Display) -> Value {
    json!({"unavailable": reason.to_string()})
}

pub(crate) fn has_error(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_error),
        Value::Object(fields) => fields.iter().any(|(name, field)| name == "error" || has_error(field)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_four_significant_digits() {
        let written = |value| json!(rounded(value)).to_string();
        assert_eq!(written(0.0), "0.0");
        assert_eq!(written(1234.567), "1235.0");
        assert_eq!(written(12.345_678), "12.35");
        assert_eq!(written(0.001_234_56), "0.001235");
        assert_eq!(written(-55.5), "-55.5");
        assert_eq!(written(f64::NAN), "null");
        assert_eq!(written(f64::INFINITY), "null");
    }

    #[test]
    fn errors_are_found_at_any_depth() {
        let inside = |value| json!({"rows": [null, value]});
        assert!(has_error(&inside(error("it broke"))));
        assert!(!has_error(&inside(json!("error"))));
    }

    #[test]
    fn a_part_that_failed_is_an_error_in_its_own_field() {
        let device = json!({"sms": or_error(Ok::<_, String>(132)), "name": or_error(Err::<u32, _>("unknown"))});
        assert_eq!(device, json!({"sms": 132, "name": {"error": "unknown"}}));
    }

    #[test]
    fn fields_keep_their_order_and_their_numbers_from_process_to_process() {
        let text = r#"{"b":2.345e-9,"a":[1235.0,0.001235,130000],"ä":"one\ntwo"}"#;
        assert_eq!(serde_json::from_str::<Value>(text).unwrap().to_string(), text);
    }
}
