//! `baton key`: makes API keys and their digests, and reads those of the command line; knows no request.

use std::io::Read;

use anyhow::{Context, Result};
use node::key::KeyDigest;
use router::KeyConfig;

use crate::terminal::{print, remark};

/// Variable that may hold a key for clients of `baton serve` and `baton router`.
pub const KEY_VARIABLE: &str = "BATON_API_KEY";
/// Variable from which clients of the API take their key.
const CLIENT_KEY_VARIABLE: &str = "OPENAI_API_KEY";
/// Length below which a key can be guessed.
const GUESSABLE_BYTES: usize = 16;
/// Most bytes that are read as a key.
const INPUT_BYTES_MAX: u64 = 4_096;

/// What to do with keys.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum KeyCommand {
    /// A new random key on standard error, and its entry for a key file on standard output.
    New {
        /// Name of the key in logs and metrics.
        #[arg(default_value = "default")]
        name: String,
    },
    /// The SHA-256 of the key on standard input.
    Hash,
}

/// Error: a key that no client could send.
#[derive(Debug, thiserror::Error)]
#[error("{origin}: {problem}")]
pub struct BadKey {
    origin: &'static str,
    problem: node::key::NotAKey,
}

/// Runs the command.
pub fn run(command: &KeyCommand) -> Result<()> {
    match command {
        KeyCommand::New { name } => {
            anyhow::ensure!(!name.is_empty(), "the name is empty, expected who will use the key");
            node::bind::check_name(name).map_err(|problem| anyhow::anyhow!("the name {problem}"))?;
            let random = proto::Secret::draw().map_err(|failure| anyhow::anyhow!("{failure}"))?;
            let key = format!("sk-{random}");
            remark(format_args!("key: {key}\nIt is shown this once; what follows is its entry for the key file."));
            let name = toml::Value::String(name.clone());
            Ok(print(&format!("[[key]]\nname = {name}\nsha256 = \"{}\"\n", digest("the new key", &key)?))?)
        }
        KeyCommand::Hash => {
            let mut key = String::new();
            let read = std::io::stdin().lock().take(INPUT_BYTES_MAX).read_to_string(&mut key);
            read.context("reading a key from standard input")?;
            Ok(print(&format!("{}\n", digest("standard input", key.trim_end())?))?)
        }
    }
}

/// Returns the keys that the command line gives in plain text, or else the environment, as entries of the configuration.
pub fn given(arguments: &[String]) -> Result<Vec<KeyConfig>, BadKey> {
    let variable = std::env::var(KEY_VARIABLE).ok().filter(|key| !key.is_empty() && arguments.is_empty());
    let keys = arguments.iter().map(|key| ("--api-key", key)).chain(variable.iter().map(|key| (KEY_VARIABLE, key)));
    keys.enumerate()
        .map(|(place, (origin, key))| {
            if key.len() < GUESSABLE_BYTES {
                tracing::warn!(origin, bytes = key.len(), "the API key is short enough to be guessed");
            }
            Ok(KeyConfig::unlimited(format!("api-key-{}", place + 1), digest(origin, key)?))
        })
        .collect()
}

/// Returns the key that a client of the command line sends: the given one, or that of the environment.
pub fn key_of_client(given: Option<&str>) -> Option<String> {
    let key = given.map(str::to_owned).or_else(|| std::env::var(CLIENT_KEY_VARIABLE).ok());
    key.filter(|key| !key.is_empty())
}

fn digest(origin: &'static str, key: &str) -> Result<KeyDigest, BadKey> {
    KeyDigest::of(key.as_bytes()).map_err(|problem| BadKey { origin, problem })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_the_command_line_are_only_kept_as_digests() {
        let given = given(&["token-abc123".to_owned(), "another".to_owned()]).unwrap();
        assert_eq!(given[0].name, "api-key-1");
        assert_eq!(given[1].sha256, KeyDigest::of(b"another").unwrap());
        assert!(!format!("{given:?}").contains("another"));
        let error = super::given(&["two words".to_owned()]).unwrap_err().to_string();
        assert_eq!(error, "--api-key: an API key has 1 to 512 visible ASCII characters");
        assert!(super::given(&[String::new()]).is_err());
    }
}
