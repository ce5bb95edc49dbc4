//! Python's methods of strings; knows no other type.

use super::arguments::{Call, int, needed, optional_text, text as text_argument};
use super::literal::is_space;
use super::text::{Builder, Text, concat};
use super::{Error, Value, access, cuts, format, meter, repr};

pub(super) const NAMES: [&str; 44] = [
    "capitalize",
    "casefold",
    "center",
    "count",
    "endswith",
    "expandtabs",
    "find",
    "format",
    "format_map",
    "index",
    "isalnum",
    "isalpha",
    "isascii",
    "isdecimal",
    "isdigit",
    "isidentifier",
    "islower",
    "isnumeric",
    "isprintable",
    "isspace",
    "istitle",
    "isupper",
    "join",
    "ljust",
    "lower",
    "lstrip",
    "partition",
    "removeprefix",
    "removesuffix",
    "replace",
    "rfind",
    "rindex",
    "rjust",
    "rpartition",
    "rsplit",
    "rstrip",
    "split",
    "splitlines",
    "startswith",
    "strip",
    "swapcase",
    "title",
    "upper",
    "zfill",
];

pub(super) fn call(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    match name {
        "format" => format::braces(text, &call),
        "format_map" => {
            let [mapping] = call.bind(name, ["mapping"])?;
            format::braces_of(text, &needed(mapping, name, "mapping")?)
        }
        "split" | "rsplit" => cuts::split(text, name, call),
        "splitlines" => {
            let [keep] = call.bind(name, ["keepends"])?;
            let keep = if keep.is_some_and(|keep| keep.is_true()) { cuts::Ends::Keep } else { cuts::Ends::Drop };
            Ok(Value::list(cuts::lines(text, keep).into_iter().map(Value::Str)))
        }
        "partition" | "rpartition" => cuts::partition(text, name, call),
        "replace" => {
            let [old, new, count] = call.bind(name, ["old", "new", "count"])?;
            let (old, new) = (text_argument(old, name, "old")?, text_argument(new, name, "new")?);
            Ok(Value::Str(cuts::replace(text, &old, &new, int(count, -1)?)?))
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = call.bind(name, ["chars"])?;
            let chars = optional_text(chars, name, "chars")?;
            Ok(Value::Str(strip(text, chars.as_ref(), Sides::of(name))))
        }
        "removeprefix" | "removesuffix" => {
            let [affix] = call.bind(name, ["affix"])?;
            let affix = text_argument(affix, name, "affix")?;
            let string = text.as_str();
            let kept = if name == "removeprefix" {
                string.strip_prefix(affix.as_str())
            } else {
                string.strip_suffix(affix.as_str())
            };
            Ok(Value::Str(text.part_of(kept.unwrap_or(string))))
        }
        "startswith" | "endswith" => affix(text, name, call),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, call),
        "join" => {
            let [items] = call.bind(name, ["iterable"])?;
            join(text, &needed(items, name, "iterable")?)
        }
        "center" | "ljust" | "rjust" | "zfill" => pad(text, name, call),
        "expandtabs" => {
            let [size] = call.bind(name, ["tabsize"])?;
            expand_tabs(text, int(size, 8)?)
        }
        "upper" | "lower" | "casefold" | "capitalize" | "title" | "swapcase" => {
            call.nothing(name)?;
            Ok(Value::Str(change_case(text, name)?))
        }
        _ => {
            call.nothing(name)?;
            Ok(Value::Bool(is(text.as_str(), name)))
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sides {
    Both,
    Start,
    End,
}

impl Sides {
    fn of(name: &str) -> Sides {
        match name {
            "lstrip" => Sides::Start,
            "rstrip" => Sides::End,
            _ => Sides::Both,
        }
    }
}

/// Removes whitespace, or the characters in `chars`, at the ends.
pub(super) fn strip(text: &Text, chars: Option<&Text>, sides: Sides) -> Text {
    let goes = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.as_str().contains(c));
    let string = text.as_str();
    let kept = match sides {
        Sides::Both => string.trim_matches(goes),
        Sides::Start => string.trim_start_matches(goes),
        Sides::End => string.trim_end_matches(goes),
    };
    text.part_of(kept)
}

fn affix(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    let [affixes, start, stop] = call.bind(name, ["prefix", "start", "end"])?;
    let Some(range) = char_bounds(text, start, stop)? else { return Ok(Value::Bool(false)) };
    let part = &text.as_str()[range];
    let matches = |affix: &Value| match affix {
        Value::Str(affix) if name == "startswith" => Ok(part.starts_with(affix.as_str())),
        Value::Str(affix) => Ok(part.ends_with(affix.as_str())),
        other => {
            Err(Error::fault(format!("{name} first arg must be str or a tuple of str, not {}", other.type_name())))
        }
    };
    match needed(affixes, name, "prefix")? {
        Value::Tuple(affixes) => {
            for affix in affixes.iter() {
                if matches(affix)? {
                    return Ok(Value::Bool(true));
                }
            }
            Ok(Value::Bool(false))
        }
        affix => Ok(Value::Bool(matches(&affix)?)),
    }
}

/// Returns the bytes between the characters `start` and `stop`; `None` if they cross.
fn char_bounds(
    text: &Text,
    start: Option<Value>,
    stop: Option<Value>,
) -> Result<Option<std::ops::Range<usize>>, Error> {
    let absent = |value: Option<Value>| value.filter(|value| !matches!(value, Value::None));
    let (start, stop) = (absent(start), absent(stop));
    if start.is_none() && stop.is_none() {
        return Ok(Some(0..text.len()));
    }
    let length = i128::try_from(text.as_str().chars().count()).unwrap_or(i128::MAX);
    let place = |bound: i128| if bound < 0 { (bound + length).max(0) } else { bound };
    let (start, stop) = (place(int(start, 0)?), place(int(stop, length)?).min(length));
    let (Ok(from), Ok(count)) = (usize::try_from(start), usize::try_from(stop - start)) else { return Ok(None) };
    Ok(Some(access::char_range(text.as_str(), from, count)))
}

fn search(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    let [wanted, start, stop] = call.bind(name, ["sub", "start", "end"])?;
    let wanted = text_argument(wanted, name, "sub")?;
    let range = char_bounds(text, start, stop)?;
    let part = range.clone().map(|range| &text.as_str()[range]);
    if name == "count" {
        let count = part.map_or(0, |part| match wanted.is_empty() {
            true => part.chars().count() + 1,
            false => part.matches(wanted.as_str()).count(),
        });
        return Ok(Value::Int(i128::try_from(count).unwrap_or(i128::MAX)));
    }
    let found = part.and_then(|part| match name {
        "find" | "index" => part.find(wanted.as_str()),
        _ => part.rfind(wanted.as_str()),
    });
    match (found, range) {
        (Some(offset), Some(range)) => {
            let chars = text.as_str()[..range.start + offset].chars().count();
            Ok(Value::Int(i128::try_from(chars).unwrap_or(i128::MAX)))
        }
        _ if matches!(name, "index" | "rindex") => Err(Error::fault("substring not found")),
        _ => Ok(Value::Int(-1)),
    }
}

fn join(separator: &Text, items: &Value) -> Result<Value, Error> {
    items.require()?;
    let items = items.iterate()?;
    let mut builder = Builder::default();
    for (index, item) in items.iter().enumerate() {
        let Value::Str(text) = item else {
            let kind = item.type_name();
            return Err(Error::fault(format!("sequence item {index}: expected str instance, {kind} found")));
        };
        if index > 0 {
            builder.push(separator);
        }
        builder.push(text);
    }
    Ok(Value::Str(builder.finish()?))
}

fn pad(text: &Text, name: &'static str, call: Call) -> Result<Value, Error> {
    let [width, fill] = call.bind(name, ["width", "fillchar"])?;
    let width = int(Some(needed(width, name, "width")?), 0)?;
    let fill = match optional_text(fill, name, "fillchar")? {
        None => Text::own(if name == "zfill" { "0" } else { " " }),
        Some(fill) if fill.as_str().chars().count() == 1 => fill,
        Some(_) => return Err(Error::fault("The fill character must be exactly one character long")),
    };
    let length = text.as_str().chars().count();
    let missing = usize::try_from(width).unwrap_or(0).saturating_sub(length);
    if missing > meter::TEXT_BYTES_MAX {
        return Err(Error::Large(meter::TEXT_BYTES_MAX));
    }
    let left = match name {
        "ljust" => 0,
        // CPython puts the odd space to the left if the width is odd too.
        "center" => missing / 2 + (missing & usize::try_from(width).unwrap_or(0) & 1),
        _ => missing,
    };
    let sign = usize::from(name == "zfill" && text.as_str().starts_with(['+', '-']));
    let mut builder = Builder::default();
    builder.push_part(text, 0..sign);
    (0..left).for_each(|_| builder.push(&fill));
    builder.push_part(text, sign..text.len());
    (left..missing).for_each(|_| builder.push(&fill));
    Ok(Value::Str(builder.finish()?))
}

fn expand_tabs(text: &Text, size: i128) -> Result<Value, Error> {
    let size = usize::try_from(size).unwrap_or(0).min(meter::TEXT_BYTES_MAX);
    let mut builder = Builder::default();
    let mut column = 0;
    for (offset, c) in text.as_str().char_indices() {
        let origin = text.origin_at(offset);
        match c {
            '\t' => {
                let spaces = if size == 0 { 0 } else { size - column % size };
                (0..spaces).for_each(|_| builder.push_char(' ', origin));
                column += spaces;
            }
            _ => {
                builder.push_char(c, origin);
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    Ok(Value::Str(builder.finish()?))
}

pub(super) fn change_case(text: &Text, name: &str) -> Result<Text, Error> {
    match name {
        "upper" => text.map_chars(char::to_uppercase),
        "lower" => lower(text),
        "casefold" => lower(text)?.map_chars(|c| if c == 'ß' { vec!['s', 's'] } else { vec![c] }.into_iter()),
        "capitalize" => {
            let first = text.as_str().chars().next().map_or(0, char::len_utf8);
            let head = text.part(0..first).map_chars(|c| titled(c).into_iter())?;
            concat([&head, &lower(&text.part(first..text.len()))?])
        }
        "title" => {
            let mut inside = false;
            text.map_chars(|c| {
                let changed = if inside { c.to_lowercase().collect() } else { titled(c) };
                inside = c.is_alphabetic();
                changed.into_iter()
            })
        }
        _ => text.map_chars(|c| {
            let swapped: Vec<char> =
                if c.is_lowercase() { c.to_uppercase().collect() } else { c.to_lowercase().collect() };
            swapped.into_iter()
        }),
    }
}

/// Needs the whole text, as a sigma at the end of a word has its own lower case.
fn lower(text: &Text) -> Result<Text, Error> {
    let lowered = text.as_str().to_lowercase();
    let mut lowered = lowered.chars();
    text.map_chars(|c| {
        let count = c.to_lowercase().count();
        lowered.by_ref().take(count).collect::<Vec<char>>().into_iter()
    })
}

/// Returns a character as it begins a word.
pub(super) fn titled(c: char) -> Vec<char> {
    let mut upper = c.to_uppercase();
    let first = upper.next().into_iter();
    first.chain(upper.flat_map(char::to_lowercase)).collect()
}

/// Methods like `isalpha`, without arguments.
pub(super) fn is(string: &str, name: &str) -> bool {
    let all = |wanted: fn(char) -> bool| !string.is_empty() && string.chars().all(wanted);
    let is_cased = |c: char| c.is_lowercase() || c.is_uppercase();
    match name {
        "isalnum" => all(char::is_alphanumeric),
        "isalpha" => all(|c| c.is_alphabetic() && !c.is_numeric()),
        "isascii" => string.is_ascii(),
        "isdecimal" => all(is_decimal),
        "isdigit" => all(|c| is_decimal(c) || matches!(c, '²' | '³' | '¹' | '⁰' | '⁴'..='⁹' | '₀'..='₉')),
        "isnumeric" => all(char::is_numeric),
        "isidentifier" => super::literal::name(string).is_some_and(|(_, length)| length == string.len()),
        "islower" => string.chars().any(is_cased) && !string.chars().any(char::is_uppercase),
        "isupper" => string.chars().any(is_cased) && !string.chars().any(char::is_lowercase),
        "isprintable" => string.chars().all(repr::is_printable),
        "isspace" => all(is_space),
        // The remaining name is `istitle`.
        _ => {
            let mut inside = false;
            let mut cased = false;
            string.chars().all(|c| {
                let fits = if c.is_uppercase() { !inside } else { !c.is_lowercase() || inside };
                inside = is_cased(c);
                cased |= inside;
                fits
            }) && cased
        }
    }
}

/// Digits zero of the scripts with own digits; the other nine follow each.
const ZEROS: [u32; 37] = [
    0x30, 0x660, 0x6f0, 0x7c0, 0x966, 0x9e6, 0xa66, 0xae6, 0xb66, 0xbe6, 0xc66, 0xce6, 0xd66, 0xde6, 0xe50, 0xed0,
    0xf20, 0x1040, 0x1090, 0x17e0, 0x1810, 0x1946, 0x19d0, 0x1a80, 0x1a90, 0x1b50, 0x1bb0, 0x1c40, 0x1c50, 0xa620,
    0xa8d0, 0xa900, 0xa9d0, 0xa9f0, 0xaa50, 0xabf0, 0xff10,
];

fn is_decimal(c: char) -> bool {
    let code = u32::from(c);
    ZEROS.into_iter().any(|zero| (zero..zero + 10).contains(&code)) || (0x1d7ce..=0x1d7ff).contains(&code)
}
