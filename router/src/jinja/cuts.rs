//! Methods that cut and join strings: split, lines, partition, replace; knows no other type.

use super::arguments::{Call, int, optional_text, text as text_argument};
use super::literal::is_space;
use super::text::{Builder, Text};
use super::{Error, Value, meter};

/// Most pieces into which a text may be cut.
const PARTS_MAX: usize = 1_000_000;

pub(super) fn split(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    let [separator, most] = call.bind(name, ["sep", "maxsplit"])?;
    let separator = optional_text(separator, name, "sep")?;
    // One more piece than allowed shows that there are too many.
    let most = usize::try_from(int(most, -1)?).unwrap_or(usize::MAX).min(PARTS_MAX);
    let string = text.as_str();
    let parts: Vec<&str> = match (&separator, name) {
        (Some(separator), _) if separator.is_empty() => return Err(Error::fault("empty separator")),
        (Some(separator), "split") => string.splitn(most.saturating_add(1), separator.as_str()).collect(),
        (Some(separator), _) => {
            let mut parts: Vec<&str> = string.rsplitn(most.saturating_add(1), separator.as_str()).collect();
            parts.reverse();
            parts
        }
        (None, "split") => words(string, most),
        (None, _) => words_from_end(string, most),
    };
    if parts.len() > PARTS_MAX {
        return Err(Error::Large(meter::LIVE_BYTES_MAX));
    }
    meter::check(parts.len().saturating_mul(100))?;
    Ok(Value::list(parts.into_iter().map(|part| Value::Str(text.part_of(part)))))
}

/// Splits at whitespace, with at most `most` cuts.
fn words(string: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = string.trim_start_matches(is_space);
    while !rest.is_empty() {
        let end = rest.find(is_space).filter(|_| parts.len() < most).unwrap_or(rest.len());
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start_matches(is_space);
    }
    parts
}

fn words_from_end(string: &str, most: usize) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = string.trim_end_matches(is_space);
    while !rest.is_empty() {
        let start = rest.rfind(is_space).filter(|_| parts.len() < most);
        let start = start.map_or(0, |at| at + rest[at..].chars().next().map_or(0, char::len_utf8));
        parts.push(&rest[start..]);
        rest = rest[..start].trim_end_matches(is_space);
    }
    parts.reverse();
    parts
}

pub(super) fn partition(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    let [separator] = call.bind(name, ["sep"])?;
    let separator = text_argument(separator, name, "sep")?;
    if separator.is_empty() {
        return Err(Error::fault("empty separator"));
    }
    let string = text.as_str();
    let from_start = name == "partition";
    let found = if from_start { string.find(separator.as_str()) } else { string.rfind(separator.as_str()) };
    let empty = || Value::own("");
    Ok(match found {
        Some(at) => {
            let end = at + separator.len();
            let parts = [text.part(0..at), text.part(at..end), text.part(end..text.len())];
            Value::tuple(parts.map(Value::Str))
        }
        None if from_start => Value::tuple([Value::Str(text.clone()), empty(), empty()]),
        None => Value::tuple([empty(), empty(), Value::Str(text.clone())]),
    })
}

/// `replace`; a negative `count` means all.
pub(super) fn replace(text: &Text, old: &Text, new: &Text, count: i128) -> Result<Text, Error> {
    meter::charge_bytes(text.len());
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let string = text.as_str();
    let mut builder = Builder::default();
    let mut from = 0;
    for (at, found) in string.match_indices(old.as_str()).take(most) {
        builder.push_part(text, from..at);
        builder.push(new);
        from = at + found.len();
        if builder.is_full() {
            break;
        }
    }
    builder.push_part(text, from..text.len());
    builder.finish()
}

/// Whether lines keep their line ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ends {
    Keep,
    Drop,
}

pub(super) fn lines(text: &Text, ends: Ends) -> Vec<Text> {
    let string = text.as_str();
    let mut lines = Vec::new();
    let mut start = 0;
    let mut chars = string.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        let is_end = matches!(c, '\n' | '\r' | '\x0b' | '\x0c' | '\x1c'..='\x1e' | '\u{85}' | '\u{2028}' | '\u{2029}');
        if !is_end {
            continue;
        }
        let mut end = at + c.len_utf8();
        if c == '\r' && chars.next_if(|(_, next)| *next == '\n').is_some() {
            end += 1;
        }
        lines.push(text.part(start..if ends == Ends::Keep { end } else { at }));
        start = end;
    }
    if start < string.len() {
        lines.push(text.part(start..string.len()));
    }
    lines
}
