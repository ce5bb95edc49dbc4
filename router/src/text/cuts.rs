//! Places at which a text may be cut so that its parts have exactly the tokens of the whole; knows no text.
//!
//! A cut lies between two letters with one space or line break between them. It is safe only if every stage of the
//! tokenizer ends one word and starts the next there. The stages known to do so are listed here; a tokenizer with any
//! other stage is never cut.

use tokenizers::models::bpe::BPE;
use tokenizers::normalizers::NormalizerWrapper;
use tokenizers::normalizers::replace::ReplacePattern;
use tokenizers::pre_tokenizers::PreTokenizerWrapper;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{ModelWrapper, SplitDelimiterBehavior, Tokenizer};

/// Published patterns that end a word before every space or line break between two letters. They do not look behind
/// such a place, and at most one character past it.
pub(super) const WORD_PATTERNS: [&str; 10] = [
    // GPT-2 and many models after it.
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    // cl100k, as published and as Llama 3, Qwen2 and others write it.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+",
    r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // Qwen3.5: marks belong to words.
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // o200k, and Mistral's Tekken.
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    // DeepSeek.
    r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
];
/// Published patterns that look at runs of one class of characters only, without spaces and line breaks.
pub(super) const CLASS_PATTERNS: [&str; 5] = [r"\p{N}{1,3}", r"\p{N}", r"[0-9]", r"\d", "[一-龥\u{3040}-ゟ゠-ヿ]+"];

/// Rule for cutting the texts of one tokenizer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cuts {
    /// Nowhere.
    Never,
    /// Between two letters that this joint separates.
    Between(Joint),
}

/// Separator between the two letters of a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Joint {
    /// A space or a line break, with which the second part begins.
    SpaceOrBreak,
    /// A space, with which the second part begins.
    Space,
    /// A space that the second part must not repeat: the tokenizer puts a space before every text.
    OwnSpace,
}

/// Effect of a tokenizer stage on a space between two letters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Ends a word there.
    Ends(Joint),
    /// Has no effect.
    Passes,
    /// Has another or an unknown effect.
    Unknown,
}

impl Cuts {
    /// Derives the rule from every stage of `tokenizer`.
    pub(super) fn of(tokenizer: &Tokenizer) -> Cuts {
        if !added_tokens_keep_away(tokenizer) {
            return Cuts::Never;
        }
        let Some(spaces) = tokenizer.get_normalizer().map_or(Some(Spaces::Kept), spaces) else { return Cuts::Never };
        let words = tokenizer.get_pre_tokenizer().map_or(Stage::Passes, |stage| words(stage, &spaces));
        let joint = match (words, tokenizer.get_model()) {
            (Stage::Ends(joint), _) => joint,
            (Stage::Passes, ModelWrapper::BPE(model)) if marks_only_begin_tokens(model, &spaces) => Joint::Space,
            (Stage::Passes | Stage::Unknown, _) => return Cuts::Never,
        };
        match spaces {
            Spaces::Kept => Cuts::Between(joint),
            Spaces::Marked { .. } => Cuts::Between(Joint::Space),
            Spaces::MarkedAndPrepended { .. } => Cuts::Between(Joint::OwnSpace),
        }
    }

    /// Returns the first cut at or after `from`: the end of the first part and the start of the second.
    pub(super) fn next(self, text: &str, from: usize) -> Option<(usize, usize)> {
        let Cuts::Between(joint) = self else { return None };
        let bytes = text.as_bytes();
        (from.max(1)..bytes.len()).find_map(|at| {
            let cuts = match bytes[at] {
                b' ' => true,
                b'\n' => joint == Joint::SpaceOrBreak,
                _ => false,
            };
            let between = cuts && ends_with_letter(&text[..at]) && begins_with_letter(&text[at + 1..]);
            between.then_some((at, if joint == Joint::OwnSpace { at + 1 } else { at }))
        })
    }
}

fn ends_with_letter(text: &str) -> bool {
    text.chars().next_back().is_some_and(is_letter)
}

fn begins_with_letter(text: &str) -> bool {
    text.chars().next().is_some_and(is_letter)
}

/// Returns true for letters that no normalisation joins with a neighbour; only the most used scripts are listed.
fn is_letter(letter: char) -> bool {
    matches!(letter,
        'a'..='z' | 'A'..='Z' | 'а'..='я' | 'А'..='Я'
        | '\u{3042}'..='\u{3093}' | '\u{30a2}'..='\u{30f3}' | '\u{4e00}'..='\u{9fff}')
}

/// Returns true if no added token can contain or absorb the space of a cut.
fn added_tokens_keep_away(tokenizer: &Tokenizer) -> bool {
    tokenizer.get_added_tokens_decoder().values().all(|token| {
        let text = token.content.as_str();
        let covers = text == " " || text == "\n" || (text.contains([' ', '\n']) && text.chars().any(is_letter));
        let eats = (token.rstrip && ends_with_letter(text)) || (token.lstrip && begins_with_letter(text));
        let looks_around = token.normalized && token.single_word;
        !(covers || eats || looks_around)
    })
}

/// Effect of a normaliser on spaces.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Spaces {
    Kept,
    /// Every space becomes `mark`.
    Marked {
        mark: String,
    },
    /// Every space becomes `mark`, and one is put before every text.
    MarkedAndPrepended {
        mark: String,
    },
}

/// Returns `None` if the normaliser has another effect that could be seen across a cut.
fn spaces(normalizer: &NormalizerWrapper) -> Option<Spaces> {
    let stages = match normalizer {
        NormalizerWrapper::Sequence(sequence) => sequence.as_ref(),
        one => std::slice::from_ref(one),
    };
    let (mut prepended, mut mark) = (None, None);
    for stage in stages {
        match stage {
            NormalizerWrapper::NFC(_)
            | NormalizerWrapper::NFD(_)
            | NormalizerWrapper::NFKC(_)
            | NormalizerWrapper::NFKD(_)
            | NormalizerWrapper::Lowercase(_) => {}
            NormalizerWrapper::Prepend(prepend) if prepended.is_none() => prepended = Some(prepend.prepend.clone()),
            NormalizerWrapper::Replace(replace) if mark.is_none() && replaces_a_space(stage) => {
                mark = Some(replace.content.clone());
            }
            _ => return None,
        }
    }
    match (prepended, mark) {
        (None, None) => Some(Spaces::Kept),
        (None, Some(mark)) => Some(Spaces::Marked { mark }),
        (Some(prepended), Some(mark)) if prepended == mark => Some(Spaces::MarkedAndPrepended { mark }),
        (Some(_), _) => None,
    }
}

/// Compares through JSON, as the library hides the pattern.
pub(super) fn replaces_a_space(replace: &NormalizerWrapper) -> bool {
    let written = serde_json::to_value(replace).unwrap_or_default();
    written["pattern"] == serde_json::to_value(ReplacePattern::String(" ".to_owned())).unwrap_or_default()
}

fn words(stage: &PreTokenizerWrapper, spaces: &Spaces) -> Stage {
    match stage {
        PreTokenizerWrapper::Sequence(sequence) => {
            let stages = sequence.as_ref().iter().map(|stage| words(stage, spaces));
            stages.fold(Stage::Passes, |before, stage| match (before, stage) {
                (Stage::Unknown, _) | (_, Stage::Unknown) => Stage::Unknown,
                // Later stages see one word at a time.
                (Stage::Ends(joint), _) => Stage::Ends(joint),
                (Stage::Passes, stage) => stage,
            })
        }
        PreTokenizerWrapper::ByteLevel(bytes) => match (bytes.use_regex, bytes.add_prefix_space) {
            _ if *spaces != Spaces::Kept => Stage::Unknown,
            (true, false) => Stage::Ends(Joint::SpaceOrBreak),
            (true, true) => Stage::Ends(Joint::Space),
            (false, false) => Stage::Passes,
            (false, true) => Stage::Unknown,
        },
        PreTokenizerWrapper::Metaspace(marks) if *spaces == Spaces::Kept && marks.split => Stage::Ends(Joint::Space),
        PreTokenizerWrapper::Digits(_) => Stage::Passes,
        PreTokenizerWrapper::Punctuation(punctuation) if is_isolated(punctuation.behavior) => Stage::Passes,
        PreTokenizerWrapper::WhitespaceSplit(_) | PreTokenizerWrapper::Whitespace(_) if *spaces == Spaces::Kept => {
            Stage::Ends(Joint::SpaceOrBreak)
        }
        PreTokenizerWrapper::Split(split) => split_words(split, spaces),
        _ => Stage::Unknown,
    }
}

fn split_words(split: &Split, spaces: &Spaces) -> Stage {
    let isolated = is_isolated(split.behavior) || (split.invert && split.behavior == SplitDelimiterBehavior::Removed);
    match &split.pattern {
        SplitPattern::Regex(pattern) if isolated && CLASS_PATTERNS.contains(&pattern.as_str()) => Stage::Passes,
        SplitPattern::Regex(pattern)
            if isolated && *spaces == Spaces::Kept && WORD_PATTERNS.contains(&pattern.as_str()) =>
        {
            Stage::Ends(Joint::SpaceOrBreak)
        }
        // Gemma's files split at spaces, but the normaliser has left none.
        SplitPattern::String(text) if text == " " && *spaces != Spaces::Kept => Stage::Passes,
        SplitPattern::String(_) | SplitPattern::Regex(_) => Stage::Unknown,
    }
}

fn is_isolated(behavior: SplitDelimiterBehavior) -> bool {
    behavior == SplitDelimiterBehavior::Isolated
}

/// Returns true if tokens hold the mark only at their start, so that no merge crosses the start of a word.
fn marks_only_begin_tokens(model: &BPE, spaces: &Spaces) -> bool {
    let (Spaces::Marked { mark } | Spaces::MarkedAndPrepended { mark }) = spaces else { return false };
    let plain = model.dropout.is_none()
        && model.get_continuing_subword_prefix().is_none()
        && model.end_of_word_suffix.as_ref().is_none_or(String::is_empty);
    let vocabulary = model.get_vocab();
    let begins = |token: &String| !token.trim_start_matches(mark.as_str()).contains(mark.as_str());
    plain && mark.chars().count() == 1 && vocabulary.contains_key(mark) && vocabulary.keys().all(begins)
}
