//! Tokens to text, one token at a time; knows no stop string and no message format.

use std::sync::Arc;

use sched::TokenId;

use super::Tokenizer;
use vocabulary::Lead;

/// Turns a sequence of tokens into text, token by token.
///
/// Emitted text never changes: it is always a prefix of the text of the whole sequence. A character appears with its
/// last byte; bytes that can no longer become a character appear as U+FFFD (one per maximal invalid part, like
/// `String::from_utf8_lossy`). The cost per token is linear in its bytes.
#[derive(Debug, Clone)]
pub struct Detokenizer {
    tokenizer: Tokenizer,
    special_text: SpecialText,
    /// Control tokens that show although the others do not.
    shown: Arc<[TokenId]>,
    /// Bytes of an incomplete character, at most three.
    pending: Vec<u8>,
    lead: LeadState,
}

/// Treatment of control tokens in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SpecialText {
    /// Control tokens have no text.
    Skip,
    /// Control tokens show as they are spelled.
    Show,
}

/// Work left to do at the start of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LeadState {
    /// Nothing is left.
    Past,
    /// Up to `left` leading `content` characters are still to be removed.
    Strip { content: char, left: usize },
    /// The next token is the first one and loses its word marks.
    FirstToken,
}

/// Returns the offset, in characters, at which the text of each token of a text begins.
#[must_use]
pub fn offsets(tokenizer: &Tokenizer, special_text: SpecialText, tokens: &[TokenId]) -> Vec<usize> {
    let mut detokenizer = Detokenizer::new(tokenizer, special_text);
    let (mut chars, mut piece) = (0, String::new());
    let mut offset = |token: &TokenId| {
        let offset = chars + usize::from(detokenizer.breaks_off(*token));
        piece.clear();
        detokenizer.push(*token, &mut piece);
        chars += piece.chars().count();
        offset
    };
    tokens.iter().map(&mut offset).collect()
}

impl Detokenizer {
    /// Starts a text.
    #[must_use]
    pub fn new(tokenizer: &Tokenizer, special_text: SpecialText) -> Detokenizer {
        let lead = match tokenizer.pieces().lead() {
            Lead::Keep => LeadState::Past,
            Lead::Strip { content, count } => LeadState::Strip { content, left: count },
            Lead::DropMarks => LeadState::FirstToken,
        };
        Detokenizer { tokenizer: tokenizer.clone(), special_text, shown: Arc::default(), pending: Vec::new(), lead }
    }

    /// Shows these control tokens although the others do not show.
    #[must_use]
    pub fn showing(self, shown: Arc<[TokenId]>) -> Detokenizer {
        Detokenizer { shown, ..self }
    }

    fn hides(&self, token: TokenId) -> bool {
        self.special_text == SpecialText::Skip
            && self.tokenizer.pieces().is_special(token)
            && !self.shown.contains(&token)
    }

    /// Continues `prompt`: a leading space belongs to the answer, which may complete the prompt's last character.
    #[must_use]
    pub fn after(tokenizer: &Tokenizer, special_text: SpecialText, prompt: &[TokenId]) -> Detokenizer {
        /// Tokens that cover the three bytes which an unfinished character can have.
        const TAIL_TOKENS: usize = 3;
        let mut detokenizer = Detokenizer::new(tokenizer, special_text);
        let pieces = tokenizer.pieces();
        let shows = |token: &TokenId| special_text == SpecialText::Show || !pieces.is_special(*token);
        let has_bytes = |token: &&TokenId| shows(token) && !pieces.bytes(**token).is_empty();
        let mut tail: Vec<TokenId> = prompt.iter().rev().filter(has_bytes).take(TAIL_TOKENS).copied().collect();
        tail.reverse();
        if !tail.is_empty() {
            detokenizer.lead = LeadState::Past;
        }
        let _seen = detokenizer.push_all(&tail);
        detokenizer
    }

    /// Returns true if `token`, coming next, would break off an unfinished character, so that U+FFFD precedes its text.
    #[must_use]
    pub fn breaks_off(&self, token: TokenId) -> bool {
        let pieces = self.tokenizer.pieces();
        let hidden = self.hides(token);
        let Some(&first) = pieces.bytes(token).first() else { return false };
        if hidden || self.pending.is_empty() {
            return false;
        }
        let joined = [self.pending.as_slice(), &[first]].concat();
        // An error without a length is the start of a character that can still be completed.
        std::str::from_utf8(&joined).is_err_and(|error| error.error_len().is_some())
    }

    /// Takes the next token and appends to `out` the text that is now certain.
    pub fn push(&mut self, token: TokenId, out: &mut String) {
        if self.hides(token) {
            return;
        }
        let pieces = self.tokenizer.pieces();
        if self.lead == LeadState::FirstToken {
            self.lead = LeadState::Past;
            self.pending.extend(pieces.bytes_without_marks(token, self.tokenizer.inner()));
        } else {
            self.pending.extend_from_slice(pieces.bytes(token));
        }
        let start = out.len();
        self.drain(out);
        self.strip_lead(start, out);
    }

    /// Ends the text: the bytes of an unfinished character become U+FFFD.
    pub fn finish(&mut self, out: &mut String) {
        if !self.pending.is_empty() {
            let start = out.len();
            out.push_str(&String::from_utf8_lossy(&self.pending));
            self.pending.clear();
            self.strip_lead(start, out);
        }
    }

    /// Returns the text of a complete sequence.
    #[must_use]
    pub fn decode(tokenizer: &Tokenizer, special_text: SpecialText, tokens: &[TokenId]) -> String {
        let mut detokenizer = Detokenizer::new(tokenizer, special_text);
        let mut out = detokenizer.push_all(tokens);
        detokenizer.finish(&mut out);
        out
    }

    /// Returns the text of a sequence that goes on; [`Detokenizer::after`] yields an unfinished end with what follows.
    #[must_use]
    pub fn decode_beginning(tokenizer: &Tokenizer, special_text: SpecialText, tokens: &[TokenId]) -> String {
        Detokenizer::new(tokenizer, special_text).push_all(tokens)
    }

    fn push_all(&mut self, tokens: &[TokenId]) -> String {
        let mut out = String::new();
        for &token in tokens {
            self.push(token, &mut out);
        }
        out
    }

    /// Moves to `out` every complete character, and U+FFFD for every part that can no longer become one.
    fn drain(&mut self, out: &mut String) {
        let mut kept = 0;
        let mut chunks = self.pending.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            out.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if invalid.is_empty() {
                continue;
            }
            // At the very end, `error_len` is `None` for the start of a character whose end may still come.
            let unfinished = std::str::from_utf8(invalid).is_err_and(|error| error.error_len().is_none());
            if unfinished && chunks.peek().is_none() {
                kept = invalid.len();
            } else {
                out.push(char::REPLACEMENT_CHARACTER);
            }
        }
        let done = self.pending.len() - kept;
        self.pending.drain(..done);
    }

    fn strip_lead(&mut self, start: usize, out: &mut String) {
        while let LeadState::Strip { content, left } = self.lead {
            let Some(first) = out[start..].chars().next() else { return };
            if left == 0 || first != content {
                self.lead = LeadState::Past;
                return;
            }
            out.replace_range(start..start + first.len_utf8(), "");
            self.lead = LeadState::Strip { content, left: left - 1 };
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::{AddSpecials, samples};

    fn pushes(tokenizer: &Tokenizer, tokens: &[TokenId]) -> Vec<String> {
        let mut detokenizer = Detokenizer::new(tokenizer, SpecialText::Skip);
        let mut texts: Vec<String> = tokens
            .iter()
            .map(|&token| {
                let mut out = String::new();
                detokenizer.push(token, &mut out);
                out
            })
            .collect();
        let mut rest = String::new();
        detokenizer.finish(&mut rest);
        texts.push(rest);
        texts
    }

    #[test]
    fn single_control_tokens_show_on_request() {
        let tokenizer = samples::byte_level();
        let (letter, user, end) = (tokenizer.id("a"), tokenizer.id("<|user|>"), tokenizer.id("<|end|>"));
        let mut detokenizer = Detokenizer::new(&tokenizer, SpecialText::Skip).showing([user].into());
        assert_eq!(detokenizer.push_all(&[letter, user, end, letter]), "a<|user|>a");
    }

    #[test]
    fn a_split_character_appears_once_and_whole() {
        let tokenizer = samples::byte_level();
        let snowman = tokenizer.encode("a☃", AddSpecials::No).unwrap();
        assert_eq!(snowman.len(), 4, "the sample has no merge for it");
        assert_eq!(pushes(&tokenizer, &snowman), ["a", "", "", "☃", ""]);
        assert_eq!(pushes(&tokenizer, &snowman[..3]), ["a", "", "", "\u{fffd}"]);
    }

    #[test]
    fn the_leading_space_of_sentencepiece_goes_only_at_the_start() {
        let tokenizer = samples::sentencepiece();
        let world = tokenizer.id("▁world");
        assert_eq!(pushes(&tokenizer, &[world, world]), ["world", " world", ""]);

        let mut out = String::new();
        Detokenizer::after(&tokenizer, SpecialText::Skip, &[world]).push(world, &mut out);
        assert_eq!(out, " world");

        out.clear();
        let bos = tokenizer.id("<s>");
        Detokenizer::after(&tokenizer, SpecialText::Skip, &[bos]).push(world, &mut out);
        assert_eq!(out, "world");
    }

    #[test]
    fn metaspace_drops_marks_in_the_first_token_only() {
        let tokenizer = samples::metaspace();
        let world = tokenizer.id("▁world");
        assert_eq!(pushes(&tokenizer, &[world, world]), ["world", " world", ""]);
    }

    #[test]
    fn an_answer_may_complete_the_last_character_of_the_prompt() {
        let tokenizer = samples::byte_level();
        let snowman = tokenizer.encode("☃", AddSpecials::No).unwrap();
        let mut detokenizer = Detokenizer::after(&tokenizer, SpecialText::Skip, &snowman[..2]);
        let mut out = String::new();
        detokenizer.push(snowman[2], &mut out);
        assert_eq!(out, "☃");
    }

    #[test]
    fn what_the_prompt_leaves_unfinished_is_shown_once() {
        let tokenizer = samples::byte_level();
        let snowman = tokenizer.encode("a☃", AddSpecials::No).unwrap();
        let letter = tokenizer.id("a");
        let (skip, begun) = (SpecialText::Skip, &snowman[..3]);
        for next in [snowman[3], letter] {
            let mut text = Detokenizer::decode_beginning(&tokenizer, skip, begun);
            assert_eq!(text, "a");
            Detokenizer::after(&tokenizer, skip, begun).push(next, &mut text);
            assert_eq!(text, Detokenizer::decode(&tokenizer, skip, &[begun, &[next]].concat()));
        }
    }

    #[test]
    fn a_token_without_bytes_hides_no_unfinished_character() {
        let tokenizer = samples::byte_level();
        let snowman = tokenizer.encode("☃", AddSpecials::No).unwrap();
        let nothing = TokenId(100_000);
        let prompt = [snowman[0], snowman[1], nothing, nothing, nothing];
        let mut out = String::new();
        Detokenizer::after(&tokenizer, SpecialText::Skip, &prompt).push(snowman[2], &mut out);
        assert_eq!(out, "☃");
    }

    #[test]
    fn special_tokens_show_on_request() {
        let tokenizer = samples::byte_level();
        let tokens = [tokenizer.id("<|end|>"), tokenizer.id("a")];
        assert_eq!(Detokenizer::decode(&tokenizer, SpecialText::Skip, &tokens), "a");
        assert_eq!(Detokenizer::decode(&tokenizer, SpecialText::Show, &tokens), "<|end|>a");
    }

    /// Compares with batch decoding of the tokenizers crate.
    fn check_against_batch(tokenizer: &Tokenizer, tokens: &[TokenId]) {
        let ids: Vec<u32> = tokens.iter().map(|token| token.0).collect();
        let whole = tokenizer.inner().decode(&ids, true).unwrap();
        let mut given = String::new();
        for text in pushes(tokenizer, tokens) {
            given.push_str(&text);
            assert!(whole.starts_with(&given), "{given:?} is not a prefix of {whole:?}");
        }
        assert_eq!(given, whole);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn byte_level_equals_batch_decoding_for_any_tokens(ids in prop::collection::vec(0u32..280, 0..60)) {
            let tokenizer = samples::byte_level();
            check_against_batch(&tokenizer, &ids.into_iter().map(TokenId).collect::<Vec<_>>());
        }

        #[test]
        fn byte_level_equals_batch_decoding_for_any_text(text in any::<String>()) {
            let tokenizer = samples::byte_level();
            let tokens = tokenizer.encode(&text, AddSpecials::No).unwrap();
            check_against_batch(&tokenizer, &tokens);
        }

        // Runs of byte tokens that are not UTF-8 are left out: batch decoding takes complete characters back when a
        // later byte of the run is wrong, which no stream can do.
        #[test]
        fn sentencepiece_equals_batch_decoding_for_any_text(text in "[ a-zé☃🦀\n]{0,40}") {
            let tokenizer = samples::sentencepiece();
            let tokens = tokenizer.encode(&text, AddSpecials::No).unwrap();
            check_against_batch(&tokenizer, &tokens);
        }

        #[test]
        fn sentencepiece_gives_out_all_bytes_for_any_tokens(ids in prop::collection::vec(0u32..290, 0..60)) {
            let tokenizer = samples::sentencepiece();
            let tokens: Vec<TokenId> = ids.into_iter().map(TokenId).collect();
            let pieces = tokenizer.pieces();
            let bytes: Vec<u8> = tokens
                .iter()
                .filter(|token| !pieces.is_special(**token))
                .flat_map(|token| pieces.bytes(*token).to_vec())
                .collect();
            let whole = String::from_utf8_lossy(&bytes).into_owned();
            let whole = whole.strip_prefix(' ').unwrap_or(&whole);
            prop_assert_eq!(pushes(&tokenizer, &tokens).concat(), whole);
        }
    }
}
