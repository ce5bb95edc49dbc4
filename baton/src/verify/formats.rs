//! Number formats that `verify` runs, of weights and of stored keys and values; knows no deployment.

use std::fmt;
use std::str::FromStr;

const WEIGHTS: [&str; 3] = ["bf16", "f32", "int8"];
const KEYS_AND_VALUES: [&str; 3] = ["bf16", "f32", "int8"];

/// Formats to run. Every pair counts as its own model: setups are compared within a pair, never across pairs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Formats(Vec<Format>);

/// Pair of formats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Format {
    /// Formats of the model's files and the configuration.
    Configured,
    /// These formats, whatever the configuration says.
    Named {
        /// `dtype` of every engine.
        weights: &'static str,
        /// `kv_dtype` of every engine.
        kv: &'static str,
    },
}

impl Formats {
    /// Returns the formats in the order in which they were named.
    pub fn iter(&self) -> impl Iterator<Item = &Format> {
        self.0.iter()
    }

    fn every_pair() -> Formats {
        let pair = |weights| KEYS_AND_VALUES.map(|kv| Format::Named { weights, kv });
        Formats(WEIGHTS.into_iter().flat_map(pair).collect())
    }
}

impl Format {
    /// Returns the settings that select the format.
    #[must_use]
    pub fn settings(&self) -> Vec<String> {
        match self {
            Format::Configured => Vec::new(),
            Format::Named { weights, kv } => ["prefill", "decode"]
                .into_iter()
                .flat_map(|role| [format!("{role}.engine.dtype={weights}"), format!("{role}.engine.kv_dtype={kv}")])
                .collect(),
        }
    }
}

impl FromStr for Formats {
    type Err = String;

    /// Parses `all`, or a list such as `configured,bf16/int8`.
    fn from_str(text: &str) -> Result<Formats, String> {
        match text {
            "all" => Ok(Formats::every_pair()),
            list => list.split(',').map(format).collect::<Result<_, _>>().map(Formats),
        }
    }
}

fn format(text: &str) -> Result<Format, String> {
    if text == "configured" {
        return Ok(Format::Configured);
    }
    let known = |names: &[&'static str], name: &str| names.iter().find(|known| **known == name).copied();
    let named = text.split_once('/').and_then(|(weights, kv)| {
        Some(Format::Named { weights: known(&WEIGHTS, weights)?, kv: known(&KEYS_AND_VALUES, kv)? })
    });
    named.ok_or_else(|| {
        let (weights, kv) = (WEIGHTS.join("|"), KEYS_AND_VALUES.join("|"));
        format!("{text:?} is not `configured`, `all` or a pair ({weights})/({kv})")
    })
}

impl fmt::Display for Format {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Format::Configured => write!(f, "formats as configured"),
            Format::Named { weights, kv } => write!(f, "weights {weights}, keys and values {kv}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_read_and_become_settings() {
        let formats: Formats = "bf16/int8,configured".parse().unwrap();
        let first = formats.iter().next().unwrap();
        assert_eq!(first.to_string(), "weights bf16, keys and values int8");
        assert_eq!(
            first.settings(),
            [
                "prefill.engine.dtype=bf16",
                "prefill.engine.kv_dtype=int8",
                "decode.engine.dtype=bf16",
                "decode.engine.kv_dtype=int8"
            ]
        );
        assert_eq!("all".parse::<Formats>().unwrap().iter().count(), 9);
        assert_eq!(formats.iter().nth(1).unwrap().settings(), [""; 0]);
    }

    #[test]
    fn unknown_formats_are_named() {
        let error = "bf16/int4".parse::<Formats>().unwrap_err();
        assert!(error.contains("bf16/int4") && error.contains("bf16|f32|int8"), "{error}");
    }
}
