//! `POST /v1/responses`: the answer, whole or as a stream of events; knows no request.

use std::sync::Arc;

use sched::FinishReason;

use super::super::logprobs::chat_tokens;
use super::super::{AnswerForm, ApiError, Choice, Delta, Head, Repeated, TokenLogprob, Usage, sse};
use super::asked::{Asked, Shown};
use super::output::{Item, Kind, items};
use super::wire::{Cut, ErrorEvent, Event, Failed, Response, Status};

/// Prefix of the names of answers.
pub(super) const ID_PREFIX: &str = "resp_";

/// How often what is repeated of the request is there at a time: kept, and in the first two events.
const ASKED_COPIES: usize = 3;
/// How often what was said is there at a time: kept, and in the three events that end an item.
const SAID_COPIES: usize = 4;

/// Writes one answer. A stream keeps all that was said, because its last events repeat it.
#[derive(Debug, Clone)]
pub struct ResponseAnswer {
    head: Head,
    asked: Arc<Asked>,
    shown: Shown,
    /// Events so far.
    events: u64,
    /// Items so far; the last may be in progress.
    items: Vec<Item>,
    /// Log-probabilities whose text is not certain yet.
    logprobs: Vec<TokenLogprob>,
    finish: Option<FinishReason>,
}

impl ResponseAnswer {
    /// Prefix of the names of answers.
    pub const ID_PREFIX: &'static str = ID_PREFIX;

    /// Starts an answer.
    pub(super) fn new(head: Head, asked: Arc<Asked>, shown: Shown) -> ResponseAnswer {
        let (items, logprobs) = (Vec::new(), Vec::new());
        ResponseAnswer { head, asked, shown, events: 0, items, logprobs, finish: None }
    }

    fn response<'a>(&'a self, status: Status, items: &'a [Item], usage: Option<Usage>) -> Response<'a> {
        let cut = (status == Status::Incomplete).then_some(Cut { reason: "max_output_tokens" });
        Response {
            id: &self.head.id,
            object: "response",
            created_at: self.head.created,
            status,
            error: None,
            incomplete_details: cut,
            model: &self.head.model,
            output: items.iter().map(Item::wire).collect(),
            usage: usage.map(Into::into),
            service_tier: self.head.service_tier.unwrap_or("default"),
            asked: &self.asked,
        }
    }

    /// Appends an event about the whole answer.
    fn about_all(&mut self, kind: &'static str, status: Status, usage: Option<Usage>, out: &mut Vec<u8>) {
        let mut events = self.events;
        let response = Some(self.response(status, &self.items, usage));
        send(&mut events, Event { response, ..Event::of(kind) }, out);
        self.events = events;
    }

    /// Adds to the item in progress, or begins another if that is of another kind.
    fn say(&mut self, kind: Kind, text: &str, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let goes_on = self.items.last().is_some_and(|item| item.kind == kind);
        if !goes_on {
            self.begin(kind, out);
        }
        self.add(text, out);
    }

    fn begin(&mut self, kind: Kind, out: &mut Vec<u8>) {
        self.end_item(Status::Completed, out);
        let index = self.items.len();
        let item = Item::begin(kind, &self.head.id, index);
        let added = Event { output_index: Some(index), item: Some(item.wire()), ..Event::of(ITEM_ADDED) };
        send(&mut self.events, added, out);
        if let (Some(kind), Some(part)) = (part_added(&item.kind), item.part()) {
            send(&mut self.events, Event { part: Some(part), ..Event::within(kind, &item, index) }, out);
        }
        self.items.push(item);
    }

    /// Adds to the item in progress.
    fn add(&mut self, text: &str, out: &mut Vec<u8>) {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut() else { return };
        let logprobs = if item.kind == Kind::Message {
            let new = std::mem::take(&mut self.logprobs);
            let sent = chat_tokens(&new);
            item.logprobs.extend(new);
            Some(sent)
        } else {
            None
        };
        let delta = Event { delta: Some(text), logprobs, ..Event::within(more(&item.kind), item, index) };
        send(&mut self.events, delta, out);
        item.text.push_str(text);
    }

    /// Ends the item in progress, if there is one.
    fn end_item(&mut self, status: Status, out: &mut Vec<u8>) {
        let index = self.items.len().saturating_sub(1);
        let Some(item) = self.items.last_mut().filter(|item| item.status == Status::InProgress) else { return };
        item.status = status;
        if item.kind == Kind::Message {
            item.logprobs.append(&mut self.logprobs);
        }
        let item = &*item;
        let within = |kind| Event::within(kind, item, index);
        let done = match &item.kind {
            Kind::Thoughts(Shown::Content) => {
                Event { text: Some(&item.text), ..within("response.reasoning_text.done") }
            }
            Kind::Thoughts(Shown::Summary) => {
                Event { text: Some(&item.text), ..within("response.reasoning_summary_text.done") }
            }
            Kind::Message => {
                let logprobs = Some(chat_tokens(&item.logprobs));
                Event { text: Some(&item.text), logprobs, ..within("response.output_text.done") }
            }
            Kind::Call { name, .. } => Event {
                name: Some(name),
                arguments: Some(&item.text),
                ..within("response.function_call_arguments.done")
            },
        };
        send(&mut self.events, done, out);
        if let (Some(kind), Some(part)) = (part_done(&item.kind), item.part()) {
            send(&mut self.events, Event { part: Some(part), ..within(kind) }, out);
        }
        let done = Event { output_index: Some(index), item: Some(item.wire()), ..Event::of(ITEM_DONE) };
        send(&mut self.events, done, out);
    }
}

impl AnswerForm for ResponseAnswer {
    fn open(&mut self, _: u32, _: Repeated<'_>, _: Option<Usage>, out: &mut Vec<u8>) {
        self.about_all("response.created", Status::InProgress, None, out);
        self.about_all("response.in_progress", Status::InProgress, None, out);
    }

    /// Appends events for each part of the delta, in the order in which the model said them.
    fn delta(&mut self, delta: &Delta, _: Option<Usage>, out: &mut Vec<u8>) {
        self.logprobs.extend_from_slice(&delta.logprobs);
        self.say(Kind::Thoughts(self.shown), &delta.reasoning, out);
        let mut said = 0;
        for piece in &delta.calls {
            if let Some(start) = &piece.start {
                self.say(Kind::Message, delta.text.get(said..start.content_before).unwrap_or_default(), out);
                said = start.content_before;
                self.begin(Kind::of_call(start), out);
            }
            if !piece.arguments.is_empty() {
                self.add(&piece.arguments, out);
            }
        }
        self.say(Kind::Message, delta.text.get(said..).unwrap_or_default(), out);
        if delta.finish.is_some() {
            self.finish = delta.finish;
            if self.items.is_empty() {
                self.begin(Kind::Message, out);
            }
            self.end_item(status(self.finish), out);
        }
    }

    fn end(&mut self, usage: Option<Usage>, out: &mut Vec<u8>) {
        let (kind, status) = match status(self.finish) {
            Status::Incomplete => ("response.incomplete", Status::Incomplete),
            Status::Completed | Status::InProgress | Status::Failed => ("response.completed", Status::Completed),
        };
        self.about_all(kind, status, usage, out);
    }

    /// Appends the error, on which clients raise an exception, and the failed response, which others look for.
    fn fail(&mut self, error: &ApiError, out: &mut Vec<u8>) {
        if let Some(item) = self.items.last_mut().filter(|item| item.status == Status::InProgress) {
            item.status = Status::Incomplete;
        }
        sse::named_event("error", &ErrorEvent::of(error, self.events), out);
        let mut events = self.events + 1;
        let response = self.response(Status::Failed, &self.items, None);
        let response = Some(Response { error: Some(Failed::of(error)), ..response });
        send(&mut events, Event { response, ..Event::of("response.failed") }, out);
        self.events = events;
    }

    fn whole(&self, choices: &[(&Choice, Repeated<'_>)], usage: Usage) -> Vec<u8> {
        let choice = choices.first().map(|(choice, _)| *choice);
        let status = status(choice.and_then(|choice| choice.finish));
        let items = choice.map(|choice| items(choice, &self.head.id, self.shown, status)).unwrap_or_default();
        sse::json(&self.response(status, &items, Some(usage)))
    }

    fn repeats(&self, _: usize) -> usize {
        1
    }

    fn asked_bytes(&self) -> usize {
        ASKED_COPIES * self.asked.json_bytes()
    }

    fn kept_bytes(&self, delta: &Delta) -> usize {
        SAID_COPIES * delta.json_bytes()
    }
}

const ITEM_ADDED: &str = "response.output_item.added";
const ITEM_DONE: &str = "response.output_item.done";

/// Appends an event with the next number.
fn send(events: &mut u64, event: Event<'_>, out: &mut Vec<u8>) {
    let kind = event.kind;
    sse::named_event(kind, &Event { sequence_number: *events, ..event }, out);
    *events += 1;
}

impl<'a> Event<'a> {
    fn of(kind: &'static str) -> Event<'a> {
        Event { kind, ..Event::default() }
    }

    /// Event inside an item.
    fn within(kind: &'static str, item: &'a Item, index: usize) -> Event<'a> {
        let (content, summary) = match item.kind {
            Kind::Thoughts(Shown::Content) | Kind::Message => (Some(0), None),
            Kind::Thoughts(Shown::Summary) => (None, Some(0)),
            Kind::Call { .. } => (None, None),
        };
        Event {
            item_id: Some(&item.id),
            output_index: Some(index),
            content_index: content,
            summary_index: summary,
            ..Event::of(kind)
        }
    }
}

const fn more(kind: &Kind) -> &'static str {
    match kind {
        Kind::Thoughts(Shown::Content) => "response.reasoning_text.delta",
        Kind::Thoughts(Shown::Summary) => "response.reasoning_summary_text.delta",
        Kind::Message => "response.output_text.delta",
        Kind::Call { .. } => "response.function_call_arguments.delta",
    }
}

const fn part_added(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Thoughts(Shown::Content) | Kind::Message => Some("response.content_part.added"),
        Kind::Thoughts(Shown::Summary) => Some("response.reasoning_summary_part.added"),
        Kind::Call { .. } => None,
    }
}

const fn part_done(kind: &Kind) -> Option<&'static str> {
    match kind {
        Kind::Thoughts(Shown::Content) | Kind::Message => Some("response.content_part.done"),
        Kind::Thoughts(Shown::Summary) => Some("response.reasoning_summary_part.done"),
        Kind::Call { .. } => None,
    }
}

/// Status of an answer that has ended, and of its last item.
const fn status(finish: Option<FinishReason>) -> Status {
    match finish {
        Some(FinishReason::Length) => Status::Incomplete,
        Some(FinishReason::Stop) | None => Status::Completed,
    }
}
