//! What chat and text completions share: from a request's bytes to the stream of its answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use sched::{Failure, FailureKind, TokenId};

use super::arrival::{Arrival, class_of};
use super::form::Form;
use super::room::Room;
use super::work::work;
use super::{App, body, reply};
use crate::admission::Permit;
use crate::clock::unix_seconds;
use crate::dispatch::Job;
use crate::exchange::{Exchange, ExchangeParts, Turn};
use crate::metrics::Account;
use crate::openai::{ApiError, Choice, Delivery, Delta, Generation, Head, Limits, Usage, UsageChunk, sse};
use crate::text::ModelText;

/// An answer up to this size is put together at once, a larger one where it holds nobody up.
const SMALL_ANSWER_BYTES: usize = 64 << 10;

/// An endpoint that generates text.
pub(super) trait Endpoint: Sized + Send + 'static {
    /// What its answers' names begin with.
    const ID_PREFIX: &'static str;

    fn parse(body: &[u8], limits: &Limits) -> Result<Self, ApiError>;

    fn generation(&self) -> &Generation;

    /// How many prompts there are.
    fn prompts_count(&self) -> usize;

    /// The prompts as tokens.
    fn prompts(&self, model: &ModelText, room: &Room<'_>) -> Result<Vec<Tokenized>, ApiError>;

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
    let Some(mut account) = request.extensions().get::<Arrival>().and_then(Arrival::account) else {
        return ApiError::from(Failure::new(FailureKind::Internal, "the request has no account")).into_response();
    };
    match prepare::<E>(&app, request, &mut account).await {
        Ok((prepared, permit)) => respond(&app, prepared, permit, account).await,
        Err(error) => {
            account.failed(&error);
            error.into_response()
        }
    }
}

/// Receives, admits, parses and tokenises.
async fn prepare<E: Endpoint>(
    app: &Arc<App>,
    request: Request,
    account: &mut Account,
) -> Result<(Prepared, Permit), ApiError> {
    let class = class_of(&request);
    let (body, permit) = body::receive(app, request).await?;
    let task = move |app: &App, room: Room<'_>| prepare_parsed::<E>(app, &body, class.as_deref(), &room);
    let bytes = permit.body_bytes();
    let (prepared, mut permit) = work(app, bytes, permit, task).await?;
    permit.body_done();
    let prepared = prepared?;
    let prompt_tokens = prepared.jobs.iter().map(|job| job.prompt.len() as u64).sum();
    if let Some(job) = prepared.jobs.first() {
        account.parsed(job.slo, prompt_tokens);
    }
    Ok((prepared, permit))
}

fn prepare_parsed<E: Endpoint>(
    app: &App,
    body: &[u8],
    class: Option<&str>,
    room: &Room<'_>,
) -> Result<Prepared, ApiError> {
    let request = E::parse(body, &app.limits())?;
    let generation = request.generation().clone();
    let model = app.model_named(generation.model.as_deref())?;
    let slo = app.config.slo.resolve(generation.slo_class.as_deref().or(class))?;
    let default = output_default::<E>(app, &generation, request.prompts_count(), room.context_tokens)?;
    let prompts = request.prompts(&app.model, room)?;
    let jobs = prompts
        .iter()
        .map(|prompt| {
            let seed = app.dispatcher.seed();
            let params = generation.resolve(&app.model, room.context_tokens, prompt.tokens.len(), default, seed)?;
            let prompt = Arc::clone(&prompt.tokens);
            Ok(Job { prompt, choices: generation.n, params: params.into(), slo })
        })
        .collect::<Result<Vec<Job>, ApiError>>()?;
    let head = Head { id: app.answer_id(E::ID_PREFIX), created: unix_seconds(), model };
    let form = request.form(head, prompts);
    Ok(Prepared { generation, jobs, form })
}

/// Answer tokens of a choice where the client names no number, such that all choices stay within what one request may ask
/// for.
fn output_default<E: Endpoint>(
    app: &App,
    generation: &Generation,
    prompts: usize,
    context_tokens: u32,
) -> Result<Option<u32>, ApiError> {
    let default = E::max_tokens_default(app);
    let choices = prompts as u64 * u64::from(generation.n);
    let tokens_max = app.config.limits.output_tokens_max.max(context_tokens.into());
    let share = u32::try_from(tokens_max / choices.max(1)).unwrap_or(u32::MAX);
    match generation.max_tokens {
        Some(asked) if choices > 1 && asked > share => {
            let message = format!(
                "{choices} choices of up to {asked} tokens are more than the {tokens_max} tokens that one request may ask \
                 for: send several requests or lower n or max_tokens"
            );
            Err(ApiError::invalid("max_tokens", message))
        }
        Some(_) | None if choices <= 1 => Ok(default),
        Some(_) | None => Ok(Some(default.unwrap_or(u32::MAX).min(share.max(1)))),
    }
}

async fn respond(app: &Arc<App>, prepared: Prepared, permit: Permit, account: Account) -> Response {
    let Prepared { generation, jobs, form } = prepared;
    let exchange = Exchange::begin(ExchangeParts {
        tokenizer: &app.model.tokenizer,
        dispatcher: &app.dispatcher,
        generation: &generation,
        jobs,
        limits: &app.config.limits,
        account,
        permit,
    });
    match generation.delivery {
        Delivery::Whole => whole(app, exchange, form, generation.n).await,
        Delivery::Stream(usage) => stream(exchange, form, generation.n, usage).await,
    }
}

async fn whole(app: &Arc<App>, mut exchange: Exchange, form: Form, n: u32) -> Response {
    let mut choices = vec![Choice::default(); form.choices(n)];
    let mut bytes = 0;
    loop {
        match exchange.next().await {
            Turn::Deltas(deltas) => {
                let more: usize = deltas.iter().map(Delta::json_bytes).sum();
                bytes += more;
                if let Err(error) = exchange.hold(more) {
                    return error.into_response();
                }
                for delta in deltas {
                    if let Some(choice) = choices.get_mut(delta.index as usize) {
                        choice.extend(delta);
                    }
                }
            }
            Turn::Done(usage) => return written(app, bytes, exchange.into_permit(), form, choices, n, usage).await,
            Turn::Failed(error) => return error.into_response(),
        }
    }
}

/// The whole answer as JSON; its place inside is given back when the client has taken it.
async fn written(
    app: &Arc<App>,
    bytes: usize,
    permit: Option<Permit>,
    form: Form,
    choices: Vec<Choice>,
    n: u32,
    usage: Usage,
) -> Response {
    if bytes <= SMALL_ANSWER_BYTES {
        return reply::json_keeping(form.whole(choices, n, usage), permit);
    }
    match work(app, bytes, permit, move |_, _| form.whole(choices, n, usage)).await {
        Ok((body, permit)) => reply::json_keeping(body, permit),
        Err(error) => error.into_response(),
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
