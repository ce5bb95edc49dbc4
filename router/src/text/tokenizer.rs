//! Text to token ids with the model's own tokenizer; knows no template and no stream.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model_files::ModelFileError;
use sched::TokenId;
use sched::contained::contained;
use tracing::warn;
use vocabulary::{Pieces, SpecialTokens, read_tokenizer};

use super::control::Guard;
use super::effort::Effort;
use super::encode::{EncodeError, Encoder};
use super::reach::bytes_per_token_max;
use crate::Error;

/// A model's tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    pieces: Arc<Pieces>,
    encoder: Arc<Encoder>,
    bytes_per_token_max: Option<usize>,
    /// True once the library has panicked at a text.
    has_failed: Arc<AtomicBool>,
}

/// Whether the tokenizer adds its framing tokens (usually one that begins the text).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddSpecials {
    /// For plain text.
    Yes,
    /// For the output of a chat template, which spells them out.
    No,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and adds the tokens of the model's other files. The padding token becomes the `pad_token`
    /// where no file names one. Fails when the file cannot be read or this build does not support the tokenizer.
    pub(super) fn from_file(path: &Path, tokens: &mut SpecialTokens) -> Result<Tokenizer, Error> {
        let inner = read_tokenizer(path, tokens)?;
        prepared(path, || Tokenizer::of(inner))
    }

    /// Parses the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When this build does not support the tokenizer.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, Error> {
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Tokenizer::of(inner)
    }

    fn of(mut inner: tokenizers::Tokenizer) -> Result<Tokenizer, Error> {
        // Files may carry padding and truncation from training; a prompt is never cut silently.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let pieces = Arc::new(Pieces::compile(&inner)?);
        let (encoder, bytes_per_token_max) = (Arc::new(Encoder::of(&inner)), bytes_per_token_max(&inner, &pieces));
        Ok(Tokenizer { inner: Arc::new(inner), pieces, encoder, bytes_per_token_max, has_failed: Arc::default() })
    }

    /// Returns the token ids of `text`.
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, specials: AddSpecials) -> Result<Vec<TokenId>, Error> {
        self.encode_within(text, specials, &Effort::unbounded()).map_err(|error| match error {
            EncodeError::Tokenizer(reason) => Error::Tokenizer(reason),
            EncodeError::Stopped(stopped) => Error::Tokenizer(stopped.to_string()),
        })
    }

    /// Returns the token ids of `text` within the bounds of `effort`.
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text, or a bound is reached.
    pub fn encode_within(
        &self,
        text: &str,
        specials: AddSpecials,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, EncodeError> {
        self.encode_guarded(text, None, specials, effort)
    }

    /// Encodes like `encode_within`, with control tokens only where `guard` allows them.
    pub(super) fn encode_guarded(
        &self,
        text: &str,
        guard: Option<Guard<'_>>,
        specials: AddSpecials,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, EncodeError> {
        let encoded = contained(|| self.encoder.encode(&self.inner, text, guard, specials, effort));
        encoded.unwrap_or_else(|panic| {
            if !self.has_failed.swap(true, Ordering::Relaxed) {
                warn!(
                    reason = panic,
                    "the tokenizer library fails at some texts; they are refused, and this is said once"
                );
            }
            Err(EncodeError::Tokenizer("it fails at this text".to_owned()))
        })
    }

    /// Returns the fewest tokens that a text of `text_bytes` bytes can have.
    #[must_use]
    pub fn tokens_min(&self, text_bytes: usize) -> usize {
        self.bytes_per_token_max.map_or(0, |most| text_bytes.div_ceil(most))
    }

    /// Returns the table from tokens to bytes.
    #[must_use]
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Returns the token as the vocabulary spells it.
    #[must_use]
    pub fn token_name(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token.0)
    }

    /// Returns the id of the token that the vocabulary spells `name`.
    #[must_use]
    pub fn token_id(&self, name: &str) -> Option<TokenId> {
        self.inner.token_to_id(name).map(TokenId)
    }

    /// Returns the text of `token` alone; bytes that are not UTF-8 show as U+FFFD.
    #[must_use]
    pub fn token_text(&self, token: TokenId) -> String {
        String::from_utf8_lossy(self.pieces.bytes(token)).into_owned()
    }

    pub(crate) fn inner(&self) -> &tokenizers::Tokenizer {
        &self.inner
    }

    #[cfg(test)]
    pub(crate) fn id(&self, name: &str) -> TokenId {
        self.token_id(name).unwrap_or_else(|| panic!("no token {name:?}"))
    }
}

/// Prepares a tokenizer of the file `path`. The library has read it by now, but may still panic at what it holds, as when
/// the pieces of its vocabulary are taken out.
fn prepared(path: &Path, prepare: impl FnOnce() -> Result<Tokenizer, Error>) -> Result<Tokenizer, Error> {
    let wrong = |problem: String| Error::from(ModelFileError::File { file: path.to_path_buf(), problem });
    match contained(prepare) {
        Ok(prepared) => prepared.map_err(|error| wrong(error.to_string())),
        Err(panic) => Err(wrong(format!("holds something that the tokenizer library fails at: {panic}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// No file is known at which the library panics only then; one would have ended the start of a router.
    #[test]
    fn a_panic_while_pieces_are_compiled_is_a_fault_of_the_file() {
        let refused = prepared(Path::new("x/tokenizer.json"), || panic!("no {}", "piece")).unwrap_err().to_string();
        let expected = "x/tokenizer.json: holds something that the tokenizer library fails at: no piece";
        assert!(refused.ends_with(expected), "{refused}");
    }
}
