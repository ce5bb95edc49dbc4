//! `POST /tokenize` and `/detokenize`: requests and answers; knows no tokenizer.

use sched::TokenId;
use serde::Serialize;

use super::chat::Conversation;
use super::delta::Ids;
use super::fields::Fields;
use super::generation::token;
use super::known::note_unknown;
use super::refused::refuse_for_completion;
use super::{ApiError, Limits};
use crate::text::{AddSpecials, SpecialText};

/// A parsed and checked tokenize request.
#[derive(Debug, Clone, PartialEq)]
pub struct TokenizeRequest {
    /// Model that the client names.
    pub model: Option<String>,
    /// Text or conversation to tokenize.
    pub input: TokenizeInput,
    /// Whether tokens are also sent as strings.
    pub strings: TokenStrings,
}

/// Input to tokenize.
#[derive(Debug, Clone, PartialEq)]
pub enum TokenizeInput {
    /// Text.
    Text(String, AddSpecials),
    /// A conversation, through the chat template.
    Conversation(Conversation),
}

/// Whether tokens are also sent as strings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenStrings {
    /// Sends strings (`return_token_strs`).
    Include,
    /// Sends ids only.
    Omit,
}

impl TokenizeRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong; the error names the field.
    pub fn parse(body: &[u8]) -> Result<TokenizeRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.string("model")?;
        let strings = match fields.flag("return_token_strs")? {
            Some(true) => TokenStrings::Include,
            Some(false) | None => TokenStrings::Omit,
        };
        if fields.take("truncate_prompt_tokens").is_some() {
            return Err(ApiError::unsupported("truncate_prompt_tokens"));
        }
        let input = match fields.string("prompt")? {
            Some(_) if fields.take("messages").is_some() => {
                return Err(ApiError::invalid("prompt", "prompt and messages exclude each other"));
            }
            Some(text) => {
                refuse_for_completion(&mut fields)?;
                let specials = match fields.flag("add_special_tokens")? {
                    Some(false) => AddSpecials::No,
                    Some(true) | None => AddSpecials::Yes,
                };
                TokenizeInput::Text(text, specials)
            }
            None => TokenizeInput::Conversation(Conversation::take(&mut fields).map_err(|error| {
                let nothing = error.message == "messages is missing";
                if nothing { ApiError::invalid("prompt", "prompt or messages is missing") } else { error }
            })?),
        };
        note_unknown("/tokenize: ", &fields);
        Ok(TokenizeRequest { model, input, strings })
    }
}

/// A parsed and checked detokenize request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DetokenizeRequest {
    /// Model that the client names.
    pub model: Option<String>,
    /// The tokens, all within the vocabulary.
    pub tokens: Vec<TokenId>,
    /// Whether control tokens show in the text.
    pub special_text: SpecialText,
}

impl DetokenizeRequest {
    /// Parses and checks a body.
    ///
    /// # Errors
    /// When anything in it is wrong; the error names the field.
    pub fn parse(body: &[u8], limits: &Limits) -> Result<DetokenizeRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.string("model")?;
        let list = fields.list("tokens")?.ok_or_else(|| ApiError::invalid("tokens", "tokens is missing"))?;
        let tokens = list
            .iter()
            .enumerate()
            .map(|(index, value)| token(&format!("tokens[{index}]"), value, limits.vocab_size))
            .collect::<Result<_, _>>()?;
        // Unlike in an answer, control tokens show by default: the text stands for these very tokens.
        let special_text = match fields.flag("skip_special_tokens")? {
            Some(true) => SpecialText::Skip,
            Some(false) | None => SpecialText::Show,
        };
        note_unknown("/detokenize: ", &fields);
        Ok(DetokenizeRequest { model, tokens, special_text })
    }
}

/// Returns the answer to a tokenize request.
#[must_use]
pub fn tokenized(tokens: &[TokenId], strings: Option<&[String]>, context_tokens: u32) -> Vec<u8> {
    #[derive(Serialize)]
    struct Tokenized<'a> {
        count: usize,
        max_model_len: u32,
        tokens: Ids<'a>,
        token_strs: Option<&'a [String]>,
    }
    super::sse::json(&Tokenized {
        count: tokens.len(),
        max_model_len: context_tokens,
        tokens: Ids(tokens),
        token_strs: strings,
    })
}

/// Returns the answer to a detokenize request.
#[must_use]
pub fn detokenized(text: &str) -> Vec<u8> {
    #[derive(Serialize)]
    struct Detokenized<'a> {
        prompt: &'a str,
    }
    super::sse::json(&Detokenized { prompt: text })
}
