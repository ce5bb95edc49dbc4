//! JSON text: values, escapes, indentation; knows nothing of what is reported. Writing only.

use std::fmt;

/// A value to be written.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Json {
    Null,
    Flag(bool),
    Count(u64),
    /// Written with four significant digits; what is not finite becomes null, since JSON has no other word for it.
    Number(f64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
    /// The text of a value that another process of this program wrote.
    Written(String),
}

impl Json {
    pub(crate) fn text(text: impl Into<String>) -> Json {
        Json::Text(text.into())
    }

    pub(crate) fn error(message: impl Into<String>) -> Json {
        Json::Object(vec![("error", Json::text(message))])
    }

    pub(crate) fn list<T>(items: impl IntoIterator<Item = T>, json: impl Fn(T) -> Json) -> Json {
        Json::List(items.into_iter().map(json).collect())
    }

    /// Whether a field named `error` is anywhere inside.
    pub(crate) fn has_error(&self) -> bool {
        match self {
            Json::Null | Json::Flag(_) | Json::Count(_) | Json::Number(_) | Json::Text(_) | Json::Written(_) => false,
            Json::List(items) => items.iter().any(Json::has_error),
            Json::Object(fields) => fields.iter().any(|(name, value)| *name == "error" || value.has_error()),
        }
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, depth: usize) -> fmt::Result {
        match self {
            Json::Null => f.write_str("null"),
            Json::Flag(value) => write!(f, "{value}"),
            Json::Count(value) => write!(f, "{value}"),
            Json::Number(value) => write_number(f, *value),
            Json::Text(text) => write_text(f, text),
            Json::List(items) if items.iter().all(Json::is_scalar) => {
                let texts: Vec<String> = items.iter().map(Json::to_string).collect();
                write!(f, "[{}]", texts.join(", "))
            }
            Json::List(items) => {
                let lines = items.iter().map(|item| ("", item));
                write_lines(f, depth, '[', lines, ']')
            }
            Json::Object(fields) => {
                let lines = fields.iter().map(|(name, value)| (*name, value));
                write_lines(f, depth, '{', lines, '}')
            }
            Json::Written(text) => {
                // Line breaks inside texts are escaped, so every one of these is between values.
                f.write_str(&text.replace('\n', &format!("\n{}", indent(depth))))
            }
        }
    }

    fn is_scalar(&self) -> bool {
        match self {
            Json::Null | Json::Flag(_) | Json::Count(_) | Json::Number(_) | Json::Text(_) => true,
            Json::List(_) | Json::Object(_) | Json::Written(_) => false,
        }
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)
    }
}

fn indent(depth: usize) -> String {
    "  ".repeat(depth)
}

fn write_lines<'a>(
    f: &mut fmt::Formatter<'_>,
    depth: usize,
    open: char,
    lines: impl Iterator<Item = (&'static str, &'a Json)>,
    close: char,
) -> fmt::Result {
    write!(f, "{open}")?;
    let mut empty = true;
    for (name, value) in lines {
        let comma = if empty { "" } else { "," };
        empty = false;
        write!(f, "{comma}\n{}", indent(depth + 1))?;
        if !name.is_empty() {
            write_text(f, name)?;
            f.write_str(": ")?;
        }
        value.write(f, depth + 1)?;
    }
    if !empty {
        write!(f, "\n{}", indent(depth))?;
    }
    write!(f, "{close}")
}

fn write_number(f: &mut fmt::Formatter<'_>, value: f64) -> fmt::Result {
    if !value.is_finite() {
        return f.write_str("null");
    }
    let digits_before = if value == 0.0 { 1.0 } else { value.abs().log10().floor() + 1.0 };
    let decimals = (4.0 - digits_before).clamp(0.0, 9.0) as usize;
    write!(f, "{value:.decimals$}")
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' => f.write_str("\\\"")?,
            '\\' => f.write_str("\\\\")?,
            '\n' => f.write_str("\\n")?,
            '\t' => f.write_str("\\t")?,
            control if control < ' ' => write!(f, "\\u{:04x}", u32::from(control))?,
            plain => write!(f, "{plain}")?,
        }
    }
    f.write_str("\"")
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    #[test]
    fn texts_are_escaped() {
        let text = Json::text("a \"quote\", a \\, a\nline, a\ttab, \u{1}, é, 木");
        assert_eq!(text.to_string(), r#""a \"quote\", a \\, a\nline, a\ttab, \u0001, é, 木""#);
    }

    #[test]
    fn numbers_have_four_significant_digits() {
        let written = |value| Json::Number(value).to_string();
        assert_eq!(written(0.0), "0.000");
        assert_eq!(written(1234.567), "1235");
        assert_eq!(written(12.345_678), "12.35");
        assert_eq!(written(0.001_234_56), "0.001235");
        assert_eq!(written(-55.5), "-55.50");
        assert_eq!(written(f64::NAN), "null");
        assert_eq!(written(f64::INFINITY), "null");
    }

    #[test]
    fn errors_are_found_at_any_depth() {
        let inside = |value| Json::Object(vec![("rows", Json::List(vec![Json::Null, value]))]);
        assert!(inside(Json::error("it broke")).has_error());
        assert!(!inside(Json::text("error")).has_error());
    }

    #[test]
    fn values_nest() {
        let inner = Json::Object(vec![("lines", Json::text("one\ntwo")), ("none", Json::Null)]);
        let value = Json::Object(vec![
            ("written elsewhere", Json::Written(inner.to_string())),
            ("numbers", Json::list([1, 2], Json::Count)),
            ("objects", Json::List(vec![inner, Json::error("it broke")])),
            ("empty", Json::List(vec![])),
            ("nothing", Json::Object(vec![])),
            ("yes", Json::Flag(true)),
        ]);
        expect![[r#"
            {
              "written elsewhere": {
                "lines": "one\ntwo",
                "none": null
              },
              "numbers": [1, 2],
              "objects": [
                {
                  "lines": "one\ntwo",
                  "none": null
                },
                {
                  "error": "it broke"
                }
              ],
              "empty": [],
              "nothing": {},
              "yes": true
            }"#]]
        .assert_eq(&value.to_string());
    }
}
