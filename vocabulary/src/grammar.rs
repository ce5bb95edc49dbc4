//! Grammars over a vocabulary: which tokens may come next; knows no sampler and no API.
//!
//! The matching is done by llguidance. Its result depends on the grammar and the tokens so far only, so a matcher that is
//! rebuilt by replay, on whatever worker, gives the same masks.

mod look;
mod masks;
#[cfg(test)]
mod masks_tests;
mod tree;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llguidance::api::{GrammarInit, ParserLimits, TopLevelGrammar};
use llguidance::toktrie::{ApproximateTokEnv, InferenceCapabilities, SimpleVob, TokEnv, TokRxInfo, TokTrie};
use llguidance::{ParserFactory, TokenParser, earley::SlicedBiasComputer};
use model_files::Fields;
use model_files::keys::TOKENIZER_CONFIG;
use sched::TokenId;
use sched::contained::contained;

use self::look::Steps;
use self::masks::Masks;
use self::tree::Tree;
use crate::{GrammarError, Pieces, SpecialTokens, VocabularyError, read_tokenizer};

/// Bounds of one grammar and of one mask. A state of the lexer takes one to two kilobytes, so that a running choice holds
/// at most some 50 MB, with what is known of them for masks.
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

/// Parts of the vocabulary, as regular expressions, which are allowed at once where a text may go on with any of them,
/// instead of token by token. They are beside the library's own, which are for strings of JSON. Each one shortens the
/// first look at a state, by kinds of grammars:
const FREE_SLICES: [&str; 5] = [
    // Text up to the marks of calls or thoughts.
    r"[^<\[◁]+",
    // Text between single quotes, as in SQL.
    r#"[^"'\\\x00-\x1F\x7F]+"#,
    // Names in programs, and the part of a mail address before its @.
    r"[a-zA-Z0-9_]+",
    // Words without digits, and names of hosts.
    r"[a-zA-Z]+",
    // The last characters of strings of bounded length.
    r#"[^"\\\x00-\x1F\x7F]{1,5}"#,
];

/// Most states of a lexer with which further texts begin, a tenth of what one text may use.
const LEARNED_STATES_MAX: usize = 2_000;
/// Name by which the library says that a text can neither go on nor end.
const NO_EXTENSION: &str = "NoExtensionBias";
/// Most characters of an error that a client is told.
const ERROR_CHARS_MAX: usize = 300;

/// Compiler of grammars over one vocabulary.
pub struct Grammars {
    factory: ParserFactory,
    vocabulary: Arc<Vocabulary>,
    /// Token beyond the vocabulary that stands for the end of the text.
    end: u32,
}

/// The tokens, as masks need them.
struct Vocabulary {
    env: TokEnv,
    tree: Tree,
    /// Memory for the next mask, of which there is rarely more than one at a time.
    steps: Mutex<Steps>,
}

impl Vocabulary {
    fn steps(&self) -> MutexGuard<'_, Steps> {
        self.steps.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Position in a grammar: the text so far, and what may follow.
pub struct Matcher {
    inner: llguidance::Matcher,
    masks: Arc<Masks>,
    /// The parser at the start of the text. It shares the lexer, and so what that has learned.
    start: TokenParser,
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
        let pieces = contained(|| Pieces::compile(&tokenizer));
        let failed = |panic| VocabularyError::Tokenizer(format!("the tokenizer library fails at it: {panic}"));
        Grammars::new(&pieces.map_err(failed)??)
    }

    /// Prepares the vocabulary. Control tokens match no text, only their names in a grammar.
    ///
    /// # Errors
    /// When the library refuses the vocabulary, or if a token is too long.
    pub fn new(pieces: &Pieces) -> Result<Grammars, VocabularyError> {
        let refused = |error: String| VocabularyError::Tokenizer(format!("no grammar can be matched: {error}"));
        let end = u32::try_from(pieces.len()).map_err(|error| refused(error.to_string()))?;
        let mut words: Vec<Vec<u8>> = (0..end).map(|id| word(pieces, TokenId(id))).collect();
        tree::check_lengths(&words).map_err(refused)?;
        words.push(Vec::new());
        let trie = TokTrie::from(&TokRxInfo::new(end + 1, end), &words);
        let env: TokEnv = Arc::new(ApproximateTokEnv::new(trie));
        let mut slices = SlicedBiasComputer::general_slices();
        slices.extend(FREE_SLICES.map(str::to_owned));
        let factory = ParserFactory::new(&env, InferenceCapabilities::default(), &slices);
        let mut factory = factory.map_err(|error| refused(error.to_string()))?;
        factory.quiet();
        *factory.limits_mut() = LIMITS;
        let tree = Tree::new(env.tok_trie(), &slices).map_err(refused)?;
        Ok(Grammars { factory, vocabulary: Arc::new(Vocabulary { env, tree, steps: Mutex::default() }), end })
    }

    /// Compiles a grammar, in llguidance's dialect of Lark.
    ///
    /// # Errors
    /// When the grammar is not valid, takes too much, or has no text that this vocabulary can begin.
    pub fn compile(&self, grammar: &str) -> Result<Matcher, GrammarError> {
        let init = GrammarInit::Serialized(TopLevelGrammar::from_lark(grammar.to_owned()));
        let parser = self.factory.create_parser_from_init(init, 0, 0).map_err(|error| told(&error.to_string()))?;
        // The library bounds the states of a running text only, not those that it makes of large words at once.
        let states = parser.parser.lexer_stats().num_states;
        if states > LIMITS.max_lexer_states {
            return Err(GrammarError(format!("its words need too many states: {states}")));
        }
        let masks = Arc::new(Masks::new(Arc::clone(&self.vocabulary)));
        let mut matcher = Matcher::at_start(parser, masks, self.end);
        // Some grammars lead nowhere, which only their first mask shows.
        matcher.mask()?;
        Ok(matcher.into_start())
    }
}

impl Matcher {
    fn at_start(mut parser: TokenParser, masks: Arc<Masks>, end: u32) -> Matcher {
        if parser.is_fresh() {
            parser.start_without_prompt();
        }
        parser.bias_computer = Arc::<Masks>::clone(&masks);
        Matcher { inner: llguidance::Matcher::new(Ok(parser.clone())), masks, start: parser, end }
    }

    /// Returns a matcher at the start of the text that shares nothing, so that what one text costs is not charged to
    /// another. Its lexer knows what this one has learned.
    #[must_use]
    pub fn fresh(&self) -> Matcher {
        Matcher::at_start(self.start.deep_clone(), Arc::new(self.masks.fork()), self.end)
    }

    /// Goes back to the start of the text.
    #[must_use]
    pub fn into_start(self) -> Matcher {
        Matcher::at_start(self.start, self.masks, self.end)
    }

    /// Returns true if texts that begin with this matcher's lexer rather than with that of `other`, of the same grammar,
    /// find more of what they need: states, which take most of the time of a mask where they are new. A lexer that has
    /// come near its bounds is no good beginning.
    #[must_use]
    pub fn knows_more_than(&self, other: &Matcher) -> bool {
        if self.inner.is_error() {
            return false;
        }
        let (ours, theirs) = (self.start.parser.lexer_stats(), other.start.parser.lexer_stats());
        let more = ours.num_transitions > theirs.num_transitions || self.masks.states() > other.masks.states();
        !ours.error && ours.num_states <= LEARNED_STATES_MAX && more
    }

    /// Memory of its lexer, by estimate, with what is known of it for masks.
    #[must_use]
    pub fn lexer_bytes(&self) -> usize {
        // A panic of the library leaves a lexer that must not be asked, with an error.
        let lexer = if self.inner.is_error() { 0 } else { self.start.parser.lexer_stats().num_bytes };
        lexer + self.masks.bytes()
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

/// Error in words that are fit for a client: the first line of the library's, and the reason that follows a regular
/// expression's, without where in its code or in our grammar it was.
fn told(error: &str) -> GrammarError {
    // How the library says that nothing may come next.
    if error.contains(NO_EXTENSION) {
        return GrammarError("no text of this grammar can go on here".to_owned());
    }
    let mut lines = error.lines().map(str::trim).filter(|line| !line.is_empty());
    let first = lines.next().unwrap_or("it cannot be followed");
    let place = first.strip_prefix("at ").and_then(|rest| rest.split_once(": "));
    let is_place = |place: &str| place.chars().all(|c| c.is_ascii_digit() || matches!(c, '(' | ')'));
    let first = place.filter(|(place, _)| is_place(place)).map_or(first, |(_, rest)| rest);
    let reason = lines.find_map(|line| line.strip_prefix("error: ")).map(|reason| format!(" {reason}"));
    let said = format!("{first}{}", reason.unwrap_or_default());
    GrammarError(said.chars().take(ERROR_CHARS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(super) struct Vocabulary {
        pub(super) grammars: Grammars,
        pieces: Pieces,
    }

    pub(super) fn vocabulary() -> Vocabulary {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../models/demo");
        let tokenizer = read_tokenizer(&folder.join("tokenizer.json"), &mut SpecialTokens::default()).unwrap();
        Vocabulary { grammars: Grammars::read(&folder).unwrap(), pieces: Pieces::compile(&tokenizer).unwrap() }
    }

    impl Vocabulary {
        fn tokens(&self) -> impl Iterator<Item = TokenId> {
            (0..self.pieces.len() as u32).map(TokenId)
        }

        pub(super) fn token(&self, text: &str) -> TokenId {
            self.tokens().find(|token| self.pieces.bytes(*token) == text.as_bytes()).unwrap()
        }

        /// Texts of the tokens that a mask allows.
        fn allowed(&self, mask: &Mask) -> Vec<String> {
            let allowed = self.tokens().filter(|token| mask.allows(*token));
            allowed.map(|token| String::from_utf8_lossy(self.pieces.bytes(token)).into_owned()).collect()
        }

        /// Says which tokens a mask should allow, by trying each.
        fn accepted(&self, matcher: &mut Matcher) -> Vec<String> {
            let accepted: Vec<TokenId> = self.tokens().filter(|token| matcher.accepts(*token).unwrap()).collect();
            accepted.iter().map(|token| String::from_utf8_lossy(self.pieces.bytes(*token)).into_owned()).collect()
        }
    }

    #[test]
    fn a_mask_allows_what_the_grammar_does_and_the_end_where_the_text_is_complete() {
        let vocabulary = vocabulary();
        let mut matcher = vocabulary.grammars.compile(r#"start: "a" ("b" | "c")?"#).unwrap();
        let mask = matcher.mask().unwrap();
        assert!(mask.allows(vocabulary.token("a")) && !mask.allows(vocabulary.token("b")) && !mask.may_end());
        assert_eq!(mask.tokens() as usize, vocabulary.pieces.len());
        matcher.push(vocabulary.token("a")).unwrap();
        let mask = matcher.mask().unwrap();
        assert_eq!(vocabulary.allowed(&mask), ["b", "c"]);
        assert!(mask.may_end() && !mask.must_end());
        matcher.push(vocabulary.token("c")).unwrap();
        assert!(matcher.mask().unwrap().must_end());
        assert!(!mask.allows(TokenId(mask.tokens())), "the end is no token of the model");
    }

    /// What is allowed or refused at once, by parts of the vocabulary, is what it would be token by token.
    #[test]
    fn every_mask_is_what_token_by_token_comes_out() {
        let vocabulary = vocabulary();
        let schema = r#"%json {"type": "object", "properties": {"a": {"type": "string", "maxLength": 7}, "b": {"type": "string"}}, "required": ["a", "b"], "additionalProperties": false, "x-guidance": {"whitespace_flexible": false}}"#;
        for (grammar, text) in [
            (format!("start: {schema}"), r#"{"a":"the r","b":"it is"}"#),
            (r#"start: /[a-z_]+/ " = '" /[^']*/ "'""#.to_owned(), "the_a = 'it \"is\" <so>'"),
            (r"start: /(?s:.)*/".to_owned(), "so <it> is"),
            (r"start: /[^<]{0,9}/ /<[a-zA-Z0-9]+>/".to_owned(), "it is <B2>"),
        ] {
            let mut matcher = vocabulary.grammars.compile(&grammar).unwrap();
            for c in text.chars() {
                let mask = matcher.mask().unwrap();
                assert_eq!(
                    vocabulary.allowed(&mask),
                    vocabulary.accepted(&mut matcher),
                    "{grammar}, before {c:?} of {text}"
                );
                matcher.push(vocabulary.token(&c.to_string())).unwrap();
            }
            assert!(matcher.mask().unwrap().may_end(), "{grammar}");
        }
    }

    #[test]
    fn control_tokens_match_no_text() {
        let vocabulary = vocabulary();
        let mask = vocabulary.grammars.compile(r"start: /(?s:.)*/").unwrap().mask().unwrap();
        for token in vocabulary.tokens() {
            let is_text = !vocabulary.pieces.is_special(token) && !vocabulary.pieces.bytes(token).is_empty();
            assert!(is_text || !mask.allows(token), "{token}");
        }
    }

    #[test]
    fn what_a_text_has_taught_the_lexer_changes_no_mask() {
        let vocabulary = vocabulary();
        let new = vocabulary.grammars.compile(r#"start: /[a-z]{0,40}/ "!""#).unwrap();
        let mut taught = new.fresh();
        let text: Vec<TokenId> = "thisisso!".chars().map(|c| vocabulary.token(&c.to_string())).collect();
        let masks = |matcher: &mut Matcher| -> Vec<Vec<String>> {
            let each = text.iter().map(|token| {
                matcher.push(*token).unwrap();
                vocabulary.allowed(&matcher.mask().unwrap())
            });
            each.collect()
        };
        let first = masks(&mut taught);
        assert!(taught.knows_more_than(&new) && !new.knows_more_than(&taught));
        assert!(taught.lexer_bytes() > new.lexer_bytes());
        let mut again = taught.fresh();
        assert_eq!(masks(&mut again), first);
        assert!(!again.knows_more_than(&taught), "it was all known");
        assert_eq!(masks(&mut taught.into_start()), first);
    }

    #[test]
    fn a_text_that_failed_teaches_nothing() {
        let vocabulary = vocabulary();
        let new = vocabulary.grammars.compile(r"start: /[a-z]{0,40}/").unwrap();
        let mut failed = new.fresh();
        failed.push(vocabulary.token("a")).unwrap();
        failed.mask().unwrap();
        failed.push(vocabulary.token("!")).unwrap_err();
        assert!(!failed.knows_more_than(&new));
    }

    #[test]
    fn what_is_wrong_with_a_grammar_is_told_in_a_line() {
        let vocabulary = vocabulary();
        for (grammar, said) in
            [("start: nonsense", "nonsense"), ("start: /[^\\s\\S]/", ""), ("start: /(/", "unclosed group")]
        {
            let error = vocabulary.grammars.compile(grammar).err().unwrap_or_else(|| panic!("{grammar}")).to_string();
            assert!(error.contains(said), "{error}");
            assert!(error.lines().count() == 1 && error.chars().count() <= ERROR_CHARS_MAX, "{error}");
        }
    }

    #[test]
    fn a_folder_without_a_tokenizer_has_no_vocabulary() {
        let error = Grammars::read(Path::new("no such folder")).err().unwrap();
        assert!(error.to_string().contains("tokenizer.json"), "{error}");
    }
}
