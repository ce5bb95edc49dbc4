//! Reads a configuration: one TOML file, then `a.b=c` overrides, into one struct; knows no key of it.
//!
//! Every error names the source of the value and its key. Structs deny unknown fields, so a misspelt key is an error.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use thiserror::Error;
use toml::{Table, Value};

const FILE_BYTES_MAX: u64 = 1 << 20;

/// Reason why a configuration was not accepted.
#[derive(Debug, Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// The file is too large to be a configuration.
    #[error("configuration file {} has more than {FILE_BYTES_MAX} bytes", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not TOML.
    #[error("configuration file {} is not TOML", path.display())]
    Syntax {
        /// The file.
        path: PathBuf,
        /// Position and reason.
        source: Box<toml::de::Error>,
    },
    /// An override is not of the form `a.b=c`.
    #[error("--set {text:?} is not of the form section.key=value")]
    Override {
        /// The override.
        text: String,
    },
    /// An override sets a whole section, which may or may not override what was set before it.
    #[error("--set {text:?} sets a whole section: set its keys one by one, or all of them in a file")]
    WholeSection {
        /// The override.
        text: String,
    },
    /// An override has a number that no key can have.
    #[error("--set {text:?}: the number does not fit into 64 bits")]
    Number {
        /// The override.
        text: String,
    },
    /// An override names a key below a value that is no section.
    #[error("--set {text:?}: {key} is a value, not a section")]
    NotASection {
        /// The override.
        text: String,
        /// Key that is no section.
        key: String,
    },
    /// A key is unknown, or its value has the wrong type.
    #[error("{origin}, key {key}: {problem}")]
    Key {
        /// File or override from which the value came.
        origin: String,
        /// Key with its sections.
        key: String,
        /// Problem of the value.
        problem: String,
    },
}

/// Impossible value of the right type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Key with its sections.
    pub key: String,
    /// Problem of the value.
    pub problem: String,
}

impl Fault {
    /// Makes the fault of `key`.
    pub fn of(key: impl Into<String>, problem: impl Into<String>) -> Fault {
        Fault { key: key.into(), problem: problem.into() }
    }
}

/// Largest value of a key in milliseconds: 30 days.
pub const MS_MAX: u64 = 30 * 24 * 3600 * 1000;

/// Loads like [`load`], completes the table, and checks the values before their use. `defaults` shows which keys are
/// sections, as serde would also fill a struct from a list, by position.
///
/// # Errors
/// As [`load`], and the first fault that `complete` or `check` finds.
pub fn load_checked<T: DeserializeOwned>(
    file: Option<&Path>,
    overrides: &[String],
    defaults: &Table,
    complete: impl FnOnce(&mut Table) -> Result<(), Fault>,
    check: impl FnOnce(&T) -> Result<(), Fault>,
) -> Result<T, ConfigError> {
    let fault = |Fault { key, problem }| {
        // A setting below a value made a section of it.
        let is_related = |changed: &str| is_about(changed, &key) || is_about(&key, changed);
        let of_key = |text: &&String| parts_of(text).is_some_and(|(changed, _)| is_related(&changed.join(".")));
        let origin = origin(overrides.iter().rfind(of_key).map(String::as_str), file);
        ConfigError::Key { origin, key, problem }
    };
    let (mut table, overridden) = gather(file, overrides)?;
    check_sections(&table, defaults).map_err(fault)?;
    complete(&mut table).map_err(fault)?;
    let loaded = fill(table, &overridden, file)?;
    check(&loaded).map_err(fault)?;
    Ok(loaded)
}

/// Reads a section; an error names the first key that is unknown or has a value of the wrong type.
pub fn section<T: DeserializeOwned>(name: &str, section: &Table) -> Result<T, Fault> {
    serde_path_to_error::deserialize(Value::Table(section.clone())).map_err(|error| {
        let key = format!("{name}.{}", error.path());
        Fault::of(key, in_words(error.inner().message()))
    })
}

/// Returns true if changing `changed` changes `key`: it is the key, or a section or list that contains it.
fn is_about(changed: &str, key: &str) -> bool {
    key.strip_prefix(changed).is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

fn origin(overridden: Option<&str>, file: Option<&Path>) -> String {
    match (overridden, file) {
        (Some(text), _) => format!("--set {text:?}"),
        (None, Some(path)) => format!("configuration file {}", path.display()),
        (None, None) => "configuration".to_owned(),
    }
}

/// Reads `file`, if given, applies the overrides in order and fills the struct.
///
/// The value of an override is TOML (`8`, `true`, `"text"`, `[1, 2]`); a value that is not TOML is text.
///
/// # Errors
/// When file, overrides and struct do not fit together; see [`ConfigError`].
pub fn load<T: DeserializeOwned>(file: Option<&Path>, overrides: &[String]) -> Result<T, ConfigError> {
    let (table, overridden) = gather(file, overrides)?;
    fill(table, &overridden, file)
}

/// Returns the table of file and overrides, and the keys of the overrides.
fn gather(file: Option<&Path>, overrides: &[String]) -> Result<(Table, Vec<(String, String)>), ConfigError> {
    let mut table = match file {
        Some(path) => read(path)?,
        None => Table::new(),
    };
    let mut overridden = Vec::new();
    for text in overrides {
        overridden.push(apply(&mut table, text)?);
    }
    Ok((table, overridden))
}

fn fill<T: DeserializeOwned>(
    table: Table,
    overridden: &[(String, String)],
    file: Option<&Path>,
) -> Result<T, ConfigError> {
    serde_path_to_error::deserialize(Value::Table(table)).map_err(|error| {
        let key = error.path().to_string();
        let from_override = overridden.iter().rfind(|(overridden, _)| is_about(overridden, &key));
        let origin = origin(from_override.map(|(_, text)| text.as_str()), file);
        ConfigError::Key { origin, key, problem: in_words(error.inner().message()) }
    })
}

/// Describes a wrong type in the words of a configuration instead of Rust's.
fn in_words(problem: &str) -> String {
    let Some((found, expected)) = problem.rsplit_once("expected ") else { return problem.to_owned() };
    let expected = match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" | "i8" | "i16" | "i32" | "i64" | "isize" => {
            "a whole number in its range"
        }
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list",
        "a map" => "a section",
        of_struct if of_struct.starts_with("struct ") => "a section",
        other => other,
    };
    format!("{found}expected {expected}")
}

fn read(path: &Path) -> Result<Table, ConfigError> {
    let failed = |source| ConfigError::Read { path: path.to_owned(), source };
    // The file's length is not used, as a pipe or a device has none.
    let mut text = String::new();
    let file = File::open(path).map_err(failed)?;
    file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text).map_err(failed)?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    text.parse().map_err(|source| ConfigError::Syntax { path: path.to_owned(), source: Box::new(source) })
}

/// Splits an override into sections, key and value; `None` if it is not of this form.
#[must_use]
pub fn parts_of(text: &str) -> Option<(Vec<&str>, &str)> {
    let (key, value) = text.split_once('=')?;
    let parts: Vec<&str> = key.trim().split('.').map(|part| part.trim().trim_matches('"')).collect();
    (!parts.iter().any(|part| part.is_empty())).then(|| (parts, value.trim()))
}

/// Checks that sections, entries of lists of sections, and nothing else are tables. What is wrong in a shared section may
/// be wrong in copies of it, too: the shortest key is where it was written.
fn check_sections(found: &Table, defaults: &Table) -> Result<(), Fault> {
    let mut wrong = Vec::new();
    wrong_sections(found, defaults, "", &mut wrong);
    wrong.into_iter().min_by_key(|fault| fault.key.len()).map_or(Ok(()), Err)
}

fn wrong_sections(found: &Table, defaults: &Table, path: &str, wrong: &mut Vec<Fault>) {
    for (key, value) in found {
        let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
        match (defaults.get(key), value) {
            (Some(Value::Table(defaults)), Value::Table(found)) => wrong_sections(found, defaults, &path, wrong),
            (Some(Value::Table(_)), Value::Array(_)) => wrong.push(Fault::of(path, "is a list, expected a section")),
            (Some(Value::Array(_)), Value::Table(_)) => wrong.push(Fault::of(path, "is a section, expected a list")),
            (Some(_), Value::Table(_)) => wrong.push(Fault::of(path, "is a section, expected a value")),
            (Some(Value::Array(entries)), Value::Array(found)) if matches!(entries.first(), Some(Value::Table(_))) => {
                let not_a_table = found.iter().position(|entry| !matches!(entry, Value::Table(_)));
                wrong.extend(
                    not_a_table.map(|index| Fault::of(format!("{path}[{index}]"), "is a value, expected a section")),
                );
            }
            _ => {}
        }
    }
}

/// Sets one value; returns its key and the override as written.
fn apply(table: &mut Table, text: &str) -> Result<(String, String), ConfigError> {
    let wrong = || ConfigError::Override { text: text.to_owned() };
    let (parts, value) = parts_of(text).ok_or_else(wrong)?;
    let (last, sections) = parts.split_last().ok_or_else(wrong)?;
    let mut here = table;
    for section in sections {
        let entry = here.entry(*section).or_insert_with(|| Value::Table(Table::new()));
        let Value::Table(inner) = entry else {
            return Err(ConfigError::NotASection { text: text.to_owned(), key: (*section).to_owned() });
        };
        here = inner;
    }
    let value = match value_of(value) {
        Value::Table(_) => return Err(ConfigError::WholeSection { text: text.to_owned() }),
        Value::String(_) if is_too_long_a_number(value) => {
            return Err(ConfigError::Number { text: text.to_owned() });
        }
        value => value,
    };
    here.insert((*last).to_owned(), value);
    Ok((parts.join("."), text.to_owned()))
}

/// Returns true for an integer that TOML does not know as one, so that it would count as text.
fn is_too_long_a_number(text: &str) -> bool {
    let digits = text.strip_prefix(['-', '+']).unwrap_or(text);
    digits.len() > 18 && digits.bytes().all(|digit| digit.is_ascii_digit()) && text.parse::<i64>().is_err()
}

fn value_of(text: &str) -> Value {
    let parsed: Option<Table> = format!("value = {text}").parse().ok();
    let alone = parsed.filter(|table| table.len() == 1).and_then(|mut table| table.remove("value"));
    alone.unwrap_or_else(|| Value::String(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use serde::Deserialize;

    use super::*;
    use crate::chain::chain;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Config {
        listen: String,
        engine: Engine,
    }

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Engine {
        blocks: u32,
        cores: Vec<u32>,
        name: String,
    }

    fn written(text: &str) -> PathBuf {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("baton-config-{}-{}.toml", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn loaded(text: &str, overrides: &[&str]) -> Result<Config, String> {
        let path = written(text);
        let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
        let loaded = load(Some(&path), &overrides).map_err(|error| chain(&error));
        std::fs::remove_file(&path).unwrap();
        loaded.map_err(|error| error.replace(&path.display().to_string(), "FILE"))
    }

    #[test]
    fn overrides_win_over_the_file_and_the_last_one_over_all() {
        let overrides = ["engine.blocks=7", "listen=127.0.0.1:80", "engine.cores=[1, 2]", "engine.blocks = 8"];
        let config = loaded("listen = 'a'\n[engine]\nblocks = 1\nname = 'x'", &overrides).unwrap();
        let engine = Engine { blocks: 8, cores: vec![1, 2], name: "x".into() };
        assert_eq!(config, Config { listen: "127.0.0.1:80".into(), engine });
    }

    #[test]
    fn nothing_at_all_is_the_default() {
        assert_eq!(load::<Config>(None, &[]).unwrap(), Config::default());
    }

    #[test]
    fn an_unknown_key_is_named_with_its_file() {
        let said = loaded("[engine]\nblokcs = 1", &[]).unwrap_err();
        assert!(said.starts_with("configuration file FILE, key engine.blokcs: unknown field `blokcs`"), "{said}");
    }

    #[test]
    fn a_wrong_type_is_named_with_its_key() {
        let said = loaded("[engine]\nblocks = 'many'", &[]).unwrap_err();
        let expected = "invalid type: string \"many\", expected a whole number in its range";
        assert_eq!(said, format!("configuration file FILE, key engine.blocks: {expected}"));
        for (set, expected) in [
            ("engine=1", "invalid type: integer `1`, expected a section"),
            ("engine.blocks=-1", "invalid value: integer `-1`, expected a whole number in its range"),
            ("engine.blocks=4294967296", "invalid value: integer `4294967296`, expected a whole number in its range"),
            ("engine.cores=1", "invalid type: integer `1`, expected a list"),
            ("listen=[1]", "invalid type: sequence, expected a string"),
        ] {
            let said = loaded("", &[set]).unwrap_err();
            assert!(said.ends_with(expected), "{set}: {said}");
        }
        let said = loaded("", &["engine.blocks=many"]).unwrap_err();
        assert!(said.starts_with("--set \"engine.blocks=many\", key engine.blocks: invalid type"), "{said}");
    }

    #[test]
    fn an_override_that_makes_no_sense_is_quoted() {
        assert_eq!(loaded("", &["engine"]).unwrap_err(), "--set \"engine\" is not of the form section.key=value");
        assert!(loaded("", &["engine..blocks=1"]).is_err());
        let said = loaded("listen = 'a'", &["listen.port=1"]).unwrap_err();
        assert_eq!(said, "--set \"listen.port=1\": listen is a value, not a section");
        let said = loaded("", &["engine={blocks=1}"]).unwrap_err();
        assert!(said.starts_with("--set \"engine={blocks=1}\" sets a whole section: "), "{said}");
        let said = loaded("", &["engine.blocks=99999999999999999999"]).unwrap_err();
        assert_eq!(said, "--set \"engine.blocks=99999999999999999999\": the number does not fit into 64 bits");
        let config = loaded("", &["engine.name=\"99999999999999999999\""]).unwrap();
        assert_eq!(config.engine.name, "99999999999999999999", "text in quotes is text");
    }

    #[test]
    fn a_value_that_cannot_be_is_named_with_where_it_came_from() {
        let path = written("[engine]\nblocks = 0");
        let check = |config: &Config| match config.engine.blocks {
            0 => Err(Fault::of("engine.blocks", "must be above 0")),
            _ => Ok(()),
        };
        let said = |overrides: &[&str]| {
            let overrides: Vec<String> = overrides.iter().map(|text| (*text).to_owned()).collect();
            load_checked(Some(&path), &overrides, &Table::new(), |_| Ok(()), check).map_err(|error| error.to_string())
        };
        let in_file = format!("configuration file {}, key engine.blocks: must be above 0", path.display());
        assert_eq!(said(&[]), Err(in_file.clone()));
        assert_eq!(said(&["listen=x"]), Err(in_file));
        let by_override = "--set \"engine.blocks=0\", key engine.blocks: must be above 0".to_owned();
        assert_eq!(said(&["engine.blocks=1", "engine.blocks=0"]), Err(by_override));
        assert!(said(&["engine.blocks=1"]).is_ok());
        std::fs::remove_file(&path).unwrap();
    }

    #[test]
    fn a_file_that_is_missing_or_not_toml_is_named() {
        let missing = chain(&load::<Config>(Some(Path::new("/nowhere/baton.toml")), &[]).unwrap_err());
        assert!(missing.starts_with("cannot read configuration file /nowhere/baton.toml: "), "{missing}");
        assert_eq!(missing.matches("No such file").count(), 1, "{missing}");
        let said = loaded("listen = ", &[]).unwrap_err();
        assert!(said.starts_with("configuration file FILE is not TOML: TOML parse error at line 1"), "{said}");
        assert_eq!(said.matches("TOML parse error").count(), 1, "{said}");
    }

    #[test]
    fn text_with_newlines_cannot_smuggle_keys() {
        let config = loaded("", &["listen=1\nx=2"]).unwrap();
        assert_eq!(config.listen, "1\nx=2");
    }
}
