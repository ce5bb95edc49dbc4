//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;

use super::App;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::openai::{ApiError, CompletionAnswer, CompletionRequest, Echo, Generation, Head, Limits, Prompt};
use crate::text::{Detokenizer, ModelText};

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<CompletionRequest>(app, request).await
}

impl Endpoint for CompletionRequest {
    const ID_PREFIX: &'static str = "cmpl";

    fn parse(body: &[u8], limits: &Limits) -> Result<CompletionRequest, ApiError> {
        CompletionRequest::parse(body, limits)
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn prompts_count(&self) -> usize {
        self.prompts.len()
    }

    fn prompts(&self, model: &ModelText, room: &Room<'_>) -> Result<Vec<Tokenized>, ApiError> {
        for prompt in &self.prompts {
            match prompt {
                Prompt::Text(text) => room.fits(model, text)?,
                Prompt::Tokens(_) => {}
            }
        }
        self.prompts.iter().map(|prompt| self.tokenized(prompt, model, room)).collect()
    }

    fn max_tokens_default(_: &App) -> Option<u32> {
        Some(CompletionRequest::MAX_TOKENS_DEFAULT)
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::text(CompletionAnswer::new(head), prompts, self.generation.token_ids)
    }
}

impl CompletionRequest {
    fn tokenized(&self, prompt: &Prompt, model: &ModelText, room: &Room<'_>) -> Result<Tokenized, ApiError> {
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens.clone(),
            Prompt::Text(text) => room.prompt(model, &model.raw(text), self.add_specials, "prompt")?,
        };
        if tokens.is_empty() {
            return Err(ApiError::invalid("prompt", "the prompt has no tokens"));
        }
        let echo = match (self.echo, prompt) {
            (Echo::Nothing, _) => String::new(),
            (Echo::Prompt, Prompt::Text(text)) => text.clone(),
            (Echo::Prompt, Prompt::Tokens(tokens)) => {
                Detokenizer::decode(&model.tokenizer, self.generation.special_text, tokens)
            }
        };
        Ok(Tokenized { tokens: tokens.into(), echo })
    }
}
