//! Items of an answer: thoughts, messages and calls in the order in which the model said them; knows no event.

use super::super::logprobs::chat_tokens;
use super::super::{Choice, TokenLogprob};
use super::asked::Shown;
use super::wire::{self, Part, Status};
use crate::model_output::CallStart;

/// Item of an answer.
#[derive(Debug, Clone)]
pub(super) struct Item {
    pub(super) id: String,
    pub(super) kind: Kind,
    /// Text of the thoughts or of the message, or arguments of the call.
    pub(super) text: String,
    /// Log-probabilities of a message, where the client wants them.
    pub(super) logprobs: Vec<TokenLogprob>,
    pub(super) status: Status,
}

/// Kind of an item.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Kind {
    Thoughts(Shown),
    Message,
    Call { call_id: String, name: String },
}

impl Kind {
    pub(super) fn of_call(start: &CallStart) -> Kind {
        Kind::Call { call_id: start.id.clone(), name: start.name.clone() }
    }

    const fn prefix(&self) -> &'static str {
        match self {
            Kind::Thoughts(_) => "rs",
            Kind::Message => "msg",
            Kind::Call { .. } => "fc",
        }
    }
}

impl Item {
    /// Begins item `index` of the answer `answer_id`, from which its name comes.
    pub(super) fn begin(kind: Kind, answer_id: &str, index: usize) -> Item {
        let answer = answer_id.strip_prefix(super::answer::ID_PREFIX).unwrap_or(answer_id);
        let id = format!("{}_{answer}{index:04x}", kind.prefix());
        Item { id, kind, text: String::new(), logprobs: Vec::new(), status: Status::InProgress }
    }

    /// Returns its one part, if it has parts.
    pub(super) fn part(&self) -> Option<Part<'_>> {
        match self.kind {
            Kind::Thoughts(Shown::Content) => Some(Part::Reasoning { text: &self.text }),
            Kind::Thoughts(Shown::Summary) => Some(Part::Summary { text: &self.text }),
            Kind::Message => {
                Some(Part::Output { text: &self.text, annotations: [], logprobs: chat_tokens(&self.logprobs) })
            }
            Kind::Call { .. } => None,
        }
    }

    /// Returns its JSON; an item in progress has no parts yet.
    pub(super) fn wire(&self) -> wire::Item<'_> {
        let parts = || self.part().into_iter().filter(|_| self.status != Status::InProgress).collect();
        let (id, status) = (self.id.as_str(), self.status);
        match &self.kind {
            Kind::Thoughts(Shown::Content) => {
                wire::Item::Reasoning { id, summary: Vec::new(), content: Some(parts()), status }
            }
            Kind::Thoughts(Shown::Summary) => wire::Item::Reasoning { id, summary: parts(), content: None, status },
            Kind::Message => wire::Item::Message { id, status, role: "assistant", content: parts() },
            Kind::Call { call_id, name } => {
                wire::Item::FunctionCall { id, status, call_id, name, arguments: &self.text }
            }
        }
    }
}

/// Returns the items of a whole choice.
pub(super) fn items(choice: &Choice, answer_id: &str, shown: Shown, ended: Status) -> Vec<Item> {
    let mut items: Vec<Item> = Vec::new();
    let mut add = |kind: Kind, text: &str| {
        let item = Item::begin(kind, answer_id, items.len());
        items.push(Item { text: text.to_owned(), status: Status::Completed, ..item });
    };
    if !choice.reasoning.is_empty() {
        add(Kind::Thoughts(shown), &choice.reasoning);
    }
    let mut said = 0;
    for call in &choice.calls {
        let before = choice.text.get(said..call.start.content_before).unwrap_or_default();
        if !before.is_empty() {
            add(Kind::Message, before);
            said = call.start.content_before;
        }
        add(Kind::of_call(&call.start), &call.arguments);
    }
    let rest = choice.text.get(said..).unwrap_or_default();
    let is_silent = choice.reasoning.is_empty() && choice.calls.is_empty();
    if !rest.is_empty() || is_silent {
        add(Kind::Message, rest);
    }
    if let Some(last) = items.last_mut() {
        last.status = ended;
    }
    // Log-probabilities go with answers that cannot call, which have one message at most.
    if let Some(message) = items.iter_mut().find(|item| item.kind == Kind::Message) {
        message.logprobs.clone_from(&choice.logprobs);
    }
    items
}
