//! Jinja's `tojson` as chat templates expect it: Python's `json.dumps` without HTML escapes; knows no template.

use std::io::{self, Write};

use minijinja::value::Kwargs;
use minijinja::{Error, ErrorKind, Value};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

/// Most spaces of indentation that a template may ask for.
const INDENT_MAX: usize = 16;

/// The filter. `indent` is honoured; `ensure_ascii` is off as in the reference implementation.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the template engine asks for")]
pub(super) fn tojson(value: Value, kwargs: Kwargs) -> Result<String, Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let _: Option<bool> = kwargs.get("ensure_ascii")?;
    kwargs.assert_all_used()?;
    match indent {
        None => dumps(&value, OneLine),
        Some(spaces) => {
            let indent = vec![b' '; spaces.min(INDENT_MAX)];
            dumps(&value, PrettyFormatter::with_indent(&indent))
        }
    }
}

fn dumps(value: &Value, formatter: impl Formatter) -> Result<String, Error> {
    let failed = |reason: String| Error::new(ErrorKind::BadSerialization, reason);
    let mut out = Vec::new();
    value.serialize(&mut Serializer::with_formatter(&mut out, formatter)).map_err(|error| failed(error.to_string()))?;
    String::from_utf8(out).map_err(|error| failed(error.to_string()))
}

/// One line with a space after each comma and colon.
struct OneLine;

impl Formatter for OneLine {
    fn begin_array_value<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b": ")
    }
}
