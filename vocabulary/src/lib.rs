//! What each token of a model writes, and which tokens a grammar allows next.
//!
//! Routers and workers read a model's vocabulary through this crate, so that a router refuses exactly the grammars that a
//! worker cannot follow. Knows no request, no stream and no tensor.

mod error;
mod grammar;
mod pieces;
mod special_tokens;
mod tokenizer_file;

pub use error::{GrammarError, VocabularyError};
pub use grammar::{Grammars, Mask, Matcher, regex_to_lark};
pub use pieces::{Lead, Pieces};
pub use special_tokens::{STANDARD, SpecialTokens};
pub use tokenizer_file::read_tokenizer;
