//! `POST /tokenize` and `POST /detokenize`.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::response::Response;
use sched::TokenId;

use super::chat_completions::conversation_tokens;
use super::generate::blocking;
use super::{App, body, reply};
use crate::admission::Permit;
use crate::openai::{
    ApiError, DetokenizeRequest, TokenStrings, TokenizeInput, TokenizeRequest, detokenized, tokenized,
};
use crate::text::{Detokenizer, SpecialText};

pub(super) async fn tokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (body, _permit) = admitted(&app, request).await?;
    blocking(&app, move |app| {
        let request = TokenizeRequest::parse(&body)?;
        app.model_named(request.model.as_deref())?;
        let tokens = tokens_of(&request.input, app)?;
        let strings = match request.strings {
            TokenStrings::Include => {
                let name = |token: &TokenId| app.model.tokenizer.token_name(*token).unwrap_or_default();
                Some(tokens.iter().map(name).collect::<Vec<String>>())
            }
            TokenStrings::Omit => None,
        };
        Ok(reply::json(tokenized(&tokens, strings.as_deref(), app.context_tokens())))
    })
    .await?
}

pub(super) async fn detokenize(State(app): State<Arc<App>>, request: Request) -> Result<Response, ApiError> {
    let (body, _permit) = admitted(&app, request).await?;
    blocking(&app, move |app| {
        let request = DetokenizeRequest::parse(&body, &app.limits())?;
        app.model_named(request.model.as_deref())?;
        let text = Detokenizer::decode(&app.model.tokenizer, SpecialText::Show, &request.tokens);
        Ok(reply::json(detokenized(&text)))
    })
    .await?
}

/// The body, and the place inside that it takes.
async fn admitted(app: &App, request: Request) -> Result<(Bytes, Permit), ApiError> {
    let limits = &app.config.limits;
    let permit = app.admission.enter(body::announced(request.headers(), limits)?)?;
    Ok((body::read(request.into_body(), limits).await?, permit))
}

fn tokens_of(input: &TokenizeInput, app: &App) -> Result<Vec<TokenId>, ApiError> {
    match input {
        TokenizeInput::Conversation(conversation) => conversation_tokens(conversation, &app.model),
        TokenizeInput::Text(text, specials) => {
            let encoded = app.model.encode(text, *specials);
            encoded.map_err(|error| ApiError::invalid("prompt", error.to_string()))
        }
    }
}
