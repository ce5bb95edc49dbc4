//! Upper bound on the bytes of text that one token covers: a text longer than all tokens of a context cannot fit.

use sched::TokenId;
use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{Model, ModelWrapper, SplitDelimiterBehavior, Tokenizer};

use vocabulary::Pieces;

/// Most times by which normalisation shortens a text: a mathematical letter of four bytes becomes one of one byte.
const COMPOSED: usize = 4;

/// Returns `None` if the tokenizer may drop parts of a text, so that no bound holds.
pub(super) fn bytes_per_token_max(tokenizer: &Tokenizer, pieces: &Pieces) -> Option<usize> {
    let eats = tokenizer.get_added_tokens_decoder().values().any(|token| token.lstrip || token.rstrip);
    let keeps = tokenizer.get_pre_tokenizer().is_none_or(keeps_all);
    let known = match tokenizer.get_model() {
        ModelWrapper::BPE(model) => knows_all_bytes(model),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) | ModelWrapper::Unigram(_) => false,
    };
    if eats || !keeps || !known {
        return None;
    }
    let shrinks = tokenizer.get_normalizer().map_or(Some(1), shrinks)?;
    let tokens = (0..pieces.len()).filter_map(|id| u32::try_from(id).ok());
    let longest = tokens.map(|id| pieces.bytes(TokenId(id)).len()).max()?;
    Some(longest.max(1) * shrinks)
}

/// Returns how many times shorter a normaliser can make a text; `None` is without bound.
fn shrinks(normalizer: &NormalizerWrapper) -> Option<usize> {
    match normalizer {
        NormalizerWrapper::Sequence(stages) => {
            stages.as_ref().iter().try_fold(1_usize, |all, stage| Some(all.saturating_mul(shrinks(stage)?)))
        }
        NormalizerWrapper::NFC(_)
        | NormalizerWrapper::NFD(_)
        | NormalizerWrapper::NFKC(_)
        | NormalizerWrapper::NFKD(_)
        | NormalizerWrapper::Lowercase(_) => Some(COMPOSED),
        NormalizerWrapper::Prepend(_) | NormalizerWrapper::ByteLevel(_) => Some(1),
        NormalizerWrapper::Replace(replace) if super::cuts::replaces_a_space(normalizer) => {
            (!replace.content.is_empty()).then_some(1)
        }
        _ => None,
    }
}

/// Returns true if every character of a text ends up in one of the pieces.
fn keeps_all(stage: &PreTokenizerWrapper) -> bool {
    match stage {
        PreTokenizerWrapper::Sequence(stages) => stages.as_ref().iter().all(keeps_all),
        PreTokenizerWrapper::ByteLevel(_) | PreTokenizerWrapper::Metaspace(_) | PreTokenizerWrapper::Digits(_) => true,
        PreTokenizerWrapper::Split(split) => split.behavior != SplitDelimiterBehavior::Removed,
        PreTokenizerWrapper::Punctuation(stage) => stage.behavior != SplitDelimiterBehavior::Removed,
        _ => false,
    }
}

/// Returns true if the model has a token for every byte, so that no text is left out or merged as unknown.
fn knows_all_bytes(model: &BPE) -> bool {
    let by_letters = || ByteLevel::alphabet().iter().all(|letter| model.token_to_id(&letter.to_string()).is_some());
    let by_fallback = || (0..=u8::MAX).all(|byte| model.token_to_id(&format!("<0x{byte:02X}>")).is_some());
    by_letters() || (model.byte_fallback && by_fallback())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::text::{Tokenizer as OurTokenizer, samples};

    fn of(json: &Value) -> Option<usize> {
        let tokenizer = OurTokenizer::from_json(json.to_string().as_bytes()).unwrap();
        bytes_per_token_max(tokenizer.inner(), tokenizer.pieces())
    }

    #[test]
    fn the_longest_token_is_the_bound() {
        assert_eq!(of(&samples::byte_level_json()), Some("<|assistant|>".len()));
        assert_eq!(of(&samples::sentencepiece_json()), Some(" world".len()));
        let mut composed = samples::byte_level_json();
        composed["normalizer"] = json!({"type": "NFC"});
        assert_eq!(of(&composed), Some(COMPOSED * "<|assistant|>".len()));
    }

    #[test]
    fn what_may_be_dropped_has_no_bound() {
        let mut dropping = samples::byte_level_json();
        dropping["pre_tokenizer"] = json!({"type": "WhitespaceSplit"});
        assert_eq!(of(&dropping), None);
        let mut eating = samples::byte_level_json();
        eating["added_tokens"][0]["rstrip"] = json!(true);
        assert_eq!(of(&eating), None);
        let mut stripping = samples::byte_level_json();
        stripping["normalizer"] = json!({"type": "Strip", "strip_left": true, "strip_right": true});
        assert_eq!(of(&stripping), None);
    }
}
