//! Form of a log line: time, level, process, place, message. One event is one line, whatever its fields hold.

use std::fmt;
use std::sync::{Arc, PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tracing::field::{Field, Visit};
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::FmtContext;
use tracing_subscriber::fmt::format::{FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::time::{FormatTime, SystemTime};
use tracing_subscriber::registry::LookupSpan;

/// Form in which log lines are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One JSON object per line, for machines.
    Json,
}

impl LogFormat {
    /// Returns the format's name in the configuration.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

/// Name of this process in its log lines. A worker without a configured name gets one with its address.
static NAME: RwLock<Option<Arc<str>>> = RwLock::new(None);

/// Sets the name that every later line of this process carries, e.g. `prefill-0`.
pub fn set_process_name(name: &str) {
    *NAME.write().unwrap_or_else(PoisonError::into_inner) = Some(name.into());
}

/// Returns the name of this process in its log lines.
#[must_use]
pub fn process_name() -> Arc<str> {
    NAME.read().unwrap_or_else(PoisonError::into_inner).clone().unwrap_or_else(|| "baton".into())
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Line {
    pub(super) format: LogFormat,
}

impl<S, N> FormatEvent<S, N> for Line
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        match self.format {
            LogFormat::Text => text(context, out, event),
            LogFormat::Json => json(out, event),
        }
    }
}

fn text<S, N>(context: &FmtContext<'_, S, N>, mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    let level = *event.metadata().level();
    let (dim, colour, plain) = match out.has_ansi_escapes() {
        true => ("\x1b[2m", colour_of(level), "\x1b[0m"),
        false => ("", "", ""),
    };
    write!(out, "{dim}")?;
    SystemTime.format_time(&mut out)?;
    write!(out, "{plain} {colour}{level:>5}{plain} {} {dim}{}:{plain} ", process_name(), event.metadata().target())?;
    let mut fields = String::new();
    context.format_fields(Writer::new(&mut fields), event)?;
    out.write_str(&on_one_line(&fields))?;
    writeln!(out)
}

fn json(mut out: Writer<'_>, event: &Event<'_>) -> fmt::Result {
    let mut time = String::new();
    SystemTime.format_time(&mut Writer::new(&mut time))?;
    let mut line = Map::new();
    line.insert("time".to_owned(), time.into());
    line.insert("level".to_owned(), event.metadata().level().as_str().into());
    line.insert("process".to_owned(), (*process_name()).into());
    line.insert("target".to_owned(), event.metadata().target().into());
    event.record(&mut Fields(&mut line));
    // JSON allows these characters unescaped in strings.
    for letter in Value::Object(line).to_string().chars() {
        match letter {
            letter if misleads(letter) => write!(out, "\\u{:04x}", u32::from(letter))?,
            letter => out.write_char(letter)?,
        }
    }
    out.write_char('\n')
}

const fn colour_of(level: Level) -> &'static str {
    match level {
        Level::ERROR => "\x1b[31m",
        Level::WARN => "\x1b[33m",
        Level::INFO => "\x1b[32m",
        Level::DEBUG => "\x1b[34m",
        Level::TRACE => "\x1b[35m",
    }
}

/// Escapes fields, which may hold text of strangers: it must neither forge another line nor command a terminal.
fn on_one_line(fields: &str) -> String {
    let mut line = String::with_capacity(fields.len());
    for letter in fields.chars() {
        match letter {
            letter if misleads(letter) => line.extend(letter.escape_default()),
            letter => line.push(letter),
        }
    }
    line
}

/// Returns true for characters that command a terminal, or break or reorder a line in an editor.
fn misleads(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

struct Fields<'a>(&'a mut Map<String, Value>);

impl Fields<'_> {
    fn put(&mut self, field: &Field, value: impl Into<Value>) {
        self.0.insert(field.name().to_owned(), value.into());
    }
}

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.put(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.put(field, value);
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.put(field, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.put(field, value);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// Returns what `say` logs, in the form of this process.
    fn written(format: LogFormat, say: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Kept(Arc<Mutex<Vec<u8>>>);
        impl std::io::Write for Kept {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let kept = Kept::default();
        let writer = kept.clone();
        let logs = tracing_subscriber::fmt().with_ansi(false).event_format(Line { format });
        let logs = logs.with_writer(move || writer.clone()).finish();
        tracing::subscriber::with_default(logs, say);
        String::from_utf8(kept.0.lock().unwrap().clone()).unwrap()
    }

    /// Found by trying: clients' names wrote commands for terminals and turned lines around, also as JSON.
    #[test]
    fn no_letter_misleads_whoever_reads() {
        let name = "a\u{9b}2Jb\u{2028}c\u{202e}d\u{2066}e\u{e9}";
        for format in [LogFormat::Text, LogFormat::Json] {
            let line = written(format, || tracing::info!(name, "met"));
            assert!(!line.trim_end_matches('\n').chars().any(misleads) && line.contains('\u{e9}'), "{line:?}");
        }
        let line = written(LogFormat::Json, || tracing::info!(name, "met"));
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["name"], name);
    }

    #[test]
    fn a_line_says_who_wrote_it_and_stays_one_line() {
        set_process_name("decode-0");
        let forged = "x\n2026-01-01T00:00:00Z  INFO decode-0 forged\x1b[2J";
        let said = written(LogFormat::Text, || tracing::info!(reason = %forged, tokens = 3, "request ended"));
        assert_eq!(said.lines().count(), 1, "{said:?}");
        assert!(said.contains("Z  INFO decode-0 node::telemetry::format::tests: request ended reason=x\\n"), "{said}");
        assert!(said.ends_with("tokens=3\n") && !said.contains('\x1b'), "{said:?}");
        let said = written(LogFormat::Json, || tracing::warn!(reason = %forged, tokens = 3, good = true, "odd"));
        let line: Value = serde_json::from_str(&said).unwrap();
        let said =
            (&line["process"], &line["level"], &line["message"], &line["reason"], &line["tokens"], &line["good"]);
        let expected = ("decode-0", "WARN", "odd", forged, 3, true);
        let expected: [Value; 6] = [
            expected.0.into(),
            expected.1.into(),
            expected.2.into(),
            expected.3.into(),
            expected.4.into(),
            expected.5.into(),
        ];
        assert_eq!([said.0, said.1, said.2, said.3, said.4, said.5], expected.each_ref());
    }
}
