//! Python's two ways of formatting: `'%s' % x` and `'{}'.format(x)`; knows no syntax.

use super::arguments::Call;
use super::numbers::{self, Spec};
use super::text::{Builder, Origin, Text};
use super::{Error, Value, access, repr};

/// `template % value`.
pub(super) fn percent(template: &Text, value: &Value) -> Result<Value, Error> {
    let mut arguments = Percent {
        all: match value {
            Value::Tuple(items) => items.to_vec(),
            one => vec![one.clone()],
        },
        mapping: value,
        next: 0,
        mapped: false,
    };
    let string = template.as_str();
    let mut out = Builder::default();
    let mut at = 0;
    while let Some(found) = string[at..].find('%') {
        out.push_part(template, at..at + found);
        at += found + 1;
        at += conversion(&string[at..], &mut arguments, &mut out)?;
    }
    out.push_part(template, at..string.len());
    let is_mapping = matches!(value, Value::Dict(_)) || arguments.mapped;
    if arguments.next < arguments.all.len() && !is_mapping {
        return Err(Error::fault("not all arguments converted during string formatting"));
    }
    Ok(Value::Str(out.finish()?))
}

struct Percent<'v> {
    all: Vec<Value>,
    mapping: &'v Value,
    next: usize,
    mapped: bool,
}

impl Percent<'_> {
    fn take(&mut self) -> Result<Value, Error> {
        let value = self.all.get(self.next).cloned();
        self.next += 1;
        value.ok_or_else(|| Error::fault("not enough arguments for format string"))
    }

    fn number(&mut self) -> Result<i128, Error> {
        self.take()?.as_int().ok_or_else(|| Error::fault("* wants int"))
    }
}

/// Formats the conversion after a `%`; returns its length.
fn conversion(text: &str, arguments: &mut Percent<'_>, out: &mut Builder) -> Result<usize, Error> {
    let incomplete = || Error::fault("incomplete format");
    let mut rest = text;
    let mut named = None;
    if let Some(after) = rest.strip_prefix('(') {
        let end = after.find(')').ok_or_else(|| Error::fault("incomplete format key"))?;
        let Value::Dict(dict) = arguments.mapping else { return Err(Error::fault("format requires a mapping")) };
        let found = dict.get_name(&after[..end]);
        named = Some(found.cloned().ok_or_else(|| Error::fault(format!("'{}'", &after[..end])))?);
        arguments.mapped = true;
        rest = &after[end + 1..];
    }
    let mut spec = Spec::default();
    while let Some(flag) = rest.chars().next().filter(|c| matches!(c, '-' | '+' | ' ' | '0' | '#')) {
        match flag {
            '-' => spec.align = Some('<'),
            '0' => spec.zero = true,
            '#' => spec.alternate = true,
            // A plus overrides a space.
            _ if spec.sign != Some('+') => spec.sign = Some(flag),
            _ => {}
        }
        rest = &rest[1..];
    }
    spec.width = Some(size(&mut rest, arguments)?.unwrap_or(0));
    if let Some(after) = rest.strip_prefix('.') {
        rest = after;
        spec.precision = Some(size(&mut rest, arguments)?.unwrap_or(0));
    }
    rest = rest.trim_start_matches(['h', 'l', 'L']);
    let kind = rest.chars().next().ok_or_else(incomplete)?;
    let length = text.len() - rest.len() + kind.len_utf8();
    if kind == '%' {
        out.push_own("%");
        return Ok(length);
    }
    let value = match named {
        Some(value) => value,
        None => arguments.take()?,
    };
    convert(kind, spec, &value, out)?;
    Ok(length)
}

/// Parses a width or a precision; `*` takes it from the values.
fn size(rest: &mut &str, arguments: &mut Percent<'_>) -> Result<Option<usize>, Error> {
    if let Some(after) = rest.strip_prefix('*') {
        *rest = after;
        return Ok(Some(usize::try_from(arguments.number()?).unwrap_or(0)));
    }
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let number = rest[..digits].parse().ok();
    *rest = &rest[digits..];
    Ok(number)
}

fn convert(kind: char, mut spec: Spec, value: &Value, out: &mut Builder) -> Result<(), Error> {
    let text = match kind {
        's' => repr::str(value)?,
        'r' | 'a' => repr::repr(value)?,
        'c' => match value {
            Value::Str(text) if text.as_str().chars().count() == 1 => text.clone(),
            other => {
                let code = other.as_int().and_then(|code| u32::try_from(code).ok()).and_then(char::from_u32);
                Text::own(code.ok_or_else(|| Error::fault("%c requires int or char"))?.to_string())
            }
        },
        'd' | 'i' | 'u' | 'o' | 'x' | 'X' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            value.require()?;
            spec.kind = Some(if matches!(kind, 'i' | 'u') { 'd' } else { kind });
            spec.align = spec.align.or(Some('>'));
            let number = match (value, kind) {
                (Value::Float(float), 'd' | 'i' | 'u') if float.is_finite() => Value::Int(float.trunc() as i128),
                (other, _) if other.as_int().is_some() || matches!(other, Value::Float(_)) => other.clone(),
                (other, _) => {
                    let type_name = other.type_name();
                    return Err(Error::fault(format!("%{kind} format: a real number is required, not {type_name}")));
                }
            };
            return numbers::write(&number, &spec, out);
        }
        other => return Err(Error::fault(format!("unsupported format character '{other}'"))),
    };
    spec.zero = false;
    spec.align = spec.align.or(Some('>'));
    numbers::write_text(&text, &spec, out)
}

/// `template.format(…)`.
pub(super) fn braces(template: &Text, call: &Call) -> Result<Value, Error> {
    let named =
        |name: &str| call.named.iter().find(|(known, _)| known.as_str() == name).map(|(_, value)| value.clone());
    Fields { positional: &call.positional, named: &named, next: Some(0) }.format(template)
}

/// `template.format_map(mapping)`.
pub(super) fn braces_of(template: &Text, mapping: &Value) -> Result<Value, Error> {
    let Value::Dict(dict) = mapping else { return Err(Error::fault("format_map() needs a mapping")) };
    let named = |name: &str| dict.get_name(name).cloned();
    Fields { positional: &[], named: &named, next: Some(0) }.format(template)
}

struct Fields<'v> {
    positional: &'v [Value],
    named: &'v dyn Fn(&str) -> Option<Value>,
    /// Next field without a name; `None` once fields have numbers.
    next: Option<usize>,
}

impl Fields<'_> {
    fn format(mut self, template: &Text) -> Result<Value, Error> {
        let mut out = Builder::default();
        let end = self.run(template, 0..template.len(), &mut out, 2)?;
        debug_assert_eq!(end, template.len());
        Ok(Value::Str(out.finish()?))
    }

    /// Formats the bytes of `range`; fields may be nested `depth` deep.
    fn run(
        &mut self,
        template: &Text,
        range: std::ops::Range<usize>,
        out: &mut Builder,
        depth: u32,
    ) -> Result<usize, Error> {
        if depth == 0 {
            return Err(Error::fault("Max string recursion exceeded"));
        }
        let string = template.as_str();
        let mut at = range.start;
        while let Some(found) = string[at..range.end].find(['{', '}']) {
            out.push_part(template, at..at + found);
            at += found;
            let (brace, after) = string[at..range.end].split_at(1);
            if after.starts_with(brace) {
                out.push_part(template, at..at + 1);
                at += 2;
                continue;
            }
            if brace == "}" {
                return Err(Error::fault("Single '}' encountered in format string"));
            }
            let length = field_length(after)?;
            self.field(template, at + 1..at + 1 + length, out, depth)?;
            at += length + 2;
        }
        out.push_part(template, at..range.end);
        Ok(range.end)
    }

    fn field(
        &mut self,
        template: &Text,
        range: std::ops::Range<usize>,
        out: &mut Builder,
        depth: u32,
    ) -> Result<(), Error> {
        let field = &template.as_str()[range.clone()];
        let spec_at = colon(field);
        let (name, conversion) = match field[..spec_at].rsplit_once('!') {
            Some((name, conversion)) => (name, Some(conversion)),
            None => (&field[..spec_at], None),
        };
        let mut value = self.value(name)?;
        match conversion {
            None => {}
            Some("s") => value = Value::Str(repr::str(&value)?),
            Some("r" | "a") => value = Value::Str(repr::repr(&value)?),
            Some(other) => return Err(Error::fault(format!("Unknown conversion specifier {other}"))),
        }
        let mut spec = Builder::default();
        if spec_at < field.len() {
            self.run(template, range.start + spec_at + 1..range.end, &mut spec, depth - 1)?;
        }
        let spec = spec.finish()?;
        if spec.is_empty() {
            return repr::write_str(&value, out);
        }
        let spec = Spec::parse(spec.as_str())?;
        match &value {
            Value::Str(text) => numbers::write_text(text, &spec, out),
            Value::Bool(_) if spec.kind.is_none() => numbers::write_text(&repr::str(&value)?, &spec, out),
            Value::Int(_) | Value::Bool(_) | Value::Float(_) => numbers::write(&value, &spec, out),
            other => {
                let kind = other.type_name();
                Err(Error::fault(format!("unsupported format string passed to {kind}.__format__")))
            }
        }
    }

    /// Looks up `name` with its attributes and items.
    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let end = name.find(['.', '[']).unwrap_or(name.len());
        let mut value = self.first(&name[..end])?;
        let mut rest = &name[end..];
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix('.') {
                let end = after.find(['.', '[']).unwrap_or(after.len());
                value = access::attribute(&value, &after[..end])?;
                rest = &after[end..];
            } else {
                let after = rest.strip_prefix('[');
                let after =
                    after.ok_or_else(|| Error::fault("Only '.' or '[' may follow ']' in format field specifier"))?;
                let end = after.find(']').ok_or_else(|| Error::fault("expected '}' before end of string"))?;
                let key = match after[..end].parse::<i128>() {
                    Ok(index) => Value::Int(index),
                    Err(_) => Value::Str(Text::of(&after[..end], Origin::Template)),
                };
                value = access::item(&value, &key)?;
                rest = &after[end + 1..];
            }
        }
        Ok(value)
    }

    fn first(&mut self, name: &str) -> Result<Value, Error> {
        let index = if name.is_empty() {
            let next = self.next.ok_or_else(|| {
                Error::fault("cannot switch from manual field specification to automatic field numbering")
            })?;
            self.next = Some(next + 1);
            next
        } else if let Ok(index) = name.parse::<usize>() {
            if self.next.is_some_and(|next| next > 0) {
                let message = "cannot switch from automatic field numbering to manual field specification";
                return Err(Error::fault(message));
            }
            self.next = None;
            index
        } else {
            return (self.named)(name).ok_or_else(|| Error::fault(format!("'{name}'")));
        };
        let found = self.positional.get(index).cloned();
        found.ok_or_else(|| Error::fault(format!("Replacement index {index} out of range for positional args tuple")))
    }
}

/// Returns the offset of a field's format specification, or the end.
fn colon(field: &str) -> usize {
    let mut inside = false;
    for (offset, c) in field.char_indices() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => return offset,
            _ => {}
        }
    }
    field.len()
}

/// Returns the length of the field that follows an opening brace.
fn field_length(text: &str) -> Result<usize, Error> {
    let mut open = 1;
    for (offset, c) in text.char_indices() {
        open += match c {
            '{' => 1,
            '}' => -1,
            _ => 0,
        };
        if open == 0 {
            return Ok(offset);
        }
    }
    Err(Error::fault("expected '}' before end of string"))
}
