//! What chat and text completions share: from a request's bytes to the stream of its answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use sched::{Failure, FailureKind, TokenId};

use super::form::Form;
use super::request_id::RequestName;
use super::{App, body, reply};
use crate::admission::Permit;
use crate::clock::unix_seconds;
use crate::dispatch::Job;
use crate::exchange::{Exchange, ExchangeParts, Turn};
use crate::metrics::Account;
use crate::openai::{ApiError, Choice, Delivery, Generation, Head, Limits, UsageChunk, sse};
use crate::text::ModelText;

/// Names the latency class where the body does not.
const CLASS_HEADER: &str = "x-baton-slo-class";

/// An endpoint that generates text.
pub(super) trait Endpoint: Sized + Send + 'static {
    /// What its answers' names begin with.
    const ID_PREFIX: &'static str;

    fn parse(body: &[u8], limits: &Limits) -> Result<Self, ApiError>;

    fn generation(&self) -> &Generation;

    /// The prompts as tokens.
    fn prompts(&self, model: &ModelText) -> Result<Vec<Tokenized>, ApiError>;

    /// Answer tokens where the client names no number; `None` is all that the context has left.
    fn max_tokens_default(app: &App) -> Option<u32>;

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form;
}

/// A prompt in both forms.
#[derive(Debug, Clone)]
pub(super) struct Tokenized {
    pub(super) tokens: Arc<[TokenId]>,
    /// The text that the answer begins with.
    pub(super) echo: String,
}

/// A request that can be handed to the workers.
struct Prepared {
    generation: Generation,
    jobs: Vec<Job>,
    form: Form,
}

/// Answers one request.
pub(super) async fn answer<E: Endpoint>(app: Arc<App>, request: Request) -> Response {
    let mut account = match open_account(&app, &request) {
        Ok(account) => account,
        Err(error) => return error.into_response(),
    };
    match prepare::<E>(&app, request, &mut account).await {
        Ok((prepared, permit)) => respond(&app, prepared, permit, account).await,
        Err(error) => {
            account.failed(&error);
            error.into_response()
        }
    }
}

fn open_account(app: &App, request: &Request) -> Result<Account, ApiError> {
    let name = request.extensions().get::<RequestName>().map(|name| name.0.clone()).unwrap_or_default();
    // The header counts from the first gate on. One that names no class is refused later, if the body names none either.
    let named = class_of(request);
    let slo = app.config.slo.resolve(named.as_deref()).or_else(|_| app.config.slo.resolve(None))?;
    Ok(Account::open(&app.metrics, app.clock, &app.config.slo, slo, name))
}

/// The latency class that the header names.
fn class_of(request: &Request) -> Option<String> {
    request.headers().get(CLASS_HEADER).map(|class| String::from_utf8_lossy(class.as_bytes()).into_owned())
}

/// Admits, reads, parses and tokenises.
async fn prepare<E: Endpoint>(
    app: &Arc<App>,
    request: Request,
    account: &mut Account,
) -> Result<(Prepared, Permit), ApiError> {
    let bytes = body::announced(request.headers(), &app.config.limits)?;
    let permit = app.admission.enter(bytes)?;
    let class = class_of(&request);
    let body = body::read(request.into_body(), &app.config.limits).await?;
    let prepared = blocking(app, move |app| prepare_parsed::<E>(app, &body, class.as_deref())).await??;
    let prompt_tokens = prepared.jobs.iter().map(|job| job.prompt.len() as u64).sum();
    if let Some(job) = prepared.jobs.first() {
        account.parsed(job.slo, prompt_tokens);
    }
    Ok((prepared, permit))
}

/// Runs heavy work off the threads that serve connections, on no more threads than there are cores.
pub(super) async fn blocking<T: Send + 'static>(
    app: &Arc<App>,
    work: impl FnOnce(&App) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let internal = |what: String| ApiError::from(Failure::new(FailureKind::Internal, what));
    let turn = app.tokenizing.acquire().await.map_err(|error| internal(error.to_string()))?;
    let shared = Arc::clone(app);
    let done = tokio::task::spawn_blocking(move || work(&shared)).await;
    drop(turn);
    done.map_err(|error| internal(format!("tokenising failed: {error}")))
}

fn prepare_parsed<E: Endpoint>(app: &App, body: &[u8], class: Option<&str>) -> Result<Prepared, ApiError> {
    let request = E::parse(body, &app.limits())?;
    let generation = request.generation().clone();
    let model = app.model_named(generation.model.as_deref())?;
    let slo = app.config.slo.resolve(generation.slo_class.as_deref().or(class))?;
    let prompts = request.prompts(&app.model)?;
    let jobs = prompts
        .iter()
        .map(|prompt| {
            let default = E::max_tokens_default(app);
            let seed = app.dispatcher.seed();
            let params = generation.resolve(&app.model, app.context_tokens(), prompt.tokens.len(), default, seed)?;
            let prompt = Arc::clone(&prompt.tokens);
            Ok(Job { prompt, choices: generation.n, params: params.into(), slo })
        })
        .collect::<Result<Vec<Job>, ApiError>>()?;
    let head = Head { id: app.answer_id(E::ID_PREFIX), created: unix_seconds(), model };
    let form = request.form(head, prompts);
    Ok(Prepared { generation, jobs, form })
}

async fn respond(app: &App, prepared: Prepared, permit: Permit, account: Account) -> Response {
    let Prepared { generation, jobs, form } = prepared;
    let exchange = Exchange::begin(ExchangeParts {
        tokenizer: &app.model.tokenizer,
        dispatcher: &app.dispatcher,
        generation: &generation,
        jobs,
        unread_batches_max: app.config.limits.unread_batches_max,
        account,
        permit,
    });
    match generation.delivery {
        Delivery::Whole => whole(exchange, &form, generation.n).await,
        Delivery::Stream(usage) => stream(exchange, form, generation.n, usage).await,
    }
}

async fn whole(mut exchange: Exchange, form: &Form, n: u32) -> Response {
    let mut choices = vec![Choice::default(); form.choices(n)];
    loop {
        match exchange.next().await {
            Turn::Deltas(deltas) => {
                for delta in deltas {
                    if let Some(choice) = choices.get_mut(delta.index as usize) {
                        choice.extend(delta);
                    }
                }
            }
            Turn::Done(usage) => return reply::json(form.whole(choices, n, usage)),
            Turn::Failed(error) => return error.into_response(),
        }
    }
}

/// Waits for the first token before it commits to a status: what fails until then gets a proper one.
async fn stream(mut exchange: Exchange, form: Form, n: u32, usage: UsageChunk) -> Response {
    let first = match exchange.next().await {
        Turn::Failed(error) => return error.into_response(),
        turn @ (Turn::Deltas(_) | Turn::Done(_)) => turn,
    };
    let mut opening = Vec::new();
    form.open(n, &mut opening);
    let state = Streaming { exchange, form, usage, next: Next::Write(opening, first) };
    let chunks = unfold(state, |mut state| async move {
        let bytes = state.chunk().await?;
        Some((Ok::<Bytes, Infallible>(bytes), state))
    });
    reply::events(Body::from_stream(chunks))
}

/// A stream in progress. Dropping it drops the exchange, which cancels the request.
struct Streaming {
    exchange: Exchange,
    form: Form,
    usage: UsageChunk,
    next: Next,
}

enum Next {
    /// These bytes and this turn are there already.
    Write(Vec<u8>, Turn),
    /// Ask the exchange.
    Ask,
    /// Everything has been written.
    Nothing,
}

impl Streaming {
    /// The next bytes; `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let (mut out, turn) = match std::mem::replace(&mut self.next, Next::Ask) {
            Next::Write(out, turn) => (out, turn),
            Next::Ask => (Vec::new(), self.exchange.next().await),
            Next::Nothing => return None,
        };
        match turn {
            Turn::Deltas(deltas) => {
                for delta in &deltas {
                    self.form.delta(delta, &mut out);
                }
            }
            Turn::Done(usage) => {
                if self.usage == UsageChunk::Include {
                    self.form.usage(usage, &mut out);
                }
                out.extend_from_slice(sse::DONE);
                self.next = Next::Nothing;
            }
            Turn::Failed(error) => {
                sse::error(&error, &mut out);
                self.next = Next::Nothing;
            }
        }
        Some(out.into())
    }
}
