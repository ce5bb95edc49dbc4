//! Text to ids in bounded steps: runs the tokenizer's own stages and checks between them whether to go on.
//!
//! The ids are those of the tokenizer's own `encode`. A large text is cut where that does not change the ids, so that
//! memory is that of one part; a slow pattern is stopped between two matches.

use std::error::Error as StdError;

use sched::TokenId;
use thiserror::Error;
use tokenizers::pattern::{Invert, Pattern};
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::utils::SysRegex;
use tokenizers::{
    Model, OffsetReferential, OffsetType, Offsets, PreTokenizedString, PreTokenizer, Result as StageResult, Tokenizer,
};

use super::AddSpecials;
use super::control::{Cut, Guard};
use super::cuts::Cuts;
use super::effort::{Effort, Stopped};

/// Bytes after which a text is cut at the next possible place.
const PART_BYTES: usize = 64 << 10;
/// Text with which framing tokens are found.
const PROBE: &str = "a";

/// Reason why a text has no ids.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EncodeError {
    /// The tokenizer has no token for a part of the text.
    #[error("tokenizer: {0}")]
    Tokenizer(String),
    /// The work was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

#[derive(Debug)]
pub(super) struct Encoder {
    cuts: Cuts,
    part_bytes: usize,
    /// Tokens before and after a plain text; `None` if they cannot be told from the text's own.
    frame: Option<(Vec<TokenId>, Vec<TokenId>)>,
}

impl Encoder {
    pub(super) fn of(tokenizer: &Tokenizer) -> Encoder {
        let frame = frame_of(tokenizer);
        Encoder { cuts: Cuts::of(tokenizer), part_bytes: PART_BYTES, frame }
    }

    /// Returns the ids of `text`; fails when a part of it has no token, or a bound of `effort` is reached.
    pub(super) fn encode(
        &self,
        tokenizer: &Tokenizer,
        text: &str,
        guard: Option<Guard<'_>>,
        specials: AddSpecials,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, EncodeError> {
        effort.look()?;
        // Without client text to guard, the tokenizer finds its added tokens itself.
        let guard = guard.filter(|guard| guard.may_be_spelled(tokenizer, text));
        let (before, after) = match (specials, &self.frame) {
            (AddSpecials::No, _) => (&[][..], &[][..]),
            (AddSpecials::Yes, Some((before, after))) => (before.as_slice(), after.as_slice()),
            (AddSpecials::Yes, None) => return whole(tokenizer, text, guard, effort),
        };
        let mut ids = before.to_vec();
        let mut rest = text;
        while !rest.is_empty() {
            let cut = (rest.len() > self.part_bytes).then(|| self.cuts.next(rest, self.part_bytes)).flatten();
            let (part, next) = cut.map_or((rest, ""), |(end, start)| (&rest[..end], &rest[start..]));
            effort.unbroken(part.len())?;
            let offset = text.len() - rest.len();
            append(tokenizer, part, guard.map(|guard| (guard, offset)), effort, &mut ids).map_err(reason)?;
            effort.tokens(ids.len())?;
            rest = next;
        }
        ids.extend_from_slice(after);
        Ok(ids)
    }
}

/// Encodes at once, for a tokenizer whose framing tokens are not simply around the text.
fn whole(
    tokenizer: &Tokenizer,
    text: &str,
    guard: Option<Guard<'_>>,
    effort: &Effort,
) -> Result<Vec<TokenId>, EncodeError> {
    effort.unbroken(text.len())?;
    let encoding = match guard {
        Some(guard) => guard.encoding(tokenizer, text),
        None => tokenizer.encode_fast(text, true),
    };
    let encoding = encoding.map_err(reason)?;
    effort.tokens(encoding.len())?;
    Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
}

/// Runs the stages of `encode_fast` up to the model, without offsets, attention masks and truncation. `guard` comes
/// with the offset of `part` in its text.
fn append(
    tokenizer: &Tokenizer,
    part: &str,
    guard: Option<(Guard<'_>, usize)>,
    effort: &Effort,
    ids: &mut Vec<TokenId>,
) -> StageResult<()> {
    let (mut pieces, cut) = match guard {
        Some((guard, offset)) => guard.extract(tokenizer, part, offset)?,
        None => {
            let added = tokenizer.get_added_vocabulary();
            (added.extract_and_normalize(tokenizer.get_normalizer(), part), Cut::default())
        }
    };
    effort.look()?;
    if let Some(stage) = tokenizer.get_pre_tokenizer() {
        split(stage, &mut pieces, effort)?;
    }
    effort.look()?;
    pieces.tokenize(|piece| {
        effort.step()?;
        tokenizer.get_model().tokenize(piece.get())
    })?;
    let pieces = pieces.get_splits(OffsetReferential::Normalized, OffsetType::None);
    let tokens = pieces.iter().filter_map(|(_, _, tokens)| tokens.as_ref()).flatten();
    let before = ids.len();
    ids.extend(tokens.map(|token| TokenId(token.id)));
    cut.check(ids[before..].iter().map(|id| id.0))
}

/// Does a pre-tokenizer's work; patterns check the effort between their matches.
fn split(stage: &PreTokenizerWrapper, pieces: &mut PreTokenizedString, effort: &Effort) -> StageResult<()> {
    match stage {
        PreTokenizerWrapper::Sequence(stages) => stages.as_ref().iter().try_for_each(|stage| {
            effort.look()?;
            split(stage, pieces, effort)
        }),
        PreTokenizerWrapper::Split(split) => pieces.split(|_, piece| {
            let matches = Watched { regex: &split.regex, effort };
            if split.invert {
                piece.split(Invert(matches), split.behavior)
            } else {
                piece.split(matches, split.behavior)
            }
        }),
        stage => stage.pre_tokenize(pieces),
    }
}

/// Pattern that stops when the effort ends.
struct Watched<'a> {
    regex: &'a SysRegex,
    effort: &'a Effort,
}

impl Pattern for Watched<'_> {
    fn find_matches(&self, inside: &str) -> StageResult<Vec<(Offsets, bool)>> {
        if inside.is_empty() {
            return Ok(vec![((0, 0), false)]);
        }
        let (mut splits, mut end) = (Vec::new(), 0);
        for (start, after) in self.regex.find_iter(inside) {
            self.effort.step()?;
            if end != start {
                splits.push(((end, start), false));
            }
            splits.push(((start, after), true));
            end = after;
        }
        if end != inside.len() {
            splits.push(((end, inside.len()), false));
        }
        Ok(splits)
    }
}

fn reason(error: Box<dyn StdError + Send + Sync>) -> EncodeError {
    match error.downcast::<Stopped>() {
        Ok(stopped) => EncodeError::Stopped(*stopped),
        Err(other) => EncodeError::Tokenizer(other.to_string()),
    }
}

/// Returns the tokens that the tokenizer puts before and after a text.
fn frame_of(tokenizer: &Tokenizer) -> Option<(Vec<TokenId>, Vec<TokenId>)> {
    let ids = |specials| {
        let encoding = tokenizer.encode_fast(PROBE, specials).ok()?;
        Some(encoding.get_ids().iter().copied().map(TokenId).collect::<Vec<TokenId>>())
    };
    let (bare, framed) = (ids(false)?, ids(true)?);
    let mut places = framed.windows(bare.len().max(1)).enumerate().filter(|(_, window)| *window == bare);
    let (at, _) = places.next().filter(|_| !bare.is_empty())?;
    places.next().is_none().then(|| (framed[..at].to_vec(), framed[at + bare.len()..].to_vec()))
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;
    use std::time::Duration;

    use proptest::prelude::*;
    use serde_json::{Value, json};

    use super::*;
    use crate::text::effort::Wanted;
    use crate::text::samples;

    /// Encoder that cuts as often as possible.
    fn eager(json: &Value) -> (Tokenizer, Encoder) {
        let tokenizer = Tokenizer::from_bytes(json.to_string()).unwrap();
        let mut encoder = Encoder::of(&tokenizer);
        encoder.part_bytes = 1;
        (tokenizer, encoder)
    }

    fn with_pre_tokenizer(stage: Value) -> Value {
        let mut json = samples::byte_level_json();
        json["pre_tokenizer"] = stage;
        json
    }

    fn pattern(regex: &str) -> Value {
        json!({"type": "Split", "pattern": {"Regex": regex}, "behavior": "Isolated", "invert": false})
    }

    fn bytes() -> Value {
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false})
    }

    /// Tokenizers of every family that may be cut.
    fn families() -> Vec<Value> {
        let mut families = vec![samples::byte_level_json(), samples::sentencepiece_json()];
        for regex in super::super::cuts::WORD_PATTERNS {
            families.push(with_pre_tokenizer(json!({"type": "Sequence", "pretokenizers": [pattern(regex), bytes()]})));
        }
        let class = super::super::cuts::CLASS_PATTERNS.map(pattern);
        let word = pattern(super::super::cuts::WORD_PATTERNS[9]);
        let stages = [class[0].clone(), class[4].clone(), word, bytes()];
        families.push(with_pre_tokenizer(json!({"type": "Sequence", "pretokenizers": stages})));
        let digits = json!({"type": "Digits", "individual_digits": true});
        let prefixed = json!({"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true});
        families.push(with_pre_tokenizer(json!({"type": "Sequence", "pretokenizers": [digits, prefixed]})));
        let mut normalized = samples::byte_level_json();
        normalized["normalizer"] = json!({"type": "NFC"});
        families.push(normalized);
        let mut gemma = samples::sentencepiece_json();
        gemma["normalizer"] = json!({"type": "Replace", "pattern": {"String": " "}, "content": "▁"});
        gemma["pre_tokenizer"] =
            json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false});
        families.push(gemma);
        let mut metaspace = samples::sentencepiece_json();
        metaspace["normalizer"] = Value::Null;
        metaspace["pre_tokenizer"] =
            json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": true});
        families.push(metaspace);
        families
    }

    fn one_shot(tokenizer: &Tokenizer, text: &str, specials: AddSpecials) -> Vec<TokenId> {
        let encoding = tokenizer.encode_fast(text, specials == AddSpecials::Yes).unwrap();
        encoding.get_ids().iter().copied().map(TokenId).collect()
    }

    fn check(text: &str) {
        static FAMILIES: OnceLock<Vec<(Value, Tokenizer, Encoder)>> = OnceLock::new();
        let made = |json: Value| {
            let (tokenizer, encoder) = eager(&json);
            (json, tokenizer, encoder)
        };
        for (json, tokenizer, encoder) in FAMILIES.get_or_init(|| families().into_iter().map(made).collect()) {
            assert_ne!(encoder.cuts, Cuts::Never, "{json}");
            for specials in [AddSpecials::Yes, AddSpecials::No] {
                let ids = encoder.encode(tokenizer, text, None, specials, &Effort::unbounded()).unwrap();
                assert_eq!(ids, one_shot(tokenizer, text, specials), "{text:?} {}", json["pre_tokenizer"]);
            }
        }
    }

    #[test]
    fn parts_have_the_ids_of_the_whole() {
        check("hello world or or world\nhello wor hello  world\n\nor 12345 it's world's\r\nor hello\u{301} world");
        check("<|begin|>hello world<|user|> or\nworld <|end|> hello <s> or</s> or");
        check("мир мир 世界 世界 12 世界\nか な ー か\u{3099} ナ 1 a 2 b");
        check("");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn parts_have_the_ids_of_the_whole_for_any_text(text in "([a-dhelowrд世か']|[A-C0-9é\u{301}.,!?]|[ \n\r\t\u{a0}]|<\\|end\\|>|hello| w| a){0,60}") {
            check(&text);
        }
    }

    #[test]
    fn a_tokenizer_that_nobody_knows_is_never_cut() {
        let lookbehind = with_pre_tokenizer(pattern(r"(?<=a) b|\s+|\S+"));
        assert_eq!(eager(&lookbehind).1.cuts, Cuts::Never);
        let mut crossing = samples::sentencepiece_json();
        crossing["model"]["vocab"]["d▁w"] = json!(299);
        crossing["model"]["merges"].as_array_mut().unwrap().push(json!("d ▁w"));
        assert_eq!(eager(&crossing).1.cuts, Cuts::Never);
        let mut covering = samples::byte_level_json();
        covering["added_tokens"].as_array_mut().unwrap().push(json!({"id": 290, "content": "or or", "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": false}));
        assert_eq!(eager(&covering).1.cuts, Cuts::Never);
    }

    #[test]
    fn a_pattern_that_takes_for_ever_is_stopped() {
        // Groups of three digits from the right: each match looks at all digits that follow.
        let slow = with_pre_tokenizer(json!({"type": "Sequence", "pretokenizers": [
            pattern(r"\d{1,3}(?=(?:\d{3})*\b)"), bytes(),
        ]}));
        let (tokenizer, encoder) = eager(&slow);
        let short = "1234567 1234";
        let ids = encoder.encode(&tokenizer, short, None, AddSpecials::Yes, &Effort::unbounded()).unwrap();
        assert_eq!(ids, one_shot(&tokenizer, short, AddSpecials::Yes));
        let effort = Effort::begin(Wanted::default(), Duration::from_millis(50), usize::MAX, usize::MAX);
        let stopped = encoder.encode(&tokenizer, &"1".repeat(60_000), None, AddSpecials::Yes, &effort).unwrap_err();
        assert_eq!(stopped, EncodeError::Stopped(Stopped::TooLong { ms: 50 }));

        let wanted = Wanted::default();
        let waiting = wanted.waiting();
        let effort = Effort::begin(wanted, Duration::MAX, usize::MAX, usize::MAX);
        let leaves = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(waiting);
        });
        let stopped = encoder.encode(&tokenizer, &"1".repeat(60_000), None, AddSpecials::Yes, &effort).unwrap_err();
        assert_eq!(stopped, EncodeError::Stopped(Stopped::Unwanted));
        leaves.join().unwrap();
    }

    #[test]
    fn sizes_are_bounded() {
        let (tokenizer, encoder) = eager(&samples::byte_level_json());
        let encode = |text: &str, tokens, unbroken| {
            let effort = Effort::begin(Wanted::default(), Duration::MAX, tokens, unbroken);
            encoder.encode(&tokenizer, text, None, AddSpecials::No, &effort)
        };
        assert_eq!(encode("hello world", 2, 6).unwrap().len(), 2);
        assert_eq!(encode("hello world", 1, 6), Err(Stopped::TooMany { tokens: 1 }.into()));
        assert_eq!(encode("12345678", 99, 6), Err(Stopped::Unbroken { bytes: 8, max: 6 }.into()));
    }
}
