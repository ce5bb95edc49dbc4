//! `POST /tokenize` and `POST /detokenize`.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;
use sched::TokenId;

use super::conversation::conversation_text;
use super::room::Room;
use super::work::work;
use super::{App, body, reply};
use crate::keys::Visitor;
use crate::openai::{
    ApiError, DetokenizeRequest, TokenStrings, TokenizeInput, TokenizeRequest, detokenized, tokenized,
};
use crate::text::Detokenizer;

/// Most tokens of a text that is only counted.
pub(super) const TOKENS_MAX: usize = 1 << 20;

pub(super) async fn tokenize(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Result<Response, ApiError> {
    computed(&app, request, move |app, body, room| tokens_in(app, body, &visitor, &room)).await
}

fn tokens_in(app: &App, body: &[u8], visitor: &Visitor, room: &Room<'_>) -> Result<Vec<u8>, ApiError> {
    let request = TokenizeRequest::parse(body)?;
    app.model_named(request.model.as_deref(), visitor)?;
    let tokens = match &request.input {
        TokenizeInput::Conversation(conversation) => {
            let (prompt, specials) = conversation_text(conversation, &app.model, room)?;
            room.text(&app.model, &app.model.chat(&prompt), specials, TOKENS_MAX)?
        }
        TokenizeInput::Text(text, specials) => room.text(&app.model, &app.model.raw(text), *specials, TOKENS_MAX)?,
    };
    let strings = match request.strings {
        TokenStrings::Include => {
            let name = |token: &TokenId| app.model.tokenizer.token_name(*token).unwrap_or_default();
            Some(tokens.iter().map(name).collect::<Vec<String>>())
        }
        TokenStrings::Omit => None,
    };
    Ok(tokenized(&tokens, strings.as_deref(), room.context_tokens))
}

pub(super) async fn detokenize(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Result<Response, ApiError> {
    computed(&app, request, move |app, body, _| text_of(app, body, &visitor)).await
}

/// Answers a body with what `task` makes of it, which is held until the client has taken it.
pub(super) async fn computed(
    app: &Arc<App>,
    request: Request,
    task: impl FnOnce(&App, &[u8], Room<'_>) -> Result<Vec<u8>, ApiError> + Send + 'static,
) -> Result<Response, ApiError> {
    let (body, permit) = body::receive(app, request).await?;
    let (answer, mut permit) = work(app, permit.body_bytes(), permit, move |app, room| task(app, &body, room)).await?;
    let answer = answer?;
    permit.body_became(0);
    permit.grow_answer(answer.len())?;
    Ok(reply::json_keeping(answer, permit))
}

fn text_of(app: &App, body: &[u8], visitor: &Visitor) -> Result<Vec<u8>, ApiError> {
    let request = DetokenizeRequest::parse(body, &app.limits())?;
    app.model_named(request.model.as_deref(), visitor)?;
    // A few bytes of token ids can stand for long tokens.
    let bytes = app.model.tokenizer.pieces().text_bytes(&request.tokens);
    let bytes_max = app.config.limits.body_bytes_max;
    if bytes > bytes_max {
        let message = format!("the tokens stand for {bytes} bytes of text, more than the limit of {bytes_max}");
        return Err(ApiError::invalid("tokens", message));
    }
    let text = Detokenizer::decode(&app.model.tokenizer, request.special_text, &request.tokens);
    Ok(detokenized(&text))
}
