//! A key file: TOML with one `[[key]]` per key; knows no request.

use serde::Deserialize;
use thiserror::Error;

use super::config::{KeyConfig, check_all};
use crate::slo::SloConfig;

/// Most bytes of a key file.
pub(super) const FILE_BYTES_MAX: u64 = 1 << 20;
const HEADER: &str = "[[key]]";

/// Reason why a key file was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum KeyFileError {
    /// The file cannot be read.
    #[error("router.keys.file: {0}")]
    Read(String),
    /// The file is not what it should be.
    #[error("key file {file}, line {line}: {field}{problem}")]
    Entry {
        /// Path of the file.
        file: String,
        /// Number of the line, from 1; that of the entry's beginning if the entry as a whole is wrong.
        line: usize,
        /// Field with a space behind it, or nothing.
        field: String,
        /// Problem of the field.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    #[serde(default)]
    key: Vec<KeyConfig>,
}

/// Reads the keys of the contents of `file`. Errors repeat no value, as a key may stand in the wrong place.
pub(super) fn parse(file: &str, bytes: &[u8], slo: &SloConfig) -> Result<Vec<KeyConfig>, KeyFileError> {
    let wrong = |line: usize, field: &str, problem: String| {
        let field = if field.is_empty() { String::new() } else { format!("{field} ") };
        KeyFileError::Entry { file: file.to_owned(), line, field, problem }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let line = line_at(&bytes[..error.valid_up_to()]);
        wrong(line, "", "is not UTF-8".to_owned())
    })?;
    let at = |error: &toml::de::Error| line_at(&bytes[..error.span().map_or(0, |span| span.start.min(bytes.len()))]);
    let document = toml::Deserializer::parse(text).map_err(|error| wrong(at(&error), "", without_values(&error)))?;
    let keys: KeyFile = serde_path_to_error::deserialize(document).map_err(|error| {
        let field = error.path().to_string();
        wrong(at(error.inner()), field.trim_start_matches('.'), without_values(error.inner()))
    })?;
    check_all(&keys.key, slo).map_err(|(place, field, problem)| wrong(line_of_entry(text, place), field, problem))?;
    Ok(keys.key)
}

/// Returns the parser's message without the values that it quotes.
fn without_values(error: &toml::de::Error) -> String {
    let message = error.message().lines().collect::<Vec<_>>().join(", ");
    match message.split_once("invalid type: ").or_else(|| message.split_once("invalid value: ")) {
        Some((_, rest)) => match rest.rsplit_once("expected ") {
            Some((_, "u64")) => "must be a whole number, 0 or more".to_owned(),
            Some((_, expected)) => format!("must be {expected}"),
            None => "has the wrong type".to_owned(),
        },
        None => message,
    }
}

fn line_at(before: &[u8]) -> usize {
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Returns the line where an entry begins; the last line if the file names its entries in another way.
fn line_of_entry(text: &str, place: usize) -> usize {
    let headers = text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with(HEADER));
    headers.map(|(line, _)| line + 1).nth(place).unwrap_or_else(|| text.lines().count().max(1))
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use node::key::KeyDigest;

    use super::*;

    fn digest(key: &str) -> KeyDigest {
        KeyDigest::of(key.as_bytes()).unwrap()
    }

    #[test]
    fn a_file_has_an_entry_per_key_with_its_limits() {
        let text = format!(
            "# Keys of the team.\n[[key]]\nname = \"ann\"\nsha256 = \"{}\"\n\n[[key]]\nname = \"bot\"\nsha256 = \"{}\"\n\
             models = [\"small\"]\nrequests_per_minute = 60\ntokens_per_minute = 9000\nconcurrency_max = 2\n\
             slo_class = \"batch\"\n",
            digest("1"),
            digest("2")
        );
        let keys = parse("keys.toml", text.as_bytes(), &SloConfig::default()).unwrap();
        assert_eq!(keys[0], KeyConfig::unlimited("ann", digest("1")));
        assert_eq!((keys[1].models.as_slice(), keys[1].slo_class.as_str()), (["small".to_owned()].as_slice(), "batch"));
        let limits = keys[1].limits();
        assert_eq!(
            (limits.requests_per_minute, limits.tokens_per_minute, limits.concurrency_max),
            (Some(60), Some(9_000), Some(2))
        );
        assert_eq!(parse("keys.toml", b"", &SloConfig::default()), Ok(Vec::new()));
    }

    #[test]
    fn a_fault_names_file_line_and_field_and_repeats_no_key() {
        let good = format!("[[key]]\nname = \"a\"\nsha256 = \"{}\"\n", digest("1"));
        let files = [
            "\n[[key]]\nname = \"a\"\nsha256 = \"sk-secret\"\n".to_owned(),
            "[[key]]\nname = \"a\"\nsha256 = 5\n".to_owned(),
            "[[key]]\nname = \"a\"\n".to_owned(),
            format!("{good}requests_per_minute = \"sk-secret\"\n"),
            format!("{good}requests_per_minute = -1\n"),
            format!("{good}limit = 1\n"),
            format!("{good}\n{good}"),
            format!("{good}slo_class = \"gold\"\n"),
            format!("{good}keys = [\n"),
            "[[keys]]\n".to_owned(),
            "key = \"sk-secret\"\n".to_owned(),
            "sk-secret\n".to_owned(),
        ];
        let mut said: Vec<String> = files
            .iter()
            .map(|text| parse("k", text.as_bytes(), &SloConfig::default()).unwrap_err().to_string())
            .collect();
        said.push(parse("k", b"\n\n\xff", &SloConfig::default()).unwrap_err().to_string());
        assert!(said.iter().all(|said| !said.contains("sk-secret")), "{said:?}");
        expect![[r#"
            key file k, line 4: key[0].sha256 is not the SHA-256 of a key, 64 hexadecimal digits (`baton key new` makes a key and prints it)
            key file k, line 3: key[0].sha256 must be a string
            key file k, line 1: key[0] missing field `sha256`
            key file k, line 4: key[0].requests_per_minute must be a whole number, 0 or more
            key file k, line 4: key[0].requests_per_minute must be a whole number, 0 or more
            key file k, line 4: key[0].limit unknown field `limit`, expected one of `name`, `sha256`, `models`, `requests_per_minute`, `tokens_per_minute`, `concurrency_max`, `slo_class`
            key file k, line 5: name is "a", the name of an earlier key
            key file k, line 1: slo_class there is no latency class "gold"; there are interactive, batch
            key file k, line 4: unclosed array, expected `]`
            key file k, line 1: keys unknown field `keys`, expected `key`
            key file k, line 1: key must be a sequence
            key file k, line 1: key with no value, expected `=`
            key file k, line 3: is not UTF-8
        "#]].assert_eq(&(said.join("\n") + "\n"));
    }
}
