//! Methods of Python's types that Jinja's sandbox allows; knows no syntax.

use std::rc::Rc;

use super::arguments::{Call, int, needed};
use super::dict::Dict;
use super::value::View;
use super::{Error, Value, meter, ops, string_methods};

const DICT: [&str; 5] = ["get", "items", "keys", "values", "copy"];
const DICT_CHANGES: [&str; 5] = ["clear", "pop", "popitem", "setdefault", "update"];
const LIST: [&str; 3] = ["count", "index", "copy"];
const LIST_CHANGES: [&str; 8] = ["append", "clear", "pop", "reverse", "insert", "sort", "extend", "remove"];
const TUPLE: [&str; 2] = ["count", "index"];
const LOOP: [&str; 2] = ["cycle", "changed"];
const CYCLER: [&str; 2] = ["next", "reset"];
const FLOAT: [&str; 1] = ["is_integer"];
const INT: [&str; 2] = ["bit_length", "bit_count"];

/// Returns the method `name` of `object` if templates may call it.
pub(super) fn find(object: &Value, name: &str) -> Option<&'static str> {
    let names: &[&'static str] = match object {
        Value::Str(_) => &string_methods::NAMES,
        Value::Dict(_) => &DICT,
        Value::List(_) => &LIST,
        Value::Tuple(_) | Value::Range(..) => &TUPLE,
        Value::Loop(_) => &LOOP,
        Value::Cycler(_) => &CYCLER,
        Value::Float(_) => &FLOAT,
        Value::Int(_) | Value::Bool(_) => &INT,
        _ => &[],
    };
    names.iter().find(|known| **known == name).copied()
}

/// Returns true for methods that change their object, which the sandbox forbids.
pub(super) fn changes(object: &Value, name: &str) -> bool {
    match object {
        Value::Dict(_) => DICT_CHANGES.contains(&name),
        Value::List(_) => LIST_CHANGES.contains(&name),
        _ => false,
    }
}

pub(super) fn call(object: &Value, name: &'static str, call: Call) -> Result<Value, Error> {
    match object {
        Value::Str(text) => {
            meter::charge_bytes(text.len());
            string_methods::call(text, name, call)
        }
        Value::Dict(dict) => dict_method(dict, name, call),
        Value::List(items) if name == "copy" => {
            call.nothing(name)?;
            Ok(Value::list(items.iter().cloned()))
        }
        Value::List(_) | Value::Tuple(_) | Value::Range(..) => sequence_method(object, name, call),
        Value::Loop(state) if name == "cycle" => {
            let count = call.positional.len();
            let place = state.index0.get().checked_rem(count);
            let place = place.ok_or_else(|| Error::fault("no items for cycling given"))?;
            Ok(call.positional[place].clone())
        }
        Value::Loop(state) => {
            let mut before = state.changed.borrow_mut();
            let same = before.as_ref().is_some_and(|before| {
                before.len() == call.positional.len()
                    && before.iter().zip(&call.positional).all(|(a, b)| ops::equal(a, b))
            });
            *before = Some(call.positional);
            Ok(Value::Bool(!same))
        }
        Value::Cycler(cycler) => {
            let current = cycler.items[cycler.at.get()].clone();
            let next = if name == "next" { (cycler.at.get() + 1) % cycler.items.len() } else { 0 };
            cycler.at.set(next);
            Ok(if name == "next" { current } else { Value::None })
        }
        Value::Float(value) => Ok(Value::Bool(value.is_finite() && value.fract() == 0.0)),
        Value::Int(_) | Value::Bool(_) => {
            let magnitude = object.as_int().unwrap_or_default().unsigned_abs();
            let bits = if name == "bit_count" { magnitude.count_ones() } else { 128 - magnitude.leading_zeros() };
            Ok(Value::Int(i128::from(bits)))
        }
        other => Err(Error::fault(format!("'{}' object has no method '{name}'", other.type_name()))),
    }
}

fn dict_method(dict: &Rc<Dict>, name: &'static str, call: Call) -> Result<Value, Error> {
    let view = match name {
        "get" => {
            let [key, default] = call.bind(name, ["key", "default"])?;
            let found = dict.get(&needed(key, name, "key")?)?.cloned();
            return Ok(found.or(default).unwrap_or(Value::None));
        }
        "keys" => View::Keys,
        "values" => View::Values,
        "items" => View::Items,
        _ => {
            call.nothing(name)?;
            return Ok(Value::Dict(Rc::new(Dict::clone(dict))));
        }
    };
    call.nothing(name)?;
    Ok(Value::View(view, dict.clone()))
}

fn sequence_method(object: &Value, name: &'static str, call: Call) -> Result<Value, Error> {
    let items = object.iterate()?;
    meter::charge(items.len());
    if name == "count" {
        let [value] = call.bind(name, ["value"])?;
        let value = needed(value, name, "value")?;
        let count = items.iter().filter(|item| ops::equal(item, &value)).count();
        return Ok(Value::Int(i128::try_from(count).unwrap_or(i128::MAX)));
    }
    let [value, start, stop] = call.bind(name, ["value", "start", "stop"])?;
    let value = needed(value, name, "value")?;
    let length = i128::try_from(items.len()).unwrap_or(i128::MAX);
    let place = |bound: i128| if bound < 0 { (bound + length).max(0) } else { bound };
    let (start, stop) = (place(int(start, 0)?), place(int(stop, i128::MAX)?));
    let found = (0..).zip(items.iter()).find(|(index, item)| (start..stop).contains(index) && ops::equal(item, &value));
    match found {
        Some((index, _)) => Ok(Value::Int(index)),
        None => Err(Error::fault(format!("the value is not in the {}", object.type_name()))),
    }
}

/// Returns true for values that Python calls `callable`.
pub(super) fn is_callable(value: &Value) -> bool {
    matches!(value, Value::Callable(_) | Value::Undefined(_) | Value::Loop(_))
}
