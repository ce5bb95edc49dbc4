//! Common part of chat and text completions: from a request's bytes to the stream of its answer.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use futures_util::stream::unfold;
use sched::{Failure, FailureKind, SamplingParams, TokenId};

use super::arrival::{Arrival, class_of, visitor_of};
use super::form::Form;
use super::room::Room;
use super::work::work;
use super::{App, body, reply};
use crate::admission::Permit;
use crate::clock::unix_seconds;
use crate::dispatch::Job;
use crate::exchange::{Exchange, ExchangeParts, Turn};
use crate::keys::Visitor;
use crate::metrics::Account;
use crate::model_output::Reading;
use crate::openai::{
    ApiError, Choice, Delivery, Delta, Generation, Head, Limits, UnnamedLength, Usage, UsageChunk, Wanted,
};
use crate::text::ModelText;

/// Largest answer that is written on the connection's thread; a larger one would hold up others.
const SMALL_ANSWER_BYTES: usize = 64 << 10;
/// Bytes of a grammar: large schemas have some tens of thousands.
const GRAMMAR_BYTES_MAX: usize = 256 << 10;
/// Approximate size of the pieces in which the starts of a stream's choices are sent.
const OPENING_BYTES: usize = 16 << 10;

pub(super) trait Endpoint: Sized + Send + 'static {
    /// Prefix of the names of its answers, with what separates it from the rest.
    const ID_PREFIX: &'static str;

    fn parse(body: &[u8], limits: &Limits) -> Result<Self, ApiError>;

    fn generation(&self) -> &Generation;

    /// Number of prompts.
    fn prompts_count(&self) -> usize;

    /// Returns the prompts as tokens.
    fn prompts(&self, model: &ModelText, room: &Room<'_>) -> Result<Vec<Tokenized>, ApiError>;

    /// Returns the answer tokens of a choice for which the client sets no number; at most `share`.
    fn unnamed_length(app: &App, share: u32) -> UnnamedLength;

    fn form(&self, head: Head, prompts: Vec<Tokenized>) -> Form;

    /// Puts an error that all endpoints share into the words of this one.
    fn reworded(error: ApiError) -> ApiError {
        error
    }
}

/// Prompt as tokens, and as text where it is echoed.
#[derive(Debug, Clone)]
pub(super) struct Tokenized {
    pub(super) tokens: Arc<[TokenId]>,
    /// Text with which the answer begins.
    pub(super) echo: String,
    /// How the answer is taken apart, if it may have more than text.
    pub(super) reading: Option<Arc<Reading>>,
    /// Grammar of the answer, if it must follow one.
    pub(super) structure: Option<Wanted>,
}

impl Tokenized {
    /// Bytes kept until the request has ended.
    fn bytes(&self) -> usize {
        let reading = self.reading.as_ref().map_or(0, |reading| reading.bytes());
        let structure = self.structure.as_ref().map_or(0, |wanted| wanted.grammar.len());
        size_of_val::<[TokenId]>(&self.tokens) + self.echo.len() + reading + structure
    }
}

struct Prepared {
    generation: Generation,
    jobs: Vec<Job>,
    reading: Option<Arc<Reading>>,
    /// Texts that are echoed with log-probabilities, one per prompt; empty if none are.
    echoes: Vec<String>,
    form: Form,
    prompt_bytes: usize,
    /// Bytes of the answer before any token.
    repeated_bytes: usize,
}

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

async fn prepare<E: Endpoint>(
    app: &Arc<App>,
    request: Request,
    account: &mut Account,
) -> Result<(Prepared, Permit), ApiError> {
    let (class, visitor) = (class_of(&request), visitor_of(&request));
    let (body, permit) = body::receive(app, request).await?;
    let task = move |app: &App, room: Room<'_>| prepare_parsed::<E>(app, &body, (class.as_deref(), &visitor), &room);
    let bytes = permit.body_bytes();
    let (prepared, mut permit) = work(app, bytes, permit, task).await?;
    let prepared = prepared.map_err(E::reworded)?;
    permit.body_became(prepared.prompt_bytes);
    permit.grow_answer(prepared.repeated_bytes)?;
    let prompt_tokens = prepared.jobs.iter().map(|job| job.prompt.len() as u64).sum();
    if let Some(job) = prepared.jobs.first() {
        let choices = prepared.jobs.iter().map(|job| u64::from(job.choices)).sum();
        account.parsed(job.slo, prompt_tokens, choices);
    }
    Ok((prepared, permit))
}

fn prepare_parsed<E: Endpoint>(
    app: &App,
    body: &[u8],
    (class, visitor): (Option<&str>, &Visitor),
    room: &Room<'_>,
) -> Result<Prepared, ApiError> {
    let request = E::parse(body, &app.limits())?;
    let mut generation = request.generation().clone();
    let model = app.model_named(generation.model.as_deref(), visitor)?;
    let slo = app.config.slo.resolve(generation.slo_class.as_deref().or(class))?;
    let share = output_share(app, &generation, request.prompts_count(), room.context_tokens)?;
    let unnamed = E::unnamed_length(app, share);
    let mut prompts = request.prompts(&app.model, room)?;
    let reading = prompts.first().and_then(|prompt| prompt.reading.clone());
    if let Some(structure) = prompts.first().and_then(|prompt| prompt.structure.clone()) {
        generation.structure = Some(structure);
    }
    if let Some(wanted) = &generation.structure {
        check_structure(&app.model, wanted, room)?;
    }
    let bad_words = room.bad_words(&app.model, &generation.bad_words)?;
    let jobs = prompts
        .iter()
        .map(|prompt| {
            let seed = app.dispatcher.seed();
            let params = generation.resolve(&app.model, room.context_tokens, prompt.tokens.len(), unnamed, seed)?;
            let params = SamplingParams { bad_words: bad_words.clone(), ..params };
            let prompt = Arc::clone(&prompt.tokens);
            Ok(Job { prompt, choices: generation.candidates, params: params.into(), slo })
        })
        .collect::<Result<Vec<Job>, ApiError>>()?;
    let report = generation.prompt_report;
    room.answer(prompts.iter().map(|prompt| report.json_bytes(prompt.tokens.len(), generation.candidates)).sum())?;
    let prompt_bytes = prompts.iter().map(Tokenized::bytes).sum();
    // Such an echo goes with its log-probabilities, not before them.
    let echoes = report.echoed.map(|_| prompts.iter_mut().map(|prompt| std::mem::take(&mut prompt.echo)).collect());
    let service_tier = generation.service_tier;
    let head = Head { id: app.answer_id(E::ID_PREFIX), created: unix_seconds(), model, service_tier };
    let form = request.form(head, prompts);
    let repeated_bytes = form.repeated_bytes(generation.delivery);
    Ok(Prepared { generation, jobs, reading, echoes: echoes.unwrap_or_default(), form, prompt_bytes, repeated_bytes })
}

/// Fails if no worker could follow the grammar of the answer.
pub(super) fn check_structure(model: &ModelText, wanted: &Wanted, room: &Room<'_>) -> Result<(), ApiError> {
    let Wanted { field, grammar } = wanted;
    if grammar.len() > GRAMMAR_BYTES_MAX {
        let message = format!("{field} makes a grammar of more than {GRAMMAR_BYTES_MAX} bytes");
        return Err(ApiError::invalid(field, message));
    }
    if model.end_tokens.is_empty() {
        let message = format!("{field} needs a token that ends an answer, and this model's files name none");
        return Err(ApiError::invalid(field, message));
    }
    room.look()?;
    model
        .grammars
        .check(grammar, model.tokenizer.pieces())
        .map_err(|error| ApiError::invalid(field, format!("{field} cannot be used: {error}")))
}

/// Returns the share of a choice in the tokens that one request may ask for. Fails if the client's number asks for more
/// with all choices together.
fn output_share(app: &App, generation: &Generation, prompts: usize, context_tokens: u32) -> Result<u32, ApiError> {
    let choices = prompts as u64 * u64::from(generation.candidates);
    let tokens_max = app.config.limits.output_tokens_max.max(context_tokens.into());
    let share = u32::try_from(tokens_max / choices.max(1)).unwrap_or(u32::MAX).max(1);
    match generation.max_tokens {
        Some(asked) if choices > 1 && asked > share => {
            let message = format!(
                "{choices} choices of up to {asked} tokens are more than the {tokens_max} tokens that one request may ask \
                 for: send several requests or lower n or max_tokens"
            );
            Err(ApiError::invalid("max_tokens", message))
        }
        Some(_) | None => Ok(share),
    }
}

async fn respond(app: &Arc<App>, prepared: Prepared, permit: Permit, account: Account) -> Response {
    let Prepared { generation, jobs, reading, echoes, form, repeated_bytes, .. } = prepared;
    let exchange = Exchange::begin(ExchangeParts {
        tokenizer: &app.model.tokenizer,
        dispatcher: &app.dispatcher,
        generation: &generation,
        jobs,
        reading,
        echoes,
        unread: &app.unread,
        account,
        permit,
    });
    match generation.delivery {
        Delivery::Whole => whole(app, exchange, form, repeated_bytes).await,
        Delivery::Stream(usage) => stream(exchange, form, usage).await,
    }
}

/// Answers with one JSON object; `bytes` are held already.
async fn whole(app: &Arc<App>, mut exchange: Exchange, form: Form, mut bytes: usize) -> Response {
    let mut choices = vec![Choice::default(); form.choices()];
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
            Turn::Done(usage) => {
                let (scored, scored_bytes) = exchange.take_listed();
                let (form, choices) = form.with_scores(scored).best_of(choices);
                let bytes = bytes + scored_bytes;
                return written(app, bytes, exchange.into_permit(), form, choices, usage).await;
            }
            Turn::Failed(error) => return error.into_response(),
        }
    }
}

/// Writes the whole answer as JSON; its place inside is given back when the client has taken it.
async fn written(
    app: &Arc<App>,
    bytes: usize,
    permit: Option<Permit>,
    form: Form,
    choices: Vec<Choice>,
    usage: Usage,
) -> Response {
    if bytes <= SMALL_ANSWER_BYTES {
        return reply::json_keeping(form.whole(&choices, usage), permit);
    }
    match work(app, bytes, permit, move |_, _| form.whole(&choices, usage)).await {
        Ok((body, permit)) => reply::json_keeping(body, permit),
        Err(error) => error.into_response(),
    }
}

/// Answers with a stream. Waits for the first token, so that an earlier failure gets its proper status.
async fn stream(mut exchange: Exchange, form: Form, usage: UsageChunk) -> Response {
    let first = match exchange.next().await {
        Turn::Failed(error) => return error.into_response(),
        turn @ (Turn::Deltas(_) | Turn::Done(_)) => turn,
    };
    exchange.begins_to_answer();
    let state = Streaming { exchange, form, usage, next: Next::Open { opened: 0, turn: first } };
    let chunks = unfold(state, |mut state| async move {
        let bytes = state.chunk().await?;
        Some((Ok::<Bytes, Infallible>(bytes), state))
    });
    reply::events(Body::from_stream(chunks))
}

/// Stream in progress. Dropping it cancels the request.
struct Streaming {
    exchange: Exchange,
    form: Form,
    usage: UsageChunk,
    next: Next,
}

enum Next {
    /// The starts of `opened` choices are written; `turn` comes after all of them.
    Open { opened: usize, turn: Turn },
    /// The exchange has the next turn.
    Ask,
    /// Everything has been written.
    Nothing,
}

impl Streaming {
    /// Returns the next bytes; `None` at the end.
    async fn chunk(&mut self) -> Option<Bytes> {
        let (mut out, turn) = match std::mem::replace(&mut self.next, Next::Ask) {
            Next::Open { opened, turn } => {
                let (out, opened) = self.opening(opened);
                if opened < self.form.choices() {
                    self.next = Next::Open { opened, turn };
                    return Some(out.into());
                }
                (out, turn)
            }
            Next::Ask => (Vec::new(), self.exchange.next().await),
            Next::Nothing => return None,
        };
        match turn {
            Turn::Deltas(deltas) => match self.hold(&deltas) {
                Ok(()) => deltas.iter().for_each(|delta| self.form.delta(delta, self.usage, &mut out)),
                Err(error) => {
                    self.form.fail(&error, &mut out);
                    self.next = Next::Nothing;
                }
            },
            Turn::Done(usage) => {
                self.form.end(usage, self.usage, &mut out);
                self.next = Next::Nothing;
            }
            Turn::Failed(error) => {
                self.form.fail(&error, &mut out);
                self.next = Next::Nothing;
            }
        }
        Some(out.into())
    }

    /// Counts what the form keeps of the deltas until the end of the stream.
    fn hold(&mut self, deltas: &[Delta]) -> Result<(), ApiError> {
        match self.form.kept_bytes(deltas) {
            0 => Ok(()),
            bytes => self.exchange.hold(bytes),
        }
    }

    /// Writes the starts of the next choices, one at least but no large prompt twice; returns how many are open.
    fn opening(&mut self, mut opened: usize) -> (Vec<u8>, usize) {
        let mut out = Vec::new();
        for index in (0..).take(self.form.choices()).skip(opened) {
            self.form.open(index, self.usage, &mut out);
            opened += 1;
            if out.len() >= OPENING_BYTES {
                break;
            }
        }
        (out, opened)
    }
}
