//! Jinja's tests, which stand after `is`; knows no syntax.

use super::arguments::{Call, needed};
use super::ast::{Comparison, Operator};
use super::text::Text;
use super::{Error, Value, filters, methods, ops, repr, string_methods};

const NAMES: [&str; 39] = [
    "!=",
    "<",
    "<=",
    "==",
    ">",
    ">=",
    "boolean",
    "callable",
    "defined",
    "divisibleby",
    "eq",
    "equalto",
    "escaped",
    "even",
    "false",
    "filter",
    "float",
    "ge",
    "greaterthan",
    "gt",
    "in",
    "integer",
    "iterable",
    "le",
    "lessthan",
    "lower",
    "lt",
    "mapping",
    "ne",
    "none",
    "number",
    "odd",
    "sameas",
    "sequence",
    "string",
    "test",
    "true",
    "undefined",
    "upper",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value is name(…)`.
pub(super) fn apply(name: &str, value: &Value, call: Call) -> Result<bool, Error> {
    if let Some(comparison) = comparison(name) {
        let [other] = call.bind(name, ["other"])?;
        return ops::compare(comparison, value, &needed(other, name, "other")?);
    }
    match name {
        "divisibleby" => {
            let [number] = call.bind(name, ["num"])?;
            rest_is(value, &needed(number, name, "num")?, 0)
        }
        "sameas" => {
            let [other] = call.bind(name, ["other"])?;
            Ok(value.is_same(&needed(other, name, "other")?))
        }
        "in" => {
            let [container] = call.bind(name, ["seq"])?;
            ops::contains(&needed(container, name, "seq")?, value)
        }
        _ if exists(name) => {
            call.nothing(name)?;
            plain(name, value)
        }
        _ => Err(Error::fault(format!("No test named '{name}'."))),
    }
}

fn comparison(name: &str) -> Option<Comparison> {
    match name {
        "==" | "eq" | "equalto" => Some(Comparison::Equal),
        "!=" | "ne" => Some(Comparison::NotEqual),
        "<" | "lt" | "lessthan" => Some(Comparison::Less),
        "<=" | "le" => Some(Comparison::LessEqual),
        ">" | "gt" | "greaterthan" => Some(Comparison::Greater),
        ">=" | "ge" => Some(Comparison::GreaterEqual),
        _ => None,
    }
}

fn rest_is(value: &Value, divisor: &Value, rest: i128) -> Result<bool, Error> {
    Ok(ops::equal(&ops::binary(Operator::Mod, value, divisor)?, &Value::Int(rest)))
}

fn plain(name: &str, value: &Value) -> Result<bool, Error> {
    Ok(match name {
        "odd" => rest_is(value, &Value::Int(2), 1)?,
        "even" => rest_is(value, &Value::Int(2), 0)?,
        "defined" => !matches!(value, Value::Undefined(_)),
        "undefined" => matches!(value, Value::Undefined(_)),
        "none" => matches!(value, Value::None),
        "boolean" => matches!(value, Value::Bool(_)),
        "true" => matches!(value, Value::Bool(true)),
        "false" => matches!(value, Value::Bool(false)),
        "integer" => matches!(value, Value::Int(_)),
        "float" => matches!(value, Value::Float(_)),
        "number" => matches!(value, Value::Int(_) | Value::Float(_) | Value::Bool(_)),
        "string" => matches!(value, Value::Str(_)),
        "mapping" => matches!(value, Value::Dict(_)),
        "iterable" => value.is_iterable(),
        "sequence" => matches!(
            value,
            Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Dict(_) | Value::Range(..) | Value::Undefined(_)
        ),
        "callable" => methods::is_callable(value),
        "lower" => string_methods::is(repr::str(value)?.as_str(), "islower"),
        "upper" => string_methods::is(repr::str(value)?.as_str(), "isupper"),
        "filter" => value.as_text().is_some_and(|name| filters::exists(name.as_str())),
        "test" => value.as_text().is_some_and(|name| exists(name.as_str())),
        // The remaining name is `escaped`.
        _ => value.as_text().is_some_and(Text::is_markup),
    })
}
