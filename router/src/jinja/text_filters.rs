//! Jinja's filters on strings; knows no list.

use super::arguments::{Call, flag, int, needed, optional_text};
use super::literal::is_space;
use super::string_methods::{self, Sides};
use super::text::{Builder, Origin, Text, concat};
use super::{Error, Value, access, cuts, format, meter, ops, repr};

pub(super) fn apply(name: &str, value: &Value, call: Call) -> Result<Value, Error> {
    match name {
        "trim" => {
            let [chars] = call.bind(name, ["chars"])?;
            let chars = optional_text(chars, name, "chars")?;
            Ok(Value::Str(string_methods::strip(&repr::str(value)?, chars.as_ref(), Sides::Both)))
        }
        "replace" => {
            let [old, new, count] = call.bind(name, ["old", "new", "count"])?;
            let (old, new) = (needed(old, name, "old")?, needed(new, name, "new")?);
            let count = int(count.filter(|count| !matches!(count, Value::None)), -1)?;
            Ok(Value::Str(cuts::replace(&repr::str(value)?, &repr::str(&old)?, &repr::str(&new)?, count)?))
        }
        "indent" => indent(value, call),
        "format" => {
            let text = repr::str(value)?;
            match (call.positional.is_empty(), call.named.is_empty()) {
                (false, false) => Err(Error::fault("can't handle positional and keyword arguments at the same time")),
                (_, true) => format::percent(&text, &Value::tuple(call.positional)),
                (true, false) => {
                    let mut dict = super::dict::Dict::default();
                    call.named.into_iter().for_each(|(name, value)| dict.insert_text(name, value));
                    format::percent(&text, &Value::Dict(std::rc::Rc::new(dict)))
                }
            }
        }
        "title" => Ok(Value::Str(title(&repr::str(value)?)?)),
        "center" => {
            let [width] = call.bind(name, ["width"])?;
            let width = width.unwrap_or(Value::Int(80));
            string_methods::call(&repr::str(value)?, "center", Call::of(vec![width]))
        }
        "truncate" => truncate(value, call),
        "wordcount" => {
            let text = repr::str(value)?;
            let is_word = |c: char| c.is_alphanumeric() || c == '_';
            let words = text.as_str().split(|c| !is_word(c)).filter(|word| !word.is_empty()).count();
            Ok(Value::Int(i128::try_from(words).unwrap_or(i128::MAX)))
        }
        "safe" => Ok(Value::Str(repr::str(value)?.marked_up())),
        "escape" | "e" => Ok(Value::Str(repr::str(value)?.escaped()?)),
        "forceescape" => Ok(Value::Str(concat([&repr::str(value)?])?.escaped()?)),
        "striptags" => striptags(&repr::str(value)?),
        "urlencode" => urlencode(value),
        "xmlattr" => xmlattr(value, call),
        _ => filesize(value, call),
    }
}

fn indent(value: &Value, call: Call) -> Result<Value, Error> {
    let [width, first, blank] = call.bind("indent", ["width", "first", "blank"])?;
    value.require()?;
    let Value::Str(text) = value else {
        return Err(Error::fault(format!("indent needs a string, not {}", value.type_name())));
    };
    let indention = match width {
        Some(Value::Str(text)) => text,
        width => {
            let width = usize::try_from(int(width, 4)?).unwrap_or(0);
            if width > meter::TEXT_BYTES_MAX {
                return Err(Error::Large(meter::TEXT_BYTES_MAX));
            }
            Text::own(" ".repeat(width))
        }
    };
    let lines = cuts::lines(&concat([text, &Text::own("\n")])?, cuts::Ends::Drop);
    let mut out = Builder::default();
    if flag(first.as_ref()) {
        out.push(&indention);
    }
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            out.push_own("\n");
            if flag(blank.as_ref()) || !line.is_empty() {
                out.push(&indention);
            }
        }
        out.push(line);
    }
    Ok(Value::Str(out.finish()?))
}

/// Words begin only after whitespace, hyphens and opening brackets.
fn title(text: &Text) -> Result<Text, Error> {
    let mut at_start = true;
    text.map_chars(|c| {
        let changed = if at_start { c.to_uppercase().collect() } else { c.to_lowercase().collect::<Vec<char>>() };
        at_start = is_space(c) || matches!(c, '-' | '(' | '{' | '[' | '<');
        changed.into_iter()
    })
}

fn truncate(value: &Value, call: Call) -> Result<Value, Error> {
    let [length, kill_words, end, leeway] = call.bind("truncate", ["length", "killwords", "end", "leeway"])?;
    let (length, leeway) = (int(length, 255)?, int(leeway.filter(|leeway| !matches!(leeway, Value::None)), 5)?);
    let end = optional_text(end, "truncate", "end")?.unwrap_or_else(|| Text::own("..."));
    let text = repr::str(value)?;
    let chars = |text: &Text| i128::try_from(text.as_str().chars().count()).unwrap_or(i128::MAX);
    if length < chars(&end) {
        return Err(Error::fault(format!("expected length >= {}, got {length}", chars(&end))));
    }
    if chars(&text) <= length.saturating_add(leeway) {
        return Ok(Value::Str(text));
    }
    let kept = usize::try_from(length - chars(&end)).unwrap_or(usize::MAX);
    let mut kept = text.part(access::char_range(text.as_str(), 0, kept));
    if !flag(kill_words.as_ref())
        && let Some(space) = kept.as_str().rfind(' ')
    {
        kept = kept.part(0..space);
    }
    Ok(Value::Str(concat([&kept, &end])?))
}

/// Removes comments and tags, and reduces whitespace to single spaces.
fn striptags(text: &Text) -> Result<Value, Error> {
    let mut rest = text.as_str();
    let mut bare = Builder::default();
    while let Some(start) = rest.find('<') {
        bare.push(&text.part_of(&rest[..start]));
        let close = if rest[start..].starts_with("<!--") { "-->" } else { ">" };
        let Some(end) = rest[start..].find(close) else { break };
        rest = &rest[start + end + close.len()..];
    }
    bare.push(&text.part_of(rest));
    let words = string_methods::call(&bare.finish()?, "split", Call::default())?;
    string_methods::call(&Text::own(" "), "join", Call::of(vec![words]))
}

fn urlencode(value: &Value) -> Result<Value, Error> {
    if !value.is_iterable() || value.as_text().is_some() {
        return Ok(Value::Str(quote(&repr::str(value)?, "/", "%20")?));
    }
    let pairs = match value {
        Value::Dict(dict) => Value::View(super::value::View::Items, dict.clone()),
        other => other.clone(),
    };
    let mut out = Builder::default();
    for (index, pair) in pairs.iterate()?.iter().enumerate() {
        if index > 0 {
            out.push_own("&");
        }
        let [key, value] = &pair.iterate()?[..] else { return Err(Error::fault("urlencode needs pairs")) };
        out.push(&quote(&repr::str(key)?, "", "+")?);
        out.push_own("=");
        out.push(&quote(&repr::str(value)?, "", "+")?);
    }
    Ok(Value::Str(out.finish()?))
}

fn quote(text: &Text, safe: &str, space: &str) -> Result<Text, Error> {
    let mut out = Builder::default();
    for (offset, byte) in text.as_str().bytes().enumerate() {
        let origin = text.origin_at(offset);
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | '~') || safe.contains(c) {
            out.push_char(c, origin);
        } else if c == ' ' {
            out.push_of(space, origin);
        } else {
            out.push_of(&format!("%{byte:02X}"), origin);
        }
    }
    out.finish()
}

fn xmlattr(value: &Value, call: Call) -> Result<Value, Error> {
    let [autospace] = call.bind("xmlattr", ["autospace"])?;
    let Value::Dict(dict) = value else { return Err(Error::fault("xmlattr needs a mapping")) };
    let mut out = Builder::default();
    let mut spaced = autospace.is_none_or(|autospace| autospace.is_true());
    for (key, value) in dict.iter().filter(|(_, value)| !matches!(value, Value::None | Value::Undefined(_))) {
        if spaced {
            out.push_own(" ");
        }
        spaced = true;
        let key = repr::str(key)?;
        if key.as_str().contains(|c: char| c.is_ascii_whitespace() || matches!(c, '/' | '>' | '=')) {
            return Err(Error::fault(format!("Invalid character in attribute name: '{}'", key.as_str())));
        }
        out.push(&key.escaped()?);
        out.push_own("=\"");
        out.push(&repr::str(value)?.escaped()?);
        out.push_own("\"");
    }
    Ok(Value::Str(out.finish()?))
}

fn filesize(value: &Value, call: Call) -> Result<Value, Error> {
    let [binary] = call.bind("filesizeformat", ["binary"])?;
    let number = match value {
        Value::Str(text) => super::numbers::parse_float(text.as_str()),
        other => ops::as_float(other),
    };
    let bytes = number.ok_or_else(|| Error::fault("could not convert to float"))?;
    let (base, infix) = if flag(binary.as_ref()) { (1024.0, "i") } else { (1000.0, "") };
    if bytes < base {
        let unit = if bytes == 1.0 { "Byte" } else { "Bytes" };
        return Ok(Value::own(format!("{} {unit}", bytes.trunc() as i128)));
    }
    let letters = if infix.is_empty() { "kMGTPEZY" } else { "KMGTPEZY" };
    let mut unit = base;
    let mut letter = 'k';
    for next in letters.chars() {
        letter = next;
        unit *= base;
        if bytes < unit {
            break;
        }
    }
    Ok(Value::Str(Text::of(format!("{:.1} {letter}{infix}B", base * bytes / unit), Origin::Template)))
}
