//! One choice's way from tokens to text: detokenise, then watch for stop strings; knows no JSON.

use sched::{FinishReason, TokenId};

use super::{Detokenizer, StopMatcher, StopText};

/// Turns the tokens of one choice into the text a client sees.
#[derive(Debug)]
pub struct ChoiceText {
    detokenizer: Detokenizer,
    stop: StopMatcher,
    /// Tokens of the choice before which stop strings do not count.
    min_tokens: u32,
    tokens: u32,
    decoded: String,
    /// Characters decoded so far, held back or not.
    chars: usize,
}

impl ChoiceText {
    /// Starts a choice whose stop strings count from token `min_tokens` on.
    #[must_use]
    pub fn new(detokenizer: Detokenizer, stop: StopMatcher, min_tokens: u32) -> ChoiceText {
        ChoiceText { detokenizer, stop, min_tokens, tokens: 0, decoded: String::new(), chars: 0 }
    }

    /// Takes the next token, appends to `out` the text that is now certain, and returns why the choice ends, if so.
    ///
    /// A stop token that ended the choice at the worker has no text unless stops are shown. A stop string ends the choice although the worker
    /// would go on; the caller has to tell the worker.
    pub fn push(&mut self, token: TokenId, ended: Option<FinishReason>, out: &mut String) -> Option<FinishReason> {
        self.tokens += 1;
        self.decoded.clear();
        match ended {
            None => self.detokenizer.push(token, &mut self.decoded),
            Some(FinishReason::Stop) if self.stop.stop_text() == StopText::Omit => {
                self.detokenizer.finish(&mut self.decoded);
            }
            Some(FinishReason::Stop | FinishReason::Length) => {
                self.detokenizer.push(token, &mut self.decoded);
                self.detokenizer.finish(&mut self.decoded);
            }
        }
        self.chars += self.decoded.chars().count();
        if self.tokens <= self.min_tokens {
            out.push_str(&self.decoded);
        } else if self.stop.push(&self.decoded, out) {
            return Some(FinishReason::Stop);
        }
        if ended.is_some() {
            self.stop.finish(out);
        }
        ended
    }

    /// Returns the stop string that ended the choice, if one did.
    #[must_use]
    pub fn stop_string(&self) -> Option<&str> {
        self.stop.found()
    }

    /// Offset, in characters, at which the text of `token` would begin if `token` came next.
    #[must_use]
    pub fn offset_of(&self, token: TokenId) -> usize {
        self.chars + usize::from(self.detokenizer.breaks_off(token))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::{AddSpecials, SpecialText, Tokenizer, samples};

    fn choice(tokenizer: &Tokenizer, stops: &[&str], min_tokens: u32) -> ChoiceText {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.to_owned()).collect();
        ChoiceText::new(Detokenizer::new(tokenizer, SpecialText::Skip), StopMatcher::new(&stops), min_tokens)
    }

    fn push_all(
        choice: &mut ChoiceText,
        tokens: &[TokenId],
        last: Option<FinishReason>,
    ) -> (String, Option<FinishReason>) {
        let mut out = String::new();
        for (index, &token) in tokens.iter().enumerate() {
            let ended = if index + 1 == tokens.len() { last } else { None };
            let finish = choice.push(token, ended, &mut out);
            if finish.is_some() {
                return (out, finish);
            }
        }
        (out, None)
    }

    #[test]
    fn a_stop_string_ends_the_choice() {
        let tokenizer = samples::byte_level();
        let tokens = tokenizer.encode("hello world", AddSpecials::No).unwrap();
        let (text, finish) = push_all(&mut choice(&tokenizer, &["o w"], 0), &tokens, Some(FinishReason::Length));
        assert_eq!((text.as_str(), finish), ("hell", Some(FinishReason::Stop)));
    }

    #[test]
    fn stop_strings_do_not_count_before_min_tokens() {
        let tokenizer = samples::byte_level();
        let tokens = tokenizer.encode("abab", AddSpecials::No).unwrap();
        let (text, finish) = push_all(&mut choice(&tokenizer, &["b"], 3), &tokens, Some(FinishReason::Length));
        assert_eq!((text.as_str(), finish), ("aba", Some(FinishReason::Stop)));
    }

    #[test]
    fn the_stop_token_has_no_text_and_held_text_comes_out() {
        let tokenizer = samples::byte_level();
        let tokens = tokenizer.encode("ab", AddSpecials::No).unwrap();
        let (text, finish) = push_all(&mut choice(&tokenizer, &["abc"], 0), &tokens, Some(FinishReason::Stop));
        assert_eq!((text.as_str(), finish), ("a", Some(FinishReason::Stop)));
    }

    #[test]
    fn the_stop_token_is_shown_if_wanted() {
        let tokenizer = samples::byte_level();
        let tokens = tokenizer.encode("ab", AddSpecials::No).unwrap();
        let stop = StopMatcher::new(&[]).with_text(StopText::Include);
        let mut choice = ChoiceText::new(Detokenizer::new(&tokenizer, SpecialText::Skip), stop, 0);
        let (text, finish) = push_all(&mut choice, &tokens, Some(FinishReason::Stop));
        assert_eq!((text.as_str(), finish, choice.stop_string()), ("ab", Some(FinishReason::Stop), None));
    }

    #[test]
    fn every_token_is_found_at_its_offset() {
        let tokenizer = samples::byte_level();
        let snowman = tokenizer.encode("☃", AddSpecials::No).unwrap();
        let (letter, special) = (tokenizer.id("a"), tokenizer.id("<|end|>"));
        let mut choice = choice(&tokenizer, &[], 0);
        let tokens = [letter, snowman[0], snowman[1], letter, snowman[0], special, snowman[1], snowman[2], letter];
        let mut out = String::new();
        let offsets: Vec<usize> = tokens
            .iter()
            .map(|&token| {
                let offset = choice.offset_of(token);
                choice.push(token, None, &mut out);
                offset
            })
            .collect();
        assert_eq!(out, "a\u{fffd}a☃a");
        assert_eq!(offsets, [0, 1, 1, 2, 3, 3, 3, 3, 4]);
    }

    #[test]
    fn an_unfinished_character_at_the_length_limit_shows() {
        let tokenizer = samples::byte_level();
        let tokens = tokenizer.encode("☃", AddSpecials::No).unwrap();
        let (text, finish) = push_all(&mut choice(&tokenizer, &[], 0), &tokens[..2], Some(FinishReason::Length));
        assert_eq!((text.as_str(), finish), ("\u{fffd}", Some(FinishReason::Length)));
    }
}
