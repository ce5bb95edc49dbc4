//! Jinja's filters on lists, dictionaries and other iterables; knows no string.

use std::cmp::Ordering;

use super::arguments::{Call, flag, int, needed};
use super::ast::Operator;
use super::text::{Builder, Text};
use super::{Error, Value, access, dict, filters, ops, repr, string_methods, tests};

pub(super) fn apply(name: &str, value: &Value, call: Call) -> Result<Value, Error> {
    match name {
        "list" => {
            call.nothing(name)?;
            Ok(Value::List(value.iterate()?))
        }
        "first" | "last" => {
            call.nothing(name)?;
            end_item(name, value)
        }
        "join" => join(value, call),
        "map" => map(value, call),
        "select" | "reject" | "selectattr" | "rejectattr" => select(name, value, call),
        "items" => {
            call.nothing(name)?;
            match value {
                Value::Undefined(_) => Ok(Value::once("generator", Vec::new())),
                Value::Dict(dict) => {
                    let pairs = Value::View(super::value::View::Items, dict.clone()).iterate()?;
                    Ok(Value::once("generator", pairs.to_vec()))
                }
                _ => Err(Error::fault("Can only get item pairs from a mapping.")),
            }
        }
        "reverse" => reverse(value),
        "sort" => {
            let [reverse, case_sensitive, attribute] = call.bind(name, ["reverse", "case_sensitive", "attribute"])?;
            let items = value.iterate()?;
            let keys = sort_keys(&items, attribute.as_ref(), flag(case_sensitive.as_ref()))?;
            Ok(Value::list(ops::sorted(&items, &keys, flag(reverse.as_ref()))?))
        }
        "dictsort" => dictsort(value, call),
        "unique" => {
            let [case_sensitive, attribute] = call.bind(name, ["case_sensitive", "attribute"])?;
            let items = value.iterate()?;
            let keys = keys(&items, attribute.as_ref(), flag(case_sensitive.as_ref()))?;
            let first = dict::distinct(&keys)?;
            let kept = items.iter().zip(first).filter(|(_, first)| *first).map(|(item, _)| item.clone());
            Ok(Value::once("generator", kept.collect()))
        }
        "min" | "max" => extreme(name, value, call),
        "sum" => {
            let [attribute, start] = call.bind(name, ["attribute", "start"])?;
            let mut sum = start.unwrap_or(Value::Int(0));
            for item in value.iterate()?.iter() {
                sum = ops::binary(Operator::Add, &sum, &path(attribute.as_ref())?.of(item)?)?;
            }
            Ok(sum)
        }
        "groupby" => groupby(value, call),
        "batch" => batch(value, call),
        _ => slice(value, call),
    }
}

/// Path from an item to a part of it: `"a.b.0"`.
struct Path {
    keys: Vec<Value>,
    default: Option<Value>,
}

fn path(attribute: Option<&Value>) -> Result<Path, Error> {
    let key = |part: &str| match part.parse::<i128>() {
        Ok(index) if part.bytes().all(|byte| byte.is_ascii_digit()) => Value::Int(index),
        _ => Value::own(part),
    };
    let keys = match attribute {
        None | Some(Value::None) => Vec::new(),
        Some(Value::Str(text)) => text.as_str().split('.').map(key).collect(),
        Some(other) => vec![other.clone()],
    };
    Ok(Path { keys, default: None })
}

impl Path {
    fn of(&self, item: &Value) -> Result<Value, Error> {
        let mut value = item.clone();
        for key in &self.keys {
            value = access::item(&value, key)?;
            if let (Value::Undefined(_), Some(default)) = (&value, &self.default) {
                value = default.clone();
            }
        }
        Ok(value)
    }
}

fn ignore_case(value: Value) -> Result<Value, Error> {
    match value {
        Value::Str(text) => Ok(Value::Str(string_methods::change_case(&text, "lower")?)),
        other => Ok(other),
    }
}

/// Returns the values by which items are compared.
fn keys(items: &[Value], attribute: Option<&Value>, case_sensitive: bool) -> Result<Vec<Value>, Error> {
    let path = path(attribute)?;
    items.iter().map(|item| if case_sensitive { path.of(item) } else { ignore_case(path.of(item)?) }).collect()
}

/// Returns sort keys, where `attribute` may name several attributes with commas.
fn sort_keys(items: &[Value], attribute: Option<&Value>, case_sensitive: bool) -> Result<Vec<Value>, Error> {
    let Some(Value::Str(text)) = attribute else { return keys(items, attribute, case_sensitive) };
    let parts: Vec<Value> = text.as_str().split(',').map(Value::own).collect();
    let columns: Vec<Vec<Value>> =
        parts.iter().map(|part| keys(items, Some(part), case_sensitive)).collect::<Result<_, _>>()?;
    Ok((0..items.len()).map(|row| Value::list(columns.iter().map(|column| column[row].clone()))).collect())
}

fn end_item(name: &str, value: &Value) -> Result<Value, Error> {
    if name == "last" && matches!(value, Value::Once(_) | Value::Loop(_)) {
        return Err(Error::fault(format!("'{}' object is not reversible", value.type_name())));
    }
    // The ends of a text are found without cutting it up.
    if let Value::Str(text) = value
        && !text.is_empty()
    {
        return access::item(value, &Value::Int(if name == "first" { 0 } else { -1 }));
    }
    let items = value.iterate()?;
    let found = if name == "first" { items.first() } else { items.last() };
    Ok(found.cloned().unwrap_or_else(|| Value::undefined(format!("No {name} item, sequence was empty."))))
}

fn join(value: &Value, call: Call) -> Result<Value, Error> {
    let [separator, attribute] = call.bind("join", ["d", "attribute"])?;
    let separator = separator.map_or_else(|| Ok(Text::own("")), |separator| repr::str(&separator))?;
    let path = path(attribute.as_ref())?;
    let mut out = Builder::default();
    for (index, item) in value.iterate()?.iter().enumerate() {
        if index > 0 {
            out.push(&separator);
        }
        repr::write_str(&path.of(item)?, &mut out)?;
    }
    Ok(Value::Str(out.finish()?))
}

fn map(value: &Value, mut call: Call) -> Result<Value, Error> {
    if !value.is_true() {
        return Ok(Value::once("generator", Vec::new()));
    }
    let items = value.iterate()?;
    let attribute = if call.positional.is_empty() { call.take_named("attribute") } else { None };
    if let Some(attribute) = attribute {
        let default = call.take_named("default").filter(|default| !matches!(default, Value::None));
        call.nothing("map")?;
        let path = Path { default, ..path(Some(&attribute))? };
        let mapped = items.iter().map(|item| path.of(item)).collect::<Result<_, _>>()?;
        return Ok(Value::once("generator", mapped));
    }
    if call.positional.is_empty() {
        return Err(Error::fault("map requires a filter argument"));
    }
    let filter = super::arguments::text(Some(call.positional.remove(0)), "map", "name")?;
    let again = || Call { positional: call.positional.clone(), named: call.named.clone() };
    let mapped = items.iter().map(|item| filters::apply(filter.as_str(), item, again())).collect::<Result<_, _>>()?;
    Ok(Value::once("generator", mapped))
}

fn select(name: &str, value: &Value, mut call: Call) -> Result<Value, Error> {
    if !value.is_true() {
        return Ok(Value::once("generator", Vec::new()));
    }
    let path = if name.ends_with("attr") {
        if call.positional.is_empty() {
            return Err(Error::fault("Missing parameter for attribute name"));
        }
        path(Some(&call.positional.remove(0)))?
    } else {
        path(None)?
    };
    let wanted = name.starts_with("select");
    let test = match call.positional.is_empty() {
        true => None,
        false => Some(super::arguments::text(Some(call.positional.remove(0)), name, "test")?),
    };
    let mut kept = Vec::new();
    for item in value.iterate()?.iter() {
        let part = path.of(item)?;
        let holds = match &test {
            None => part.is_true(),
            Some(test) => tests::apply(
                test.as_str(),
                &part,
                Call { positional: call.positional.clone(), named: call.named.clone() },
            )?,
        };
        if holds == wanted {
            kept.push(item.clone());
        }
    }
    Ok(Value::once("generator", kept))
}

fn reverse(value: &Value) -> Result<Value, Error> {
    if let Value::Str(text) = value {
        let backwards = [None, None, Some(Value::Int(-1))];
        return access::slice(&Value::Str(text.clone()), &backwards);
    }
    if !value.is_iterable() {
        return Err(Error::fault("argument must be iterable"));
    }
    let mut items = value.iterate()?.to_vec();
    items.reverse();
    Ok(match value {
        Value::Once(_) => Value::list(items),
        _ => Value::once("list_reverseiterator", items),
    })
}

fn dictsort(value: &Value, call: Call) -> Result<Value, Error> {
    let [case_sensitive, by, reverse] = call.bind("dictsort", ["case_sensitive", "by", "reverse"])?;
    value.require()?;
    let Value::Dict(dict) = value else {
        return Err(Error::fault(format!("'{}' object has no attribute 'items'", value.type_name())));
    };
    let by_key = match by.as_ref().and_then(Value::as_text).map_or("key", Text::as_str) {
        "key" => true,
        "value" => false,
        _ => return Err(Error::fault("You can only sort by either \"key\" or \"value\"")),
    };
    let pairs: Vec<Value> = dict.iter().map(|(key, value)| Value::tuple([key.clone(), value.clone()])).collect();
    let keys: Vec<Value> = dict.iter().map(|(key, value)| if by_key { key } else { value }).cloned().collect();
    let keys = self::keys(&keys, None, flag(case_sensitive.as_ref()))?;
    Ok(Value::list(ops::sorted(&pairs, &keys, flag(reverse.as_ref()))?))
}

fn extreme(name: &str, value: &Value, call: Call) -> Result<Value, Error> {
    let [case_sensitive, attribute] = call.bind(name, ["case_sensitive", "attribute"])?;
    let items = value.iterate()?;
    let keys = keys(&items, attribute.as_ref(), flag(case_sensitive.as_ref()))?;
    let wanted = if name == "min" { Ordering::Less } else { Ordering::Greater };
    let mut best = 0;
    for (place, key) in keys.iter().enumerate().skip(1) {
        if ops::order(key, &keys[best], if name == "min" { "<" } else { ">" })? == Some(wanted) {
            best = place;
        }
    }
    Ok(items.get(best).cloned().unwrap_or_else(|| Value::undefined("No aggregated item, sequence was empty.")))
}

/// Returns pairs of a key and its items.
fn groupby(value: &Value, call: Call) -> Result<Value, Error> {
    let [attribute, default, case_sensitive] = call.bind("groupby", ["attribute", "default", "case_sensitive"])?;
    let attribute = needed(attribute, "groupby", "attribute")?;
    let path = Path { default: default.filter(|default| !matches!(default, Value::None)), ..path(Some(&attribute))? };
    let items = value.iterate()?;
    let real: Vec<Value> = items.iter().map(|item| path.of(item)).collect::<Result<_, _>>()?;
    let keys = keys(&real, None, flag(case_sensitive.as_ref()))?;
    let places: Vec<Value> =
        (0..items.len()).map(|place| Value::Int(i128::try_from(place).unwrap_or(i128::MAX))).collect();
    let places = ops::sorted(&places, &keys, false)?;
    let mut groups: Vec<(usize, Vec<Value>)> = Vec::new();
    for place in places.iter().filter_map(|place| usize::try_from(place.as_int()?).ok()) {
        match groups.last_mut() {
            Some((first, group)) if ops::equal(&keys[*first], &keys[place]) => group.push(items[place].clone()),
            _ => groups.push((place, vec![items[place].clone()])),
        }
    }
    Ok(Value::list(groups.into_iter().map(|(first, group)| Value::tuple([real[first].clone(), Value::list(group)]))))
}

fn batch(value: &Value, call: Call) -> Result<Value, Error> {
    let [size, fill] = call.bind("batch", ["linecount", "fill_with"])?;
    let size = usize::try_from(int(Some(needed(size, "batch", "linecount")?), 1)?).unwrap_or(0).max(1);
    let items = value.iterate()?;
    let mut batches: Vec<Vec<Value>> = items.chunks(size).map(<[Value]>::to_vec).collect();
    if let (Some(fill), Some(last)) = (fill.filter(|fill| !matches!(fill, Value::None)), batches.last_mut()) {
        super::meter::check((size - last.len()).saturating_mul(size_of::<Value>()))?;
        last.resize(size, fill);
    }
    Ok(Value::once("generator", batches.into_iter().map(Value::list).collect()))
}

fn slice(value: &Value, call: Call) -> Result<Value, Error> {
    let [slices, fill] = call.bind("slice", ["slices", "fill_with"])?;
    let slices = usize::try_from(int(Some(needed(slices, "slice", "slices")?), 1)?).unwrap_or(0);
    let items = value.iterate()?;
    let Some(each) = items.len().checked_div(slices) else { return Err(Error::fault("division by zero")) };
    super::meter::check(slices.saturating_mul(size_of::<Value>() * 3))?;
    let longer = items.len() % slices;
    let fill = fill.filter(|fill| !matches!(fill, Value::None));
    let mut from = 0;
    let parts = (0..slices).map(|number| {
        let to = from + each + usize::from(number < longer);
        let mut part = items[from..to].to_vec();
        part.extend(fill.clone().filter(|_| number >= longer));
        from = to;
        Value::list(part)
    });
    Ok(Value::once("generator", parts.collect()))
}
