//! `tojson` as transformers defines it: Python's `json.dumps` with its arguments; knows no syntax.

use super::arguments::{Call, flag, optional_text};
use super::dict::Dict;
use super::text::{Builder, Text};
use super::{Error, Value, ops, repr};

/// Deepest nesting that is written; Python stops at about a thousand.
const DEPTH_MAX: usize = 200;

/// `value | tojson(ensure_ascii, indent, separators, sort_keys)`.
pub(super) fn tojson(value: &Value, call: Call) -> Result<Value, Error> {
    let [ensure_ascii, indent, separators, sort_keys] =
        call.bind("tojson", ["ensure_ascii", "indent", "separators", "sort_keys"])?;
    let indent = match indent {
        None | Some(Value::None) => None,
        Some(Value::Str(text)) => Some(text),
        Some(other) => {
            let width = other.as_int().ok_or_else(|| Error::fault("indent must be an integer or a string"))?;
            Some(Text::own(" ".repeat(usize::try_from(width).unwrap_or(0).min(1000))))
        }
    };
    let (item, key) = match separators {
        None | Some(Value::None) => (Text::own(if indent.is_some() { "," } else { ", " }), Text::own(": ")),
        Some(pair) => match &pair.iterate()?[..] {
            [item, key] => {
                let part = |value: &Value| optional_text(Some(value.clone()), "tojson", "separators");
                let missing = || Error::fault("separators must be two strings");
                (part(item)?.ok_or_else(missing)?, part(key)?.ok_or_else(missing)?)
            }
            _ => return Err(Error::fault("separators must be two strings")),
        },
    };
    let writer =
        Writer { ensure_ascii: flag(ensure_ascii.as_ref()), indent, item, key, sort_keys: flag(sort_keys.as_ref()) };
    let mut out = Builder::default();
    writer.write(value, 0, &mut out)?;
    Ok(Value::Str(out.finish()?))
}

struct Writer {
    ensure_ascii: bool,
    indent: Option<Text>,
    item: Text,
    key: Text,
    sort_keys: bool,
}

impl Writer {
    fn write(&self, value: &Value, depth: usize, out: &mut Builder) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::fault("maximum recursion depth exceeded while encoding a JSON object"));
        }
        match value {
            Value::None => out.push_own("null"),
            Value::Bool(flag) => out.push_own(if *flag { "true" } else { "false" }),
            Value::Int(number) => out.push_own(&number.to_string()),
            Value::Float(number) => out.push_own(&float(*number)),
            Value::Str(text) => self.string(text, out),
            Value::List(items) | Value::Tuple(items) if items.is_empty() => out.push_own("[]"),
            Value::List(items) | Value::Tuple(items) => {
                out.push_own("[");
                for (index, item) in items.iter().enumerate() {
                    self.before(index, depth + 1, out);
                    self.write(item, depth + 1, out)?;
                }
                self.line(depth, out);
                out.push_own("]");
            }
            Value::Dict(dict) if dict.len() == 0 => out.push_own("{}"),
            Value::Dict(dict) => {
                out.push_own("{");
                for (index, (key, value)) in self.entries(dict)?.into_iter().enumerate() {
                    self.before(index, depth + 1, out);
                    self.name(&key, out)?;
                    out.push(&self.key);
                    self.write(&value, depth + 1, out)?;
                }
                self.line(depth, out);
                out.push_own("}");
            }
            other => {
                return Err(Error::fault(format!("Object of type {} is not JSON serializable", other.type_name())));
            }
        }
        Ok(())
    }

    /// Returns the entries in the order of output.
    fn entries(&self, dict: &Dict) -> Result<Vec<(Value, Value)>, Error> {
        let entries: Vec<(Value, Value)> = dict.iter().map(|(key, value)| (key.clone(), value.clone())).collect();
        if !self.sort_keys {
            return Ok(entries);
        }
        let keys: Vec<Value> = dict.keys().cloned().collect();
        let sorted = ops::sorted(&keys, &keys, false)?;
        sorted.into_iter().map(|key| Ok((key.clone(), dict.get(&key)?.cloned().unwrap_or(Value::None)))).collect()
    }

    /// Writes the separator before an item, and a new line where there is an indent.
    fn before(&self, index: usize, depth: usize, out: &mut Builder) {
        if index > 0 {
            out.push(&self.item);
        }
        self.line(depth, out);
    }

    fn line(&self, depth: usize, out: &mut Builder) {
        if let Some(indent) = &self.indent {
            out.push_own("\n");
            (0..depth).for_each(|_| out.push(indent));
        }
    }

    fn name(&self, key: &Value, out: &mut Builder) -> Result<(), Error> {
        match key {
            Value::Str(text) => self.string(text, out),
            Value::None => out.push_own("\"null\""),
            Value::Bool(flag) => out.push_own(if *flag { "\"true\"" } else { "\"false\"" }),
            Value::Int(number) => out.push_own(&format!("\"{number}\"")),
            Value::Float(number) => out.push_own(&format!("\"{}\"", float(*number))),
            other => {
                let kind = other.type_name();
                return Err(Error::fault(format!("keys must be str, int, float, bool or None, not {kind}")));
            }
        }
        Ok(())
    }

    fn string(&self, text: &Text, out: &mut Builder) {
        out.push_own("\"");
        let string = text.as_str();
        let mut from = 0;
        for (offset, c) in string.char_indices() {
            let escaped = match c {
                '"' => "\\\"".to_owned(),
                '\\' => "\\\\".to_owned(),
                '\n' => "\\n".to_owned(),
                '\r' => "\\r".to_owned(),
                '\t' => "\\t".to_owned(),
                '\x08' => "\\b".to_owned(),
                '\x0c' => "\\f".to_owned(),
                '\0'..='\x1f' => format!("\\u{:04x}", u32::from(c)),
                '\x7f'.. if self.ensure_ascii => units(c),
                _ => continue,
            };
            out.push_part(text, from..offset);
            out.push_of(&escaped, text.origin_at(offset));
            from = offset + c.len_utf8();
        }
        out.push_part(text, from..string.len());
        out.push_own("\"");
    }
}

/// Returns the UTF-16 units of a character as escapes.
fn units(c: char) -> String {
    c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect()
}

fn float(number: f64) -> String {
    if number.is_nan() {
        "NaN".to_owned()
    } else if number.is_infinite() {
        if number > 0.0 { "Infinity".to_owned() } else { "-Infinity".to_owned() }
    } else {
        repr::float(number)
    }
}
