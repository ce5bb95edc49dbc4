//! Values as printed by Python's `str` and `repr`; knows no syntax.

use super::ast;
use super::text::{Builder, Origin, Text};
use super::value::{Callable, Function, View};
use super::{Error, Value};

/// Deepest nesting that is written.
const DEPTH_MAX: u32 = 200;

/// Python's `str(value)`.
pub(super) fn str(value: &Value) -> Result<Text, Error> {
    if let Value::Str(text) = value {
        return Ok(text.clone());
    }
    let mut out = Builder::default();
    write_str(value, &mut out)?;
    out.finish()
}

pub(super) fn write_str(value: &Value, out: &mut Builder) -> Result<(), Error> {
    match value {
        Value::Str(text) => out.push(text),
        Value::Undefined(_) => {}
        other => write_repr(other, out, 0)?,
    }
    Ok(())
}

/// Python's `repr(value)`.
pub(super) fn repr(value: &Value) -> Result<Text, Error> {
    let mut out = Builder::default();
    write_repr(value, &mut out, 0)?;
    out.finish()
}

fn write_repr(value: &Value, out: &mut Builder, depth: u32) -> Result<(), Error> {
    if depth > DEPTH_MAX {
        return Err(Error::Deep(DEPTH_MAX));
    }
    match value {
        Value::Undefined(_) => out.push_own("Undefined"),
        Value::None => out.push_own("None"),
        Value::Bool(flag) => out.push_own(if *flag { "True" } else { "False" }),
        Value::Int(value) => out.push_own(&value.to_string()),
        Value::Float(value) => out.push_own(&float(*value)),
        Value::Str(text) => write_quoted(text, out),
        Value::List(items) => write_items("[", items, "]", out, depth)?,
        Value::Tuple(items) => write_items("(", items, if items.len() == 1 { ",)" } else { ")" }, out, depth)?,
        Value::Dict(dict) => {
            out.push_own("{");
            write_entries(dict, out, depth)?;
            out.push_own("}");
        }
        Value::Namespace(dict) => {
            out.push_own("<Namespace {");
            write_entries(&dict.borrow(), out, depth)?;
            out.push_own("}>");
        }
        Value::Range(start, step, length) => {
            let stop = start.saturating_add(step.saturating_mul(i128::try_from(*length).unwrap_or(i128::MAX)));
            let step = if *step == 1 { String::new() } else { format!(", {step}") };
            out.push_own(&format!("range({start}, {stop}{step})"));
        }
        Value::View(view, _) => {
            let name = match view {
                View::Keys => "dict_keys([",
                View::Values => "dict_values([",
                View::Items => "dict_items([",
            };
            write_items(name, &value.iterate()?, "])", out, depth)?;
        }
        Value::Once(once) => out.push_own(&format!("<{} object>", once.kind)),
        Value::Callable(callable) => out.push_own(&callable_name(callable)),
        Value::Loop(state) => out.push_own(&format!("<LoopContext {}/{}>", state.index0.get() + 1, state.items.len())),
        Value::Cycler(_) => out.push_own("<Cycler object>"),
    }
    Ok(())
}

fn write_items(open: &str, items: &[Value], close: &str, out: &mut Builder, depth: u32) -> Result<(), Error> {
    out.push_own(open);
    for (index, item) in items.iter().enumerate() {
        if index > 0 {
            out.push_own(", ");
        }
        write_repr(item, out, depth + 1)?;
    }
    out.push_own(close);
    Ok(())
}

fn write_entries(dict: &super::dict::Dict, out: &mut Builder, depth: u32) -> Result<(), Error> {
    for (index, (key, value)) in dict.iter().enumerate() {
        if index > 0 {
            out.push_own(", ");
        }
        write_repr(key, out, depth + 1)?;
        out.push_own(": ");
        write_repr(value, out, depth + 1)?;
    }
    Ok(())
}

fn callable_name(callable: &Callable) -> String {
    match callable {
        Callable::Function(Function::Dict) => "<class 'dict'>".to_owned(),
        Callable::Function(Function::Namespace) => "<class 'jinja2.utils.Namespace'>".to_owned(),
        Callable::Function(Function::Cycler) => "<class 'jinja2.utils.Cycler'>".to_owned(),
        Callable::Function(Function::Joiner) => "<class 'jinja2.utils.Joiner'>".to_owned(),
        Callable::Function(Function::Lipsum) => "<function generate_lorem_ipsum>".to_owned(),
        Callable::Function(Function::Range) => "<function safe_range>".to_owned(),
        Callable::Function(Function::RaiseException) => "<function raise_exception>".to_owned(),
        Callable::Function(Function::StrftimeNow) => "<function strftime_now>".to_owned(),
        Callable::Method(value, name) => format!("<built-in method {name} of {} object>", value.type_name()),
        Callable::Macro(definition, _) => macro_name(definition),
        Callable::Joiner(..) => "<Joiner object>".to_owned(),
    }
}

fn macro_name(definition: &ast::Macro) -> String {
    format!("<Macro '{}'>", definition.name)
}

/// Writes the text in quotes: single, or double if only single ones occur in it.
fn write_quoted(text: &Text, out: &mut Builder) {
    let quote = if text.as_str().contains('\'') && !text.as_str().contains('"') { '"' } else { '\'' };
    out.push_char(quote, Origin::Template);
    for (offset, c) in text.as_str().char_indices() {
        let origin = text.origin_at(offset);
        match c {
            '\\' => out.push_of("\\\\", origin),
            '\n' => out.push_of("\\n", origin),
            '\r' => out.push_of("\\r", origin),
            '\t' => out.push_of("\\t", origin),
            _ if c == quote => {
                out.push_char('\\', origin);
                out.push_char(c, origin);
            }
            _ if is_printable(c) => out.push_char(c, origin),
            _ => out.push_of(&escaped(c), origin),
        }
    }
    out.push_char(quote, Origin::Template);
}

fn escaped(c: char) -> String {
    let code = u32::from(c);
    match code {
        0..=0xff => format!("\\x{code:02x}"),
        0x100..=0xffff => format!("\\u{code:04x}"),
        _ => format!("\\U{code:08x}"),
    }
}

/// Approximates `str.isprintable`: false for controls, separators, surrogates and private characters; true for
/// unassigned characters, which change with each version of Unicode.
pub(super) fn is_printable(c: char) -> bool {
    if c == ' ' {
        return true;
    }
    let format = matches!(
        u32::from(c),
        0xad | 0x600..=0x605 | 0x61c | 0x6dd | 0x70f | 0x890..=0x891 | 0x8e2 | 0x180e | 0x200b..=0x200f
            | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb | 0x110bd | 0x110cd | 0x13430..=0x1343f
            | 0x1bca0..=0x1bca3 | 0x1d173..=0x1d17a | 0xe0001 | 0xe0020..=0xe007f
    );
    let private = matches!(u32::from(c), 0xe000..=0xf8ff | 0xf0000..=0x10ffff | 0xfdd0..=0xfdef)
        || u32::from(c) & 0xfffe == 0xfffe;
    !(c.is_control() || c.is_whitespace() || format || private)
}

/// Python's `repr` of a float: the shortest digits that read back as the same number.
pub(super) fn float(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "inf".to_owned() } else { "-inf".to_owned() };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..16).contains(&exponent) {
        let plain = value.to_string();
        return if plain.contains('.') { plain } else { format!("{plain}.0") };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floats_are_pythons() {
        let all =
            [0.1, 1.0, 1e15, 1e16, 1.5e16, 1e-4, 1e-5, 123_456_789.125, -0.0, 1e100, 5e-324, f64::NAN, -f64::INFINITY];
        let written: Vec<String> = all.into_iter().map(float).collect();
        let expected = [
            "0.1",
            "1.0",
            "1000000000000000.0",
            "1e+16",
            "1.5e+16",
            "0.0001",
            "1e-05",
            "123456789.125",
            "-0.0",
            "1e+100",
            "5e-324",
            "nan",
            "-inf",
        ];
        assert_eq!(written, expected);
    }
}
