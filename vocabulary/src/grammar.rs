//! Grammars over a vocabulary: which tokens may come next; knows no sampler and no API.
//!
//! The matching is done by llguidance. Its result depends on the grammar and the tokens so far only, so a matcher that is
//! rebuilt by replay, on whatever worker, gives the same masks.

use std::path::Path;
use std::sync::Arc;

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, earley::SlicedBiasComputer};
use model_files::Fields;
use model_files::keys::TOKENIZER_CONFIG;
use sched::TokenId;

use crate::{GrammarError, Pieces, SpecialTokens, VocabularyError, read_tokenizer};

/// Bounds of one grammar and of one mask. A state of the lexer takes one to two kilobytes, so that a running choice holds
/// at most some 40 MB.
const LIMITS: ParserLimits = ParserLimits {
    max_items_in_row: 2_000,
    initial_lexer_fuel: 1_000_000,
    step_lexer_fuel: 200_000,
    step_max_items: 50_000,
    max_lexer_states: 20_000,
    max_grammar_size: 200_000,
    precompute_large_lexemes: true,
    verbose_errors: false,
};

/// Parts of the vocabulary, as regular expressions, which the library allows at once where a text may go on with any of
/// them, instead of token by token. Beside its own for strings of JSON: any text, and text in which no mark of calls or
/// thoughts begins.
const FREE_SLICES: [&str; 2] = [r"(?s:.)+", r"[^<\[◁]+"];

/// Name by which the library says that a text can neither go on nor end.
const NO_EXTENSION: &str = "NoExtensionBias";
/// Most characters of an error that a client is told.
const ERROR_CHARS_MAX: usize = 300;

/// Compiler of grammars over one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    /// Token beyond the vocabulary that stands for the end of the text.
    end: u32,
}

/// Position in a grammar: the text so far, and what may follow.
pub struct Matcher {
    inner: llguidance::Matcher,
    end: u32,
}

/// Tokens that may come next.
#[derive(Debug)]
pub struct Mask {
    tokens: SimpleVob,
    end: u32,
}

impl Grammars {
    /// Reads the vocabulary of a model folder.
    ///
    /// # Errors
    /// When the folder has no tokenizer or one that is not supported.
    pub fn read(folder: &Path) -> Result<Grammars, VocabularyError> {
        let config = Fields::read(&folder.join(TOKENIZER_CONFIG.file))?;
        let mut specials = SpecialTokens::read(folder, config.as_ref())?;
        let tokenizer = read_tokenizer(&folder.join("tokenizer.json"), &mut specials)?;
        Grammars::new(&Pieces::compile(&tokenizer)?)
    }

    /// Prepares the vocabulary. Control tokens match no text, only their names in a grammar.
    ///
    /// # Errors
    /// When the library refuses the vocabulary.
    pub fn new(pieces: &Pieces) -> Result<Grammars, VocabularyError> {
        let refused = |error: String| VocabularyError::Tokenizer(format!("no grammar can be matched: {error}"));
        let end = u32::try_from(pieces.len()).map_err(|error| refused(error.to_string()))?;
        let mut words: Vec<Vec<u8>> = (0..end).map(|id| word(pieces, TokenId(id))).collect();
        words.push(Vec::new());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut slices = SlicedBiasComputer::general_slices();
        slices.extend(FREE_SLICES.map(str::to_owned));
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| refused(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        Ok(Grammars { factory, end })
    }

    /// Compiles a grammar, in llguidance's dialect of Lark.
    ///
    /// # Errors
    /// When the grammar is not valid, takes too much, or has no text that this vocabulary can begin.
    pub fn compile(&self, grammar: &str) -> Result<Matcher, GrammarError> {
        let init = GrammarInit::Serialized(TopLevelGrammar::from_lark(grammar.to_owned()));
        let parser = self.factory.create_parser_from_init(init, 0, 0).map_err(|error| told(&error.to_string()))?;
        let matcher = Matcher { inner: llguidance::Matcher::new(Ok(parser)), end: self.end };
        // Some grammars lead nowhere, which only their first mask shows.
        matcher.fresh().mask()?;
        Ok(matcher)
    }
}

impl Matcher {
    /// Returns a copy that shares nothing, so that what one text costs is not charged to another.
    #[must_use]
    pub fn fresh(&self) -> Matcher {
        Matcher { inner: self.inner.deep_clone(), end: self.end }
    }

    /// Returns true if the text may go on with `token`.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn accepts(&mut self, token: TokenId) -> Result<bool, GrammarError> {
        let accepted = self.inner.validate_tokens(&[token.0]).map_err(|error| told(&error.to_string()))?;
        Ok(accepted == 1)
    }

    /// Goes on by one token.
    ///
    /// # Errors
    /// When the grammar does not allow it.
    pub fn push(&mut self, token: TokenId) -> Result<(), GrammarError> {
        self.inner.consume_token(token.0).map_err(|error| told(&error.to_string()))
    }

    /// Returns the tokens that may come next.
    ///
    /// # Errors
    /// When a bound is reached.
    pub fn mask(&mut self) -> Result<Mask, GrammarError> {
        let tokens = self.inner.compute_mask_or_eos().map_err(|error| told(&error.to_string()))?;
        Ok(Mask { tokens, end: self.end })
    }
}

impl std::fmt::Debug for Matcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Matcher").finish_non_exhaustive()
    }
}

impl Mask {
    /// Returns true if the text may go on with `token`.
    #[must_use]
    pub fn allows(&self, token: TokenId) -> bool {
        token.0 < self.end && self.tokens.is_allowed(token.0)
    }

    /// Returns true if the text may end here.
    #[must_use]
    pub fn may_end(&self) -> bool {
        self.tokens.is_allowed(self.end)
    }

    /// Returns true if the text must end here.
    #[must_use]
    pub fn must_end(&self) -> bool {
        self.may_end() && self.tokens.num_set() == 1
    }

    /// Returns one bit per token, the lowest first in each word. Bits from `tokens` on mean nothing.
    #[must_use]
    pub fn words(&self) -> &[u32] {
        self.tokens.as_slice()
    }

    /// Number of tokens in the vocabulary.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.end
    }
}

/// Rewrites a regular expression for use between the slashes of a grammar.
#[must_use]
pub fn regex_to_lark(pattern: &str) -> String {
    llguidance::regex_to_lark(pattern, "")
}

/// Bytes by which the library knows a token.
fn word(pieces: &Pieces, token: TokenId) -> Vec<u8> {
    let bytes = pieces.bytes(token);
    match pieces.is_special(token) && !bytes.is_empty() {
        true => [&[TokTrie::SPECIAL_TOKEN_MARKER], bytes].concat(),
        false => bytes.to_vec(),
    }
}

/// Error in words that are fit for a client: the first line of the library's, without where in its code it was.
fn told(error: &str) -> GrammarError {
    // How the library says that nothing may come next.
    if error.contains(NO_EXTENSION) {
        return GrammarError("no text of this grammar can go on here".to_owned());
    }
    let line = error.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or("it cannot be followed");
    GrammarError(line.chars().take(ERROR_CHARS_MAX).collect())
}
