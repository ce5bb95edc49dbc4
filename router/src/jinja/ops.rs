//! Python's operators; knows no syntax.

use std::cmp::Ordering;
use std::rc::Rc;

use super::ast::{Comparison, Operator};
use super::text;
use super::value::Items;
use super::{Error, Value, format, meter};

/// `left operator right`.
pub(super) fn binary(operator: Operator, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Operator::Mod, Value::Str(template)) = (operator, left) {
        return format::percent(template, right);
    }
    left.require()?;
    right.require()?;
    match (operator, left, right) {
        (Operator::Add, Value::Str(a), Value::Str(b)) if a.is_markup() || b.is_markup() => {
            Ok(Value::Str(text::concat([&a.escaped()?, &b.escaped()?])?.marked_up()))
        }
        (Operator::Add, Value::Str(a), Value::Str(b)) => Ok(Value::Str(text::concat([a, b])?)),
        (Operator::Add, Value::List(a), Value::List(b)) => Ok(Value::List(joined(a, b)?)),
        (Operator::Add, Value::Tuple(a), Value::Tuple(b)) => Ok(Value::Tuple(joined(a, b)?)),
        (Operator::Mul, Value::Str(text), times) | (Operator::Mul, times, Value::Str(text)) => {
            repeat_text(text, times).ok_or_else(|| unsupported("*", left, right))?
        }
        (Operator::Mul, Value::List(items), times) | (Operator::Mul, times, Value::List(items)) => {
            Ok(Value::List(repeated(items, times).ok_or_else(|| unsupported("*", left, right))??))
        }
        (Operator::Mul, Value::Tuple(items), times) | (Operator::Mul, times, Value::Tuple(items)) => {
            Ok(Value::Tuple(repeated(items, times).ok_or_else(|| unsupported("*", left, right))??))
        }
        _ => arithmetic(operator, left, right),
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(a), Some(b)) = (left.as_int(), right.as_int()) {
        return integers(operator, a, b);
    }
    match (as_float(left), as_float(right)) {
        (Some(a), Some(b)) => floats(operator, a, b),
        _ => Err(unsupported(sign(operator), left, right)),
    }
}

fn sign(operator: Operator) -> &'static str {
    match operator {
        Operator::Add => "+",
        Operator::Sub => "-",
        Operator::Mul => "*",
        Operator::Div => "/",
        Operator::FloorDiv => "//",
        Operator::Mod => "%",
        Operator::Pow => "** or pow()",
    }
}

fn unsupported(sign: &str, left: &Value, right: &Value) -> Error {
    Error::fault(format!("unsupported operand type(s) for {sign}: '{}' and '{}'", left.type_name(), right.type_name()))
}

pub(super) fn as_float(value: &Value) -> Option<f64> {
    match value {
        Value::Float(value) => Some(*value),
        other => other.as_int().map(|value| value as f64),
    }
}

fn integers(operator: Operator, a: i128, b: i128) -> Result<Value, Error> {
    let zero = || Error::fault("division by zero");
    let exact = match operator {
        Operator::Add => a.checked_add(b),
        Operator::Sub => a.checked_sub(b),
        Operator::Mul => a.checked_mul(b),
        Operator::Div if b == 0 => return Err(zero()),
        Operator::Div => return Ok(Value::Float(a as f64 / b as f64)),
        Operator::FloorDiv | Operator::Mod if b == 0 => return Err(zero()),
        Operator::FloorDiv => a.checked_div(b).map(|quotient| quotient - i128::from(a % b != 0 && (a < 0) != (b < 0))),
        Operator::Mod => a.checked_rem(b).map(|rest| if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }),
        Operator::Pow if b < 0 && a == 0 => return Err(zero()),
        Operator::Pow if b < 0 => return Ok(Value::Float((a as f64).powf(b as f64))),
        Operator::Pow => u32::try_from(b).ok().and_then(|b| a.checked_pow(b)),
    };
    exact.map(Value::Int).ok_or_else(|| Error::fault("integer too large"))
}

fn floats(operator: Operator, a: f64, b: f64) -> Result<Value, Error> {
    if b == 0.0 && matches!(operator, Operator::Div | Operator::FloorDiv | Operator::Mod) {
        return Err(Error::fault("float division by zero"));
    }
    Ok(Value::Float(match operator {
        Operator::Add => a + b,
        Operator::Sub => a - b,
        Operator::Mul => a * b,
        Operator::Div => a / b,
        Operator::FloorDiv => ((a - modulo(a, b)) / b).round(),
        Operator::Mod => modulo(a, b),
        Operator::Pow => a.powf(b),
    }))
}

/// Remainder with the divisor's sign.
fn modulo(a: f64, b: f64) -> f64 {
    let rest = a % b;
    if rest == 0.0 {
        0.0_f64.copysign(b)
    } else if (rest < 0.0) != (b < 0.0) {
        rest + b
    } else {
        rest
    }
}

fn joined(a: &[Value], b: &[Value]) -> Result<Rc<Items>, Error> {
    meter::check((a.len() + b.len()) * size_of::<Value>())?;
    Ok(Items::new(a.iter().chain(b).cloned().collect()))
}

fn repeat_text(text: &text::Text, times: &Value) -> Option<Result<Value, Error>> {
    let times = usize::try_from(times.as_int()?.max(0)).unwrap_or(usize::MAX);
    Some(text::repeat(text, times).map(Value::Str))
}

fn repeated(items: &[Value], times: &Value) -> Option<Result<Rc<Items>, Error>> {
    let times = usize::try_from(times.as_int()?.max(0)).unwrap_or(usize::MAX);
    let length = items.len().saturating_mul(times);
    if let Err(error) = meter::check(length.saturating_mul(size_of::<Value>())) {
        return Some(Err(error));
    }
    Some(Ok(Items::new(items.iter().cycle().take(length).cloned().collect())))
}

/// `-value`.
pub(super) fn negative(value: &Value) -> Result<Value, Error> {
    value.require()?;
    match (value, value.as_int()) {
        (_, Some(number)) => number.checked_neg().map(Value::Int).ok_or_else(|| Error::fault("integer too large")),
        (Value::Float(number), None) => Ok(Value::Float(-number)),
        _ => Err(Error::fault(format!("bad operand type for unary -: '{}'", value.type_name()))),
    }
}

/// `+value`.
pub(super) fn positive(value: &Value) -> Result<Value, Error> {
    value.require()?;
    match (value, value.as_int()) {
        (_, Some(number)) => Ok(Value::Int(number)),
        (Value::Float(number), None) => Ok(Value::Float(*number)),
        _ => Err(Error::fault(format!("bad operand type for unary +: '{}'", value.type_name()))),
    }
}

/// `left comparison right`.
pub(super) fn compare(comparison: Comparison, left: &Value, right: &Value) -> Result<bool, Error> {
    let ordered = |sign: &str, wanted: fn(Ordering) -> bool| Ok(order(left, right, sign)?.is_some_and(wanted));
    match comparison {
        Comparison::Equal => Ok(equal(left, right)),
        Comparison::NotEqual => Ok(!equal(left, right)),
        Comparison::Less => ordered("<", Ordering::is_lt),
        Comparison::LessEqual => ordered("<=", Ordering::is_le),
        Comparison::Greater => ordered(">", Ordering::is_gt),
        Comparison::GreaterEqual => ordered(">=", Ordering::is_ge),
        Comparison::In => contains(right, left),
        Comparison::NotIn => Ok(!contains(right, left)?),
    }
}

/// `==`.
pub(super) fn equal(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Undefined(_), Value::Undefined(_)) | (Value::None, Value::None) => true,
        (Value::Str(a), Value::Str(b)) => {
            meter::charge_bytes(a.len().min(b.len()));
            a == b
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            meter::charge(a.len());
            a.len() == b.len() && a.iter().zip(b.iter()).all(|(a, b)| equal(a, b))
        }
        (Value::Dict(a), Value::Dict(b)) => {
            meter::charge(a.len());
            a.len() == b.len()
                && a.iter().all(|(key, value)| matches!(b.get(key), Ok(Some(other)) if equal(value, other)))
        }
        (Value::Range(a, step_a, length_a), Value::Range(b, step_b, length_b)) => {
            length_a == length_b && (*length_a == 0 || (a == b && (*length_a == 1 || step_a == step_b)))
        }
        _ => match (left.as_int(), right.as_int()) {
            (Some(a), Some(b)) => a == b,
            _ => match (as_float(left), as_float(right)) {
                (Some(a), Some(b)) => a == b,
                _ => left.is_same(right),
            },
        },
    }
}

/// Returns the order of two values; `None` with a NaN.
pub(super) fn order(left: &Value, right: &Value, sign: &str) -> Result<Option<Ordering>, Error> {
    left.require()?;
    right.require()?;
    match (left, right) {
        (Value::Str(a), Value::Str(b)) => {
            meter::charge_bytes(a.len().min(b.len()));
            Ok(Some(a.as_str().cmp(b.as_str())))
        }
        (Value::List(a), Value::List(b)) | (Value::Tuple(a), Value::Tuple(b)) => {
            for (a, b) in a.iter().zip(b.iter()) {
                if !equal(a, b) {
                    return order(a, b, sign);
                }
            }
            Ok(Some(a.len().cmp(&b.len())))
        }
        _ => match (left.as_int(), right.as_int(), as_float(left), as_float(right)) {
            (Some(a), Some(b), ..) => Ok(Some(a.cmp(&b))),
            (_, _, Some(a), Some(b)) => Ok(a.partial_cmp(&b)),
            _ => Err(Error::fault(format!(
                "'{sign}' not supported between instances of '{}' and '{}'",
                left.type_name(),
                right.type_name()
            ))),
        },
    }
}

/// `item in container`.
pub(super) fn contains(container: &Value, item: &Value) -> Result<bool, Error> {
    match (container, item) {
        (Value::Str(text), Value::Str(part)) => {
            meter::charge_bytes(text.len());
            Ok(text.as_str().contains(part.as_str()))
        }
        (Value::Str(_), other) => {
            Err(Error::fault(format!("'in <string>' requires string as left operand, not {}", other.type_name())))
        }
        (Value::Dict(dict), key) | (Value::View(super::value::View::Keys, dict), key) => Ok(dict.get(key)?.is_some()),
        (Value::Range(start, step, length), item) => {
            let Some(value) = item.as_int() else { return Ok(false) };
            let Some(offset) = value.checked_sub(*start) else { return Ok(false) };
            // A step of zero makes no range; the one division that overflows cannot be in a range either.
            let (Some(index), Some(rest)) = (offset.checked_div(*step), offset.checked_rem(*step)) else {
                return Ok(false);
            };
            Ok(rest == 0 && index >= 0 && usize::try_from(index).is_ok_and(|index| index < *length))
        }
        (container, item) if container.is_iterable() => {
            let items = container.iterate()?;
            meter::charge(items.len());
            Ok(items.iter().any(|one| one.is_same(item) || equal(one, item)))
        }
        (other, _) => Err(Error::fault(format!("argument of type '{}' is not iterable", other.type_name()))),
    }
}

/// Sorts `items` by `keys`, stably, as Python's `sorted` does.
pub(super) fn sorted(items: &[Value], keys: &[Value], reverse: bool) -> Result<Vec<Value>, Error> {
    meter::charge(items.len().saturating_mul(10));
    let mut failed = None;
    let mut places: Vec<usize> = (0..items.len()).collect();
    if reverse {
        places.reverse();
    }
    places.sort_by(|&a, &b| match order(&keys[a], &keys[b], "<") {
        Ok(order) => order.unwrap_or(Ordering::Equal),
        Err(error) => {
            failed.get_or_insert(error);
            Ordering::Equal
        }
    });
    if reverse {
        places.reverse();
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(places.into_iter().map(|place| items[place].clone()).collect()),
    }
}
