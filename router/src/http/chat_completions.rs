//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use sched::TokenId;

use super::App;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use crate::openai::{ApiError, ChatAnswer, ChatRequest, Conversation, Generation, Head, Limits};
use crate::text::ModelText;

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<ChatRequest>(app, request).await
}

impl Endpoint for ChatRequest {
    const ID_PREFIX: &'static str = "chatcmpl";

    fn parse(body: &[u8], limits: &Limits) -> Result<ChatRequest, ApiError> {
        ChatRequest::parse(body, limits)
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn prompts(&self, model: &ModelText) -> Result<Vec<Tokenized>, ApiError> {
        let tokens = conversation_tokens(&self.conversation, model)?;
        Ok(vec![Tokenized { tokens: tokens.into(), echo: String::new() }])
    }

    fn max_tokens_default(app: &App) -> Option<u32> {
        Some(app.config.limits.chat_max_tokens_default).filter(|&tokens| tokens > 0)
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::chat(ChatAnswer::new(head), prompts, self.generation.token_ids)
    }
}

/// A conversation as prompt tokens, by the model's own template.
pub(super) fn conversation_tokens(conversation: &Conversation, model: &ModelText) -> Result<Vec<TokenId>, ApiError> {
    let Some(template) = &model.template else {
        let message = "this model has no chat template: use /v1/completions instead";
        return Err(ApiError::invalid("messages", message));
    };
    let prompt = template
        .render(&conversation.messages, conversation.generation_prompt, &conversation.template_variables)
        .map_err(|error| ApiError::invalid("messages", error.to_string()))?;
    let tokens = model
        .encode(&prompt, conversation.add_specials)
        .map_err(|error| ApiError::invalid("messages", error.to_string()))?;
    if tokens.is_empty() {
        return Err(ApiError::invalid("messages", "the messages make a prompt of no tokens"));
    }
    Ok(tokens)
}
