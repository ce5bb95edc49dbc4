//! Python's literals: numbers, names and strings; knows no tag.

use super::lexer::Token;

/// Returns true for whitespace as in Python's `str.isspace` and `\s`.
pub(super) fn is_space(c: char) -> bool {
    c.is_whitespace() || matches!(c, '\x1c'..='\x1f')
}

/// Reads the number at the start of `text`; returns its length too.
pub(super) fn number(text: &str) -> Option<(Token, usize)> {
    let whole = digits(text, |c| c.is_ascii_digit());
    if whole == 0 {
        return None;
    }
    if let Some(length) = float_length(text, whole) {
        let value = text[..length].replace('_', "").parse().ok()?;
        return Some((Token::Float(value), length));
    }
    let lower = text.get(..2).unwrap_or_default().to_ascii_lowercase();
    for (prefix, radix) in [("0x", 16), ("0o", 8), ("0b", 2)] {
        if lower == prefix {
            let length = digits(text[2..].strip_prefix('_').unwrap_or(&text[2..]), |c| c.is_digit(radix));
            let skipped = usize::from(text[2..].starts_with('_'));
            let value = i128::from_str_radix(&text[2 + skipped..2 + skipped + length].replace('_', ""), radix).ok()?;
            return Some((Token::Int(value), 2 + skipped + length));
        }
    }
    let length = if text.starts_with('0') { digits(text, |c| c == '0') } else { whole };
    Some((Token::Int(text[..length].replace('_', "").parse().ok()?), length))
}

/// Returns the length of digits with single underscores between them.
fn digits(text: &str, is_digit: impl Fn(char) -> bool) -> usize {
    let mut length = 0;
    let mut previous = '_';
    for (offset, c) in text.char_indices() {
        if is_digit(c) {
            length = offset + 1;
        } else if c != '_' || previous == '_' {
            break;
        }
        previous = c;
    }
    length
}

/// Returns the length of the float that begins with `whole` digits, if it is one.
fn float_length(text: &str, whole: usize) -> Option<usize> {
    let is_digit = |c: char| c.is_ascii_digit();
    let mut length = whole;
    if let Some(after) = text[length..].strip_prefix('.') {
        let fraction = digits(after, is_digit);
        if fraction == 0 {
            return None;
        }
        length += 1 + fraction;
    }
    if let Some(after) = text[length..].strip_prefix(['e', 'E']) {
        let unsigned = after.strip_prefix(['+', '-']).unwrap_or(after);
        let exponent = digits(unsigned, is_digit);
        if exponent > 0 {
            length += 1 + (after.len() - unsigned.len()) + exponent;
        }
    }
    (length > whole).then_some(length)
}

/// Reads the name at the start of `text`; returns its length too.
pub(super) fn name(text: &str) -> Option<(Token, usize)> {
    let first = text.chars().next()?;
    if !(first.is_alphabetic() || first == '_') {
        return None;
    }
    let length = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    Some((Token::Name(text[..length].to_owned()), length))
}

/// Replaces the escapes of a string literal as Python's codec `unicode-escape` does.
pub(super) fn unescaped(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find('\\') {
        out.push_str(&rest[..start]);
        rest = escape(&rest[start + 1..], &mut out)?;
    }
    out.push_str(rest);
    Ok(out)
}

/// Reads one escape after its backslash; returns the rest.
fn escape<'s>(rest: &'s str, out: &mut String) -> Result<&'s str, String> {
    let Some(kind) = rest.chars().next() else { return Err("\\ at end of string".to_owned()) };
    let after = &rest[kind.len_utf8()..];
    let simple = match kind {
        '\n' => return Ok(after),
        '\\' | '\'' | '"' => kind,
        'a' => '\x07',
        'b' => '\x08',
        'f' => '\x0c',
        'n' => '\n',
        'r' => '\r',
        't' => '\t',
        'v' => '\x0b',
        '0'..='7' => {
            let length = rest.bytes().take(3).take_while(|byte| matches!(byte, b'0'..=b'7')).count();
            let code = u32::from_str_radix(&rest[..length], 8).unwrap_or_default();
            out.push(char::from_u32(code).unwrap_or_default());
            return Ok(&rest[length..]);
        }
        'x' => return hexadecimal(after, 2, out),
        'u' => return hexadecimal(after, 4, out),
        'U' => return hexadecimal(after, 8, out),
        'N' => return Err("\\N{...} names are not supported".to_owned()),
        _ if kind.is_ascii() => {
            out.push('\\');
            kind
        }
        // Python first turns such a character into an escape, whose backslash this one then escapes.
        _ => {
            let code = u32::from(kind);
            let written = match code {
                0..=0xff => format!("\\x{code:02x}"),
                0x100..=0xffff => format!("\\u{code:04x}"),
                _ => format!("\\U{code:08x}"),
            };
            out.push_str(&written);
            return Ok(after);
        }
    };
    out.push(simple);
    Ok(after)
}

fn hexadecimal<'s>(rest: &'s str, digits: usize, out: &mut String) -> Result<&'s str, String> {
    let code = |text: &str| {
        let hex = text.get(..digits).filter(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))?;
        u32::from_str_radix(hex, 16).ok()
    };
    let Some(first) = code(rest) else { return Err(format!("truncated escape of {digits} digits")) };
    let rest = &rest[digits..];
    if let Some(c) = char::from_u32(first) {
        out.push(c);
        return Ok(rest);
    }
    let second = rest.strip_prefix("\\u").and_then(code);
    if let Some(second) = second.filter(|second| (0xdc00..0xe000).contains(second))
        && (0xd800..0xdc00).contains(&first)
    {
        out.extend(char::from_u32(0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00)));
        return Ok(&rest[2 + digits..]);
    }
    Err(format!("the escape {first:#x} is not a character"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        let float = |value: f64, length: usize| Some((Token::Float(value), length));
        let int = |value: i128, length: usize| Some((Token::Int(value), length));
        assert_eq!(number("1_000.5e-3x"), float(1.0005, 10));
        assert_eq!(number("1e3"), float(1000.0, 3));
        assert_eq!(number("1.foo"), int(1, 1));
        assert_eq!(number("1.e5"), int(1, 1));
        assert_eq!(number("0x_ff "), int(255, 5));
        assert_eq!(number("007"), int(0, 2));
        assert_eq!(number("12__3"), int(12, 2));
        assert_eq!(number("x"), None);
    }

    #[test]
    fn escapes() {
        assert_eq!(unescaped(r"a\n\x41\u00e9\101\q\é").unwrap(), "a\nAéA\\q\\xe9");
        assert_eq!(unescaped(r"\ud83d\ude00").unwrap(), "😀");
        assert!(unescaped(r"\ud83d").is_err());
        assert!(unescaped(r"\x4").is_err());
    }
}
