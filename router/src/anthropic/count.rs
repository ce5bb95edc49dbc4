//! `POST /v1/messages/count_tokens`: the request and the answer; knows no tokenizer.

use serde::Serialize;

use super::messages::take_conversation;
use crate::openai::fields::Fields;
use crate::openai::{ApiError, Conversation, sse};

/// A parsed and checked request to count tokens.
#[derive(Debug, Clone, PartialEq)]
pub struct CountRequest {
    /// Model that the client names.
    pub model: Option<String>,
    /// The conversation, at least one message.
    pub conversation: Conversation,
}

impl CountRequest {
    /// Parses and checks a body: that of a request for a message, of which only what makes the prompt is looked at.
    ///
    /// # Errors
    /// When anything of that is wrong; the error names the field.
    pub fn parse(body: &[u8]) -> Result<CountRequest, ApiError> {
        let mut fields = Fields::parse(body)?;
        let model = fields.string("model")?;
        fields.take("stop_sequences");
        let (conversation, _) = take_conversation(&mut fields)?;
        Ok(CountRequest { model, conversation })
    }
}

/// Returns the answer to a request to count tokens.
#[must_use]
pub fn counted(tokens: usize) -> Vec<u8> {
    #[derive(Serialize)]
    struct Counted {
        input_tokens: usize,
    }
    sse::json(&Counted { input_tokens: tokens })
}
