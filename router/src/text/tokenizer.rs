//! Text to token ids with the model's own tokenizer; knows no template and no stream.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use model_files::ModelFileError;
use node::contained::contained;
use sched::TokenId;
use tracing::warn;

use super::control::Guard;
use super::effort::Effort;
use super::encode::{EncodeError, Encoder};
use super::pieces::Pieces;
use super::reach::bytes_per_token_max;
use super::special_tokens::SpecialTokens;
use super::tokenizer_file;
use crate::Error;

/// A model's tokenizer. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    pieces: Arc<Pieces>,
    encoder: Arc<Encoder>,
    bytes_per_token_max: Option<usize>,
    /// Whether the library has panicked at a text.
    has_failed: Arc<AtomicBool>,
}

/// Whether the tokenizer adds the tokens that frame a text (usually one that begins it).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddSpecials {
    /// For plain text.
    Yes,
    /// For the output of a chat template, which spells them out.
    No,
}

impl Tokenizer {
    /// Reads `tokenizer.json` and adds the tokens that other files of the model have. A padding's token becomes the
    /// `pad_token` where no file names one.
    ///
    /// # Errors
    /// When the file cannot be read or is not a tokenizer that this build supports.
    pub(super) fn from_file(path: &Path, tokens: &mut SpecialTokens) -> Result<Tokenizer, Error> {
        let loaded = contained(|| Tokenizer::load(path, tokens));
        loaded.unwrap_or_else(|panic| {
            let problem = format!("holds something that the tokenizer library fails at: {panic}");
            Err(ModelFileError::File { file: path.to_path_buf(), problem }.into())
        })
    }

    fn load(path: &Path, tokens: &mut SpecialTokens) -> Result<Tokenizer, Error> {
        let wrong = |problem: String| ModelFileError::File { file: path.to_path_buf(), problem };
        let mut inner = tokenizer_file::read(path)?;
        if let Some(padding) = inner.get_padding() {
            let token = tokenizers::AddedToken::from(padding.pad_token.as_str(), true);
            if tokens.get("pad_token").is_none() {
                tokens.name("pad_token", Some(token));
            }
        }
        tokens.add_to(&mut inner).map_err(wrong)?;
        tokens.say_moved(&inner);
        Tokenizer::of(inner).map_err(|error| wrong(error.to_string()).into())
    }

    /// Parses the contents of a `tokenizer.json`.
    ///
    /// # Errors
    /// When it is not a tokenizer that this build supports.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, Error> {
        let inner = tokenizers::Tokenizer::from_bytes(json).map_err(|error| Error::Tokenizer(error.to_string()))?;
        Tokenizer::of(inner)
    }

    fn of(mut inner: tokenizers::Tokenizer) -> Result<Tokenizer, Error> {
        // Files may carry the padding and truncation of a training script; a prompt is never cut silently.
        inner.with_padding(None);
        inner.with_truncation(None).map_err(|error| Error::Tokenizer(error.to_string()))?;
        let pieces = Arc::new(Pieces::compile(&inner)?);
        let (encoder, bytes_per_token_max) = (Arc::new(Encoder::of(&inner)), bytes_per_token_max(&inner, &pieces));
        Ok(Tokenizer { inner: Arc::new(inner), pieces, encoder, bytes_per_token_max, has_failed: Arc::default() })
    }

    /// Token ids of `text`.
    ///
    /// # Errors
    /// When the tokenizer has no token for a part of the text.
    pub fn encode(&self, text: &str, specials: AddSpecials) -> Result<Vec<TokenId>, Error> {
        self.encode_within(text, specials, &Effort::unbounded()).map_err(|error| match error {
            EncodeError::Tokenizer(reason) => Error::Tokenizer(reason),
            EncodeError::Stopped(stopped) => Error::Tokenizer(stopped.to_string()),
        })
    }

    /// Token ids of `text`, worked out within the bounds of `effort`.
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

    /// As `encode_within`, with control tokens only where `guard` allows them.
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

    /// Fewest tokens that a text of so many bytes can have.
    #[must_use]
    pub fn tokens_min(&self, text_bytes: usize) -> usize {
        self.bytes_per_token_max.map_or(0, |most| text_bytes.div_ceil(most))
    }

    /// The bytes behind tokens.
    #[must_use]
    pub fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// The token as the vocabulary spells it.
    #[must_use]
    pub fn token_name(&self, token: TokenId) -> Option<String> {
        self.inner.id_to_token(token.0)
    }

    /// The id of a token that the vocabulary spells `name`.
    #[must_use]
    pub fn token_id(&self, name: &str) -> Option<TokenId> {
        self.inner.token_to_id(name).map(TokenId)
    }

    /// The text of `token` alone; bytes that are not UTF-8 show as U+FFFD.
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
