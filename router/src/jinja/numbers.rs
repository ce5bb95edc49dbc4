//! Numbers and texts by Python's format specification, and parsing of numbers; knows no syntax.

use super::text::{Builder, Origin, Text};
use super::{Error, Value, access, meter, ops, repr};

/// `[[fill]align][sign][#][0][width][,][.precision][type]`.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Spec {
    pub fill: Option<char>,
    pub align: Option<char>,
    pub sign: Option<char>,
    pub alternate: bool,
    pub zero: bool,
    pub width: Option<usize>,
    pub grouping: Option<char>,
    pub precision: Option<usize>,
    pub kind: Option<char>,
}

/// Most digits after the point.
const PRECISION_MAX: usize = 1000;

impl Spec {
    pub(super) fn parse(text: &str) -> Result<Spec, Error> {
        let mut spec = Spec::default();
        let mut chars: Vec<char> = text.chars().collect();
        let is_align = |c: Option<&char>| c.is_some_and(|c| matches!(c, '<' | '>' | '^' | '='));
        if is_align(chars.get(1)) {
            spec.fill = Some(chars[0]);
            spec.align = Some(chars[1]);
            chars.drain(..2);
        } else if is_align(chars.first()) {
            spec.align = Some(chars.remove(0));
        }
        let mut rest = chars.into_iter().peekable();
        spec.sign = rest.next_if(|c| matches!(c, '+' | '-' | ' '));
        spec.alternate = rest.next_if_eq(&'#').is_some();
        spec.zero = rest.next_if_eq(&'0').is_some();
        let number = |rest: &mut std::iter::Peekable<std::vec::IntoIter<char>>| {
            let mut digits = String::new();
            while let Some(digit) = rest.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            digits.parse().ok()
        };
        spec.width = number(&mut rest);
        spec.grouping = rest.next_if(|c| matches!(c, ',' | '_'));
        if rest.next_if_eq(&'.').is_some() {
            let missing = || Error::fault("Format specifier missing precision");
            spec.precision = Some(number(&mut rest).ok_or_else(missing)?);
        }
        spec.kind = rest.next();
        if rest.next().is_some() {
            return Err(Error::fault(format!("Invalid format specifier '{text}'")));
        }
        Ok(spec)
    }
}

pub(super) fn write_text(text: &Text, spec: &Spec, out: &mut Builder) -> Result<(), Error> {
    if spec.kind.is_some_and(|kind| kind != 's') || spec.sign.is_some() || spec.align == Some('=') {
        return Err(Error::fault("this format specifier is not allowed for a string"));
    }
    let text = match spec.precision {
        Some(precision) => text.part(access::char_range(text.as_str(), 0, precision)),
        None => text.clone(),
    };
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    let align = spec.align.unwrap_or('<');
    pad(text.as_str().chars().count(), spec, fill, align, out, |out| out.push(&text))
}

pub(super) fn write(value: &Value, spec: &Spec, out: &mut Builder) -> Result<(), Error> {
    let (negative, prefix, mut digits) = match (value.as_int(), spec.kind) {
        (Some(number), None | Some('d' | 'n' | 'b' | 'o' | 'x' | 'X' | 'c')) => integer(number, spec)?,
        _ => {
            let Some(number) = ops::as_float(value) else { return Err(Error::fault("a number is required")) };
            let is_negative = number.is_sign_negative() && !number.is_nan();
            (is_negative, "", float(number.abs(), spec)?)
        }
    };
    if let Some(separator) = spec.grouping {
        digits = grouped(&digits, separator);
    }
    let sign = match (negative, spec.sign) {
        (true, _) => "-",
        (false, Some('+')) => "+",
        (false, Some(' ')) => " ",
        (false, _) => "",
    };
    let written = format!("{sign}{prefix}{digits}");
    let zero = spec.zero && !matches!(spec.align, Some('<' | '^'));
    let fill = spec.fill.unwrap_or(if spec.zero { '0' } else { ' ' });
    let align = if zero && spec.fill.is_none() { '=' } else { spec.align.unwrap_or('>') };
    if align == '=' {
        out.push_own(sign);
        out.push_own(prefix);
        let rest = Spec { width: spec.width.map(|width| width.saturating_sub(sign.len() + prefix.len())), ..*spec };
        return pad(digits.len(), &rest, fill, '>', out, |out| out.push_own(&digits));
    }
    pad(written.len(), spec, fill, align, out, |out| out.push_own(&written))
}

fn pad(
    length: usize,
    spec: &Spec,
    fill: char,
    align: char,
    out: &mut Builder,
    body: impl FnOnce(&mut Builder),
) -> Result<(), Error> {
    let missing = spec.width.unwrap_or(0).saturating_sub(length);
    if missing > meter::TEXT_BYTES_MAX {
        return Err(Error::Large(meter::TEXT_BYTES_MAX));
    }
    let left = match align {
        '<' => 0,
        '^' => missing / 2,
        _ => missing,
    };
    (0..left).for_each(|_| out.push_char(fill, Origin::Template));
    body(out);
    (left..missing).for_each(|_| out.push_char(fill, Origin::Template));
    Ok(())
}

fn integer(number: i128, spec: &Spec) -> Result<(bool, &'static str, String), Error> {
    let magnitude = number.unsigned_abs();
    let (prefix, digits) = match spec.kind {
        Some('b') => ("0b", format!("{magnitude:b}")),
        Some('o') => ("0o", format!("{magnitude:o}")),
        Some('x') => ("0x", format!("{magnitude:x}")),
        Some('X') => ("0X", format!("{magnitude:X}")),
        Some('c') => {
            let c = u32::try_from(number).ok().and_then(char::from_u32);
            return Ok((false, "", c.ok_or_else(|| Error::fault("%c arg not in range"))?.to_string()));
        }
        _ => ("", magnitude.to_string()),
    };
    let least = spec.precision.unwrap_or(0).min(PRECISION_MAX);
    let digits = format!("{}{digits}", "0".repeat(least.saturating_sub(digits.len())));
    Ok((number < 0, if spec.alternate { prefix } else { "" }, digits))
}

fn float(number: f64, spec: &Spec) -> Result<String, Error> {
    let kind = spec.kind;
    let upper = matches!(kind, Some('E' | 'F' | 'G'));
    let precision = spec.precision.map(|precision| precision.min(PRECISION_MAX));
    if !number.is_finite() {
        let name = if number.is_nan() { "nan" } else { "inf" };
        return Ok(if upper { name.to_uppercase() } else { name.to_owned() });
    }
    let written = match kind {
        Some('f' | 'F') => format!("{number:.*}", precision.unwrap_or(6)),
        Some('e' | 'E') => exponent(&format!("{number:.*e}", precision.unwrap_or(6))),
        Some('%') => format!("{:.*}%", precision.unwrap_or(6), number * 100.0),
        None if precision.is_none() => repr::float(number),
        Some('g' | 'G' | 'n') | None => general(number, precision.unwrap_or(6).max(1), kind.is_none()),
        Some(other) => return Err(Error::fault(format!("Unknown format code '{other}' for object of type 'float'"))),
    };
    Ok(if upper { written.to_uppercase() } else { written })
}

/// Turns Rust's `1e5` into Python's `1e+05`.
fn exponent(scientific: &str) -> String {
    let (digits, exponent) = scientific.split_once('e').unwrap_or((scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// `%g`: significant digits without trailing zeros.
fn general(number: f64, digits: usize, keep_point: bool) -> String {
    let scientific = format!("{number:.*e}", digits - 1);
    let power: i64 = scientific.split_once('e').and_then(|(_, power)| power.parse().ok()).unwrap_or_default();
    let strip = |text: &str| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    let most = i64::try_from(digits).unwrap_or(i64::MAX);
    if power < -4 || power >= most {
        let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
        return exponent(&format!("{}e{power}", strip(mantissa)));
    }
    let decimals = usize::try_from(most - 1 - power).unwrap_or(0);
    let fixed = strip(&format!("{number:.decimals$}"));
    if keep_point && !fixed.contains('.') { format!("{fixed}.0") } else { fixed }
}

/// Separates groups of three digits.
fn grouped(digits: &str, separator: char) -> String {
    let whole = digits.bytes().take_while(u8::is_ascii_digit).count();
    let mut out = String::new();
    for (index, digit) in digits[..whole].chars().enumerate() {
        if index > 0 && (whole - index) % 3 == 0 {
            out.push(separator);
        }
        out.push(digit);
    }
    out + &digits[whole..]
}

/// Parses an integer as Python's `int(text, base)` does.
pub(super) fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim_matches(super::literal::is_space);
    let (negative, digits) = match text.strip_prefix(['+', '-']) {
        Some(digits) => (text.starts_with('-'), digits),
        None => (false, text),
    };
    let prefixes = [("0x", 16), ("0o", 8), ("0b", 2)];
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let prefixed = prefixes.into_iter().find(|(prefix, _)| lower.as_deref() == Some(prefix));
    let (digits, base) = match (prefixed, base) {
        (Some((_, found)), base) if base == 0 || base == found => {
            (digits[2..].strip_prefix('_').unwrap_or(&digits[2..]), found)
        }
        (None, 0) => (digits, 10),
        (_, base @ 2..=36) => (digits, base),
        _ => return None,
    };
    if digits.starts_with('_') || digits.ends_with('_') || digits.contains("__") || digits.starts_with(['+', '-']) {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -value } else { value })
}

/// Parses a float as Python's `float` does.
pub(super) fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim_matches(super::literal::is_space);
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text).to_ascii_lowercase();
    let is_word = matches!(unsigned.as_str(), "inf" | "infinity" | "nan");
    if !is_word && unsigned.bytes().any(|byte| byte.is_ascii_alphabetic() && byte != b'e') {
        return None;
    }
    text.replace('_', "").parse().ok()
}

/// Rounds as Python's `round`: half to even, on the exact value.
pub(super) fn round(value: f64, digits: i128) -> f64 {
    if !value.is_finite() {
        return value;
    }
    match usize::try_from(digits) {
        Ok(digits) if digits > 330 => value,
        Ok(digits) => format!("{value:.digits$}").parse().unwrap_or(value),
        Err(_) => {
            let scale = 10f64.powi(i32::try_from(-digits).unwrap_or(400).min(400));
            if scale.is_finite() { (value / scale).round_ties_even() * scale } else { 0.0_f64.copysign(value) }
        }
    }
}
