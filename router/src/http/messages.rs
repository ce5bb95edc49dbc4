//! `POST /v1/messages` and `POST /v1/messages/count_tokens`.

use std::sync::Arc;

use axum::extract::{Extension, Request, State};
use axum::response::Response;

use super::App;
use super::conversation::{conversation_text, tokenized};
use super::form::Form;
use super::generate::{Endpoint, Tokenized, answer};
use super::room::Room;
use super::tokenize::{TOKENS_MAX, computed};
use crate::anthropic::{CountRequest, MessagesAnswer, MessagesRequest, counted};
use crate::keys::Visitor;
use crate::openai::{ApiError, Generation, Head, Limits, UnnamedLength};
use crate::text::ModelText;

pub(super) async fn create(State(app): State<Arc<App>>, request: Request) -> Response {
    answer::<MessagesRequest>(app, request).await
}

pub(super) async fn count_tokens(
    State(app): State<Arc<App>>,
    Extension(visitor): Extension<Visitor>,
    request: Request,
) -> Result<Response, ApiError> {
    computed(&app, request, move |app, body, room| count(app, body, &visitor, &room)).await
}

fn count(app: &App, body: &[u8], visitor: &Visitor, room: &Room<'_>) -> Result<Vec<u8>, ApiError> {
    let request = CountRequest::parse(body)?;
    app.model_named(request.model.as_deref(), visitor)?;
    let (prompt, specials) = conversation_text(&request.conversation, &app.model, room).map_err(of_all_messages)?;
    let tokens = room.text(&app.model, &app.model.chat(&prompt), specials, TOKENS_MAX)?;
    Ok(counted(tokens.len()))
}

impl Endpoint for MessagesRequest {
    const ID_PREFIX: &'static str = "msg_";

    fn parse(body: &[u8], limits: &Limits) -> Result<MessagesRequest, ApiError> {
        MessagesRequest::parse(body, limits)
    }

    fn generation(&self) -> &Generation {
        &self.generation
    }

    fn prompts_count(&self) -> usize {
        1
    }

    fn prompts(&self, model: &ModelText, room: &Room<'_>) -> Result<Vec<Tokenized>, ApiError> {
        tokenized(&self.conversation, &self.generation, model, room).map(|prompt| vec![prompt]).map_err(of_all_messages)
    }

    /// Every request names a length.
    fn unnamed_length(_: &App, share: u32) -> UnnamedLength {
        UnnamedLength { configured: None, default: None, share }
    }

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form {
        Form::new(MessagesAnswer::new(head, self.max_tokens), prompts, &self.generation)
    }
}

/// Makes an error about one turn one about all messages: the client counts its messages differently.
fn of_all_messages(error: ApiError) -> ApiError {
    match &error.param {
        Some(place) if place.starts_with("messages[") => {
            let message = error.message.replacen(place.as_str(), "messages", 1);
            ApiError { param: Some("messages".to_owned()), message, ..error }
        }
        Some(_) | None => error,
    }
}
