//! Look-up of attributes, items and slices, as Jinja's sandbox does it; knows no syntax.

use std::ops::Range;

use super::methods;
use super::text::Text;
use super::value::{Callable, Items, Loop};
use super::{Error, Value};

/// `object.name`: an attribute or else an item.
pub(super) fn attribute(object: &Value, name: &str) -> Result<Value, Error> {
    object.require()?;
    if let Some(value) = python_attribute(object, name)? {
        return Ok(value);
    }
    if let Value::Dict(dict) = object
        && let Some(value) = dict.get_name(name)
    {
        return Ok(value.clone());
    }
    Ok(no_attribute(object, name))
}

fn no_attribute(object: &Value, name: &str) -> Value {
    let kind = match object {
        Value::None => "None".to_owned(),
        other => format!("'{} object'", other.type_name()),
    };
    Value::undefined(format!("{kind} has no attribute '{name}'"))
}

/// Returns the value that Python's `getattr` finds.
fn python_attribute(object: &Value, name: &str) -> Result<Option<Value>, Error> {
    let own = match object {
        Value::Namespace(dict) => return Ok(dict.borrow().get_name(name).cloned()),
        Value::Loop(state) => loop_attribute(state, name),
        Value::Cycler(cycler) if name == "current" => Some(cycler.items[cycler.at.get()].clone()),
        Value::Callable(callable) => callable_attribute(callable, name),
        // The pairs of `groupby` have attributes; other pairs have none that a template could mean.
        Value::Tuple(items) if items.len() == 2 && name == "grouper" => items.first().cloned(),
        Value::Tuple(items) if items.len() == 2 && name == "list" => items.last().cloned(),
        Value::Int(_) | Value::Bool(_) if matches!(name, "real" | "numerator") => object.as_int().map(Value::Int),
        Value::Int(_) | Value::Bool(_) if name == "imag" => Some(Value::Int(0)),
        Value::Int(_) | Value::Bool(_) if name == "denominator" => Some(Value::Int(1)),
        _ => None,
    };
    let found =
        own.or_else(|| methods::find(object, name).map(|name| Value::callable(Callable::Method(object.clone(), name))));
    if found.is_none() && methods::changes(object, name) {
        let message = format!("access to attribute '{name}' of '{}' object is unsafe.", object.type_name());
        return Ok(Some(Value::undefined(message)));
    }
    Ok(found)
}

fn callable_attribute(callable: &Callable, name: &str) -> Option<Value> {
    let Callable::Macro(definition, _) = callable else { return None };
    match name {
        "name" => Some(Value::own(definition.name.to_string())),
        "arguments" => Some(Value::tuple(definition.parameters.iter().map(|(name, _)| Value::own(name.to_string())))),
        "caller" => Some(Value::Bool(definition.uses.caller)),
        "catch_kwargs" => Some(Value::Bool(definition.uses.kwargs)),
        "catch_varargs" => Some(Value::Bool(definition.uses.varargs)),
        _ => None,
    }
}

fn loop_attribute(state: &Loop, name: &str) -> Option<Value> {
    let index0 = state.index0.get();
    let int = |value: usize| Some(Value::Int(i128::try_from(value).unwrap_or(i128::MAX)));
    match name {
        "index" => int(index0 + 1),
        "index0" => int(index0),
        "revindex" => int(state.items.len() - index0),
        "revindex0" => int(state.items.len() - index0 - 1),
        "first" => Some(Value::Bool(index0 == 0)),
        "last" => Some(Value::Bool(index0 + 1 == state.items.len())),
        "length" => int(state.items.len()),
        "depth" => int(state.depth0 + 1),
        "depth0" => int(state.depth0),
        "previtem" => Some(match index0.checked_sub(1) {
            Some(before) => state.items[before].clone(),
            None => Value::undefined("there is no previous item"),
        }),
        "nextitem" => {
            Some(state.items.get(index0 + 1).cloned().unwrap_or_else(|| Value::undefined("there is no next item")))
        }
        _ => None,
    }
}

/// `object[key]`: an item or else an attribute.
pub(super) fn item(object: &Value, key: &Value) -> Result<Value, Error> {
    object.require()?;
    if let Some(value) = python_item(object, key) {
        return Ok(value);
    }
    if let Value::Str(name) = key {
        return Ok(python_attribute(object, name.as_str())?.unwrap_or_else(|| no_attribute(object, name.as_str())));
    }
    let shown = super::repr::repr(key)?;
    Ok(Value::undefined(format!("{} object has no element {}", object.type_name(), shown.as_str())))
}

fn python_item(object: &Value, key: &Value) -> Option<Value> {
    match object {
        Value::Dict(dict) => dict.get(key).ok().flatten().cloned(),
        Value::List(items) | Value::Tuple(items) => items.get(index(key.as_int()?, items.len())?).cloned(),
        Value::Range(start, step, length) => {
            let index = index(key.as_int()?, *length)?;
            Some(Value::Int(start + step * i128::try_from(index).ok()?))
        }
        Value::Str(text) => {
            super::meter::charge_bytes(text.len());
            let wanted = key.as_int()?;
            let offset = if wanted >= 0 {
                text.as_str().char_indices().nth(usize::try_from(wanted).ok()?)?
            } else {
                text.as_str().char_indices().nth_back(usize::try_from(-(wanted + 1)).ok()?)?
            };
            Some(Value::Str(text.part(offset.0..offset.0 + offset.1.len_utf8())))
        }
        _ => None,
    }
}

/// Returns the place for a Python index, which counts from the end if negative.
fn index(wanted: i128, length: usize) -> Option<usize> {
    let length_signed = i128::try_from(length).ok()?;
    let index = if wanted < 0 { wanted + length_signed } else { wanted };
    usize::try_from(index).ok().filter(|index| *index < length)
}

/// `object[start:stop:step]`.
pub(super) fn slice(object: &Value, bounds: &[Option<Value>; 3]) -> Result<Value, Error> {
    object.require()?;
    let length = match object {
        Value::Str(_) | Value::List(_) | Value::Tuple(_) | Value::Range(..) => object.length()?,
        other => return Ok(Value::undefined(format!("{} object has no element slice", other.type_name()))),
    };
    let Some(places) = slice_places(bounds, length)? else {
        return Ok(Value::undefined(format!("{} object has no element slice", object.type_name())));
    };
    Ok(match object {
        Value::Str(text) => Value::Str(slice_text(text, &places)?),
        Value::List(items) => Value::List(Items::new(places.pick(items))),
        Value::Tuple(items) => Value::Tuple(Items::new(places.pick(items))),
        other => Value::List(Items::new(places.pick(&other.iterate()?))),
    })
}

/// Places that a slice selects, in order.
struct Places {
    start: usize,
    count: usize,
    step: i128,
}

impl Places {
    fn pick(&self, items: &[Value]) -> Vec<Value> {
        self.indices().filter_map(|index| items.get(index).cloned()).collect()
    }

    fn indices(&self) -> impl Iterator<Item = usize> {
        let start = i128::try_from(self.start).unwrap_or(i128::MAX);
        let step = self.step;
        (0..self.count).filter_map(move |nth| usize::try_from(start + step * i128::try_from(nth).ok()?).ok())
    }
}

/// Returns `None` if a bound is no integer; Jinja then yields an undefined value.
fn slice_places(bounds: &[Option<Value>; 3], length: usize) -> Result<Option<Places>, Error> {
    let mut numbers = [None; 3];
    for (number, bound) in numbers.iter_mut().zip(bounds) {
        match bound {
            None | Some(Value::None) => {}
            Some(bound) => match bound.as_int() {
                Some(value) => *number = Some(value),
                None => return Ok(None),
            },
        }
    }
    let [start, stop, step] = numbers;
    let step = step.unwrap_or(1);
    if step == 0 {
        return Err(Error::fault("slice step cannot be zero"));
    }
    let length = i128::try_from(length).unwrap_or(i128::MAX);
    let (low, high) = if step > 0 { (0, length) } else { (-1, length - 1) };
    let place = |bound: Option<i128>, missing: i128| match bound {
        None => missing,
        Some(value) if value < 0 => value.saturating_add(length).clamp(low, high),
        Some(value) => value.clamp(low, high),
    };
    let (start, stop) =
        if step > 0 { (place(start, low), place(stop, high)) } else { (place(start, high), place(stop, low)) };
    let distance = if step > 0 { stop - start } else { start - stop };
    let count = if distance <= 0 { 0 } else { (distance - 1) / step.saturating_abs() + 1 };
    let to_usize = |value: i128| usize::try_from(value.max(0)).unwrap_or(usize::MAX);
    Ok(Some(Places { start: to_usize(start), count: to_usize(count), step }))
}

fn slice_text(text: &Text, places: &Places) -> Result<Text, Error> {
    let string = text.as_str();
    if places.step == 1 {
        return Ok(text.part(char_range(string, places.start, places.count)));
    }
    let offsets: Vec<usize> = string.char_indices().map(|(offset, _)| offset).collect();
    let mut builder = super::text::Builder::default();
    for index in places.indices() {
        let start = offsets[index];
        let end = offsets.get(index + 1).copied().unwrap_or(string.len());
        builder.push_part(text, start..end);
    }
    builder.finish()
}

/// Returns the byte range of `count` characters from character `start` on.
pub(super) fn char_range(string: &str, start: usize, count: usize) -> Range<usize> {
    let mut offsets = string.char_indices().map(|(offset, _)| offset).chain([string.len()]);
    let from = offsets.nth(start).unwrap_or(string.len());
    let to = if count == 0 { from } else { offsets.nth(count - 1).unwrap_or(string.len()) };
    from..to
}

/// `object | attr(name)`: an attribute only.
pub(super) fn own_attribute(object: &Value, name: &str) -> Result<Value, Error> {
    object.require()?;
    Ok(python_attribute(object, name)?.unwrap_or_else(|| no_attribute(object, name)))
}
