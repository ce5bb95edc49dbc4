//! Jinja's filters by name; `text_filters` and `list_filters` have their code.

use super::arguments::{Call, flag, int, needed};
use super::string_methods;
use super::{Error, Value, access, json, list_filters, numbers, ops, repr, text_filters};

/// All filters of Jinja, with `tojson` as transformers has it.
const NAMES: [&str; 54] = [
    "abs",
    "attr",
    "batch",
    "capitalize",
    "center",
    "count",
    "d",
    "default",
    "dictsort",
    "e",
    "escape",
    "filesizeformat",
    "first",
    "float",
    "forceescape",
    "format",
    "groupby",
    "indent",
    "int",
    "items",
    "join",
    "last",
    "length",
    "list",
    "lower",
    "map",
    "max",
    "min",
    "pprint",
    "random",
    "reject",
    "rejectattr",
    "replace",
    "reverse",
    "round",
    "safe",
    "select",
    "selectattr",
    "slice",
    "sort",
    "string",
    "striptags",
    "sum",
    "title",
    "tojson",
    "trim",
    "truncate",
    "unique",
    "upper",
    "urlencode",
    "urlize",
    "wordcount",
    "wordwrap",
    "xmlattr",
];

pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// `value | name(…)`.
pub(super) fn apply(name: &str, value: &Value, call: Call) -> Result<Value, Error> {
    if let Value::Str(text) = value {
        super::meter::charge_bytes(text.len());
    }
    match name {
        "default" | "d" => {
            let [default, boolean] = call.bind(name, ["default_value", "boolean"])?;
            let absent = matches!(value, Value::Undefined(_)) || (flag(boolean.as_ref()) && !value.is_true());
            Ok(if absent { default.unwrap_or_else(|| Value::own("")) } else { value.clone() })
        }
        "length" | "count" => {
            call.nothing(name)?;
            Ok(Value::Int(i128::try_from(value.length()?).unwrap_or(i128::MAX)))
        }
        "string" => {
            call.nothing(name)?;
            Ok(Value::Str(repr::str(value)?))
        }
        "upper" | "lower" | "capitalize" => {
            call.nothing(name)?;
            Ok(Value::Str(string_methods::change_case(&repr::str(value)?, name)?))
        }
        "tojson" => json::tojson(value, call),
        "pprint" => {
            call.bind(name, ["verbose"])?;
            Ok(Value::Str(repr::repr(value)?))
        }
        "attr" => {
            let [attribute] = call.bind(name, ["name"])?;
            let attribute = super::arguments::text(attribute, name, "name")?;
            access::own_attribute(value, attribute.as_str())
        }
        "int" | "float" | "abs" | "round" => number(name, value, call),
        "batch" | "slice" | "dictsort" | "first" | "last" | "groupby" | "items" | "join" | "list" | "map" | "max"
        | "min" | "reject" | "rejectattr" | "reverse" | "select" | "selectattr" | "sort" | "sum" | "unique" => {
            list_filters::apply(name, value, call)
        }
        "random" | "urlize" | "wordwrap" => Err(Error::fault(format!("the filter '{name}' is not supported"))),
        _ if exists(name) => text_filters::apply(name, value, call),
        _ => Err(Error::fault(format!("No filter named '{name}'."))),
    }
}

fn number(name: &str, value: &Value, call: Call) -> Result<Value, Error> {
    value.require()?;
    match name {
        "int" => {
            let [default, base] = call.bind(name, ["default", "base"])?;
            let base = u32::try_from(int(base, 10)?).unwrap_or(1);
            Ok(to_int(value, base).map(Value::Int).or(default).unwrap_or(Value::Int(0)))
        }
        "float" => {
            let [default] = call.bind(name, ["default"])?;
            Ok(to_float(value).map(Value::Float).or(default).unwrap_or(Value::Float(0.0)))
        }
        "abs" => {
            call.nothing(name)?;
            match (value.as_int(), value) {
                (Some(number), _) => Ok(Value::Int(number.saturating_abs())),
                (None, Value::Float(number)) => Ok(Value::Float(number.abs())),
                _ => Err(Error::fault(format!("bad operand type for abs(): '{}'", value.type_name()))),
            }
        }
        _ => round(value, call),
    }
}

fn to_float(value: &Value) -> Option<f64> {
    match value {
        Value::Str(text) => numbers::parse_float(text.as_str()),
        other => ops::as_float(other),
    }
}

fn to_int(value: &Value, base: u32) -> Option<i128> {
    let exact = match value {
        Value::Str(text) => numbers::parse_int(text.as_str(), base),
        other => other.as_int(),
    };
    exact.or_else(|| to_float(value).filter(|number| number.is_finite()).map(|number| number.trunc() as i128))
}

fn round(value: &Value, call: Call) -> Result<Value, Error> {
    let [precision, method] = call.bind("round", ["precision", "method"])?;
    let precision = int(precision, 0)?;
    let method = needed(method.or_else(|| Some(Value::own("common"))), "round", "method")?;
    let Some(number) = ops::as_float(value) else {
        return Err(Error::fault(format!("type {} doesn't define __round__ method", value.type_name())));
    };
    let scale = 10f64.powi(i32::try_from(precision).unwrap_or(0));
    match (method.as_text().map(|method| method.as_str()), value) {
        (Some("common"), Value::Float(_)) => Ok(Value::Float(numbers::round(number, precision))),
        (Some("common"), _) if precision >= 0 => Ok(value.as_int().map_or(Value::None, Value::Int)),
        (Some("common"), _) => Ok(Value::Int(numbers::round(number, precision) as i128)),
        (Some("ceil"), _) => Ok(Value::Float((number * scale).ceil() / scale)),
        (Some("floor"), _) => Ok(Value::Float((number * scale).floor() / scale)),
        _ => Err(Error::fault("method must be common, ceil or floor")),
    }
}
