//! `POST /v1/completions`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use sched::TokenId;

use super::App;
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use crate::openai::{
    ApiError, CompletionAnswer, CompletionRequest, Echo, Generation, Head, Limits, Prompt, UnnamedLength,
};
use crate::text::{Detokenizer, ModelText};

pub(super) async fn handle(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<CompletionRequest>(app, request).await
}

impl Endpoint for CompletionRequest {
    const ID_PREFIX: &'static str = "cmpl-";

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
        let mut echoed = 0;
        for prompt in &self.prompts {
            match (prompt, self.generation.truncation) {
                (Prompt::Text(text), None) => room.fits(model, text)?,
                (Prompt::Tokens(tokens), None) => room.has(tokens.len())?,
                (Prompt::Text(_) | Prompt::Tokens(_), Some(_)) => {}
            }
            echoed += self.echo_bytes(prompt, model);
        }
        room.answer(echoed)?;
        self.prompts.iter().map(|prompt| self.tokenized(prompt, model, room)).collect()
    }

    fn unnamed_length(_: &App, share: u32) -> UnnamedLength {
        UnnamedLength { configured: None, default: Some(CompletionRequest::MAX_TOKENS_DEFAULT), share }
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::new(CompletionAnswer::new(head), prompts, &self.generation)
    }
}

impl CompletionRequest {
    /// Bytes of the prompt's text in the answer; a few bytes of token ids can stand for long tokens.
    fn echo_bytes(&self, prompt: &Prompt, model: &ModelText) -> usize {
        match (self.echo, prompt, self.generation.truncation) {
            // How much a truncated prompt leaves is counted when that is known.
            (Echo::Nothing, _, _) | (Echo::Prompt, _, Some(_)) => 0,
            (Echo::Prompt, Prompt::Text(text), None) => text.len(),
            (Echo::Prompt, Prompt::Tokens(tokens), None) => model.tokenizer.pieces().text_bytes(tokens),
        }
    }

    fn tokenized(&self, prompt: &Prompt, model: &ModelText, room: &Room<'_>) -> Result<Tokenized, ApiError> {
        let tokens = match prompt {
            Prompt::Tokens(tokens) => self.truncated(tokens.clone(), room),
            Prompt::Text(text) => {
                room.prompt(model, &model.raw(text), self.add_specials, ("prompt", &self.generation))?
            }
        };
        if tokens.is_empty() {
            return Err(ApiError::invalid("prompt", "the prompt has no tokens"));
        }
        let echo = match (self.echo, prompt, self.generation.truncation) {
            (Echo::Nothing, _, _) => String::new(),
            (Echo::Prompt, Prompt::Text(text), None) => text.clone(),
            // What was cut off was not read, so it is not repeated.
            (Echo::Prompt, Prompt::Text(_) | Prompt::Tokens(_), _) => {
                Detokenizer::decode_beginning(&model.tokenizer, self.generation.special_text, &tokens)
            }
        };
        Ok(Tokenized { tokens: tokens.into(), echo, reading: None, structure: None })
    }

    fn truncated(&self, mut tokens: Vec<TokenId>, room: &Room<'_>) -> Vec<TokenId> {
        if let Some(truncation) = self.generation.truncation {
            truncation.cut(&mut tokens, 0, room.context_tokens, &self.generation);
        }
        tokens
    }
}
