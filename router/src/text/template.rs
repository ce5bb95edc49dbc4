//! A model's chat template: messages in, prompt text out; knows no tokenizer and no HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::continuation::continued;
use super::dialect::Dialect;
use super::effort::{Effort, Stopped};
use super::message::{Message, Role};
use super::thought_tags::thought_tags;
use super::tool::Tool;
use super::tool_dialect::Written;
use crate::jinja::{self, Origin, Rendered, Template, Value};
use crate::model_output::{Tags, ToolFormat};

/// A compiled chat template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    template: Arc<Template>,
    /// `bos_token`, `eos_token` and the like, as templates name them.
    special_tokens: Arc<BTreeMap<String, String>>,
    dialect: Dialect,
    thought_tags: Option<Tags>,
}

/// Whether the prompt ends with the words that open the model's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The prompt ends with them.
    Add,
    /// The prompt ends before them.
    Omit,
    /// The prompt ends inside the last message, which the model goes on with.
    Continue,
}

/// Part of a conversation for which a template has no place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LeftOut {
    /// Tools that the model may call.
    Tools,
    /// Calls in the message of this index.
    Calls(usize),
    /// Result of a call, in the message of this index.
    Result(usize),
}

/// What a template writes out.
struct Turns {
    messages: Vec<Value>,
    tools: Vec<Value>,
}

/// Reason why a conversation could not be made into a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template refuses the conversation, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The template cannot be compiled or fails on this conversation.
    #[error("the chat template failed: {0}")]
    Failed(jinja::Error),
    /// The template takes more steps, memory or depth for this conversation than a prompt may.
    #[error("the chat template takes too much over this conversation: {0}")]
    Unbounded(jinja::Error),
    /// The machine lacks a resource that the template needs; the conversation is fine.
    #[error("the chat template could not be run: {0}")]
    Lack(jinja::Error),
    /// The work on the request, of which rendering is a part, was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Steps of the template engine per prompt. A turn costs some hundreds; a template that looks back over all turns at
/// each turn takes 10 to 20 million for 2,000 turns (Gemma 4).
const STEPS_MAX: u64 = 40_000_000;

/// Steps per conversation that a template is tried on at start.
const STEPS_TRIAL_MAX: u64 = 200_000;

/// Variables that the server gives to templates; clients cannot set them.
pub(crate) const SERVER_VARIABLES: [&str; 11] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl ChatTemplate {
    /// Compiles `source` as transformers does, and finds the conversations that it understands.
    ///
    /// # Errors
    /// When the template is not valid.
    pub fn compile(source: &str, special_tokens: BTreeMap<String, String>) -> Result<ChatTemplate, TemplateError> {
        let template = Template::compile(source).map_err(TemplateError::of)?;
        let mut compiled = ChatTemplate {
            template: Arc::new(template),
            special_tokens: Arc::new(special_tokens),
            dialect: Dialect::default(),
            thought_tags: None,
        };
        compiled.dialect = Dialect::probe(source, &compiled);
        compiled.thought_tags = thought_tags(source, &compiled);
        Ok(compiled)
    }

    /// Returns the marks that the template knows around thoughts.
    #[must_use]
    pub fn thought_tags(&self) -> Option<Tags> {
        self.thought_tags
    }

    /// Returns the form in which the template writes tool calls, if it is known.
    #[must_use]
    pub fn tool_format(&self) -> Option<ToolFormat> {
        self.dialect.tools.format
    }

    /// Returns what the template would leave out of the conversation, if anything.
    #[must_use]
    pub fn leaves_out(&self, messages: &[Message], tools: &[Tool]) -> Option<LeftOut> {
        let dialect = &self.dialect.tools;
        if !tools.is_empty() && dialect.offers == Written::No {
            return Some(LeftOut::Tools);
        }
        messages.iter().enumerate().find_map(|(index, message)| match message.role {
            Role::Assistant if !message.calls.is_empty() && !dialect.writes_calls() => Some(LeftOut::Calls(index)),
            Role::Tool if dialect.results.is_none() => Some(LeftOut::Result(index)),
            Role::System | Role::Developer | Role::User | Role::Assistant | Role::Tool => None,
        })
    }

    /// Renders the prompt for `messages`; `extra` are variables that a client sets (`chat_template_kwargs`).
    ///
    /// # Errors
    /// When the template refuses the conversation or fails on it.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
    ) -> Result<Rendered, TemplateError> {
        self.render_within(messages, &[], generation_prompt, extra, &Effort::unbounded())
    }

    /// Renders as `render` does, with tools and within the bounds of `effort`.
    ///
    /// # Errors
    /// As `render`, and when a bound is reached.
    pub fn render_within(
        &self,
        messages: &[Message],
        tools: &[Tool],
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
        effort: &Effort,
    ) -> Result<Rendered, TemplateError> {
        effort.look()?;
        let render = |messages: &[Message]| {
            let values = || Turns {
                messages: messages.iter().map(|message| self.dialect.value(message)).collect(),
                tools: tools.iter().map(|tool| Value::of_json(&tool.described, Origin::Given)).collect(),
            };
            self.run(values, generation_prompt, extra, STEPS_MAX, effort)
        };
        let rendered = match generation_prompt {
            GenerationPrompt::Add | GenerationPrompt::Omit => render(messages),
            GenerationPrompt::Continue => continued(messages, render),
        };
        effort.look()?;
        rendered
    }

    /// Renders a few short messages of any kind, to learn what the template understands.
    pub(super) fn try_json(
        &self,
        messages: &[Json],
        tools: &[Json],
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
    ) -> Result<Rendered, TemplateError> {
        let list = |items: &[Json]| items.iter().map(|item| Value::of_json(item, Origin::Given)).collect();
        let values = || Turns { messages: list(messages), tools: list(tools) };
        self.run(values, generation_prompt, extra, STEPS_TRIAL_MAX, &Effort::unbounded())
    }

    /// Renders a short conversation of our own in few steps.
    pub(super) fn try_prompt(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
    ) -> Result<Rendered, TemplateError> {
        let values = || Turns {
            messages: messages.iter().map(|message| self.dialect.value(message)).collect(),
            tools: Vec::new(),
        };
        self.run(values, generation_prompt, &Map::new(), STEPS_TRIAL_MAX, &Effort::unbounded())
    }

    fn run(
        &self,
        turns: impl FnOnce() -> Turns,
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
        steps_max: u64,
        effort: &Effort,
    ) -> Result<Rendered, TemplateError> {
        let variables = || {
            let mut variables: Vec<(Arc<str>, Value)> = Vec::new();
            for (name, token) in self.special_tokens.iter() {
                variables.push((Arc::from(name.as_str()), Value::own(token.as_str())));
            }
            let turns = turns();
            // Templates compare these with none instead of testing whether they are defined.
            let tools = if turns.tools.is_empty() { Value::None } else { Value::list(turns.tools) };
            variables.push((Arc::from("tools"), tools));
            variables.push((Arc::from("documents"), Value::None));
            for (name, value) in extra {
                variables.push((Arc::from(name.as_str()), Value::of_json(value, Origin::Given)));
            }
            variables.push((Arc::from("messages"), Value::list(turns.messages)));
            let add = generation_prompt == GenerationPrompt::Add;
            variables.push((Arc::from("add_generation_prompt"), Value::Bool(add)));
            variables
        };
        // UTC; the reference implementation uses the host's local time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let effort = effort.clone();
        let watch = Box::new(move || effort.look().is_ok());
        self.template.render_watched(variables, now, steps_max, watch).map_err(TemplateError::of)
    }
}

impl TemplateError {
    fn of(error: jinja::Error) -> TemplateError {
        match error {
            jinja::Error::Raised(message) => TemplateError::Refused(message),
            jinja::Error::Syntax { .. } | jinja::Error::Fault { .. } => TemplateError::Failed(error),
            jinja::Error::Endless(_) | jinja::Error::Large(_) | jinja::Error::Deep(_) | jinja::Error::Stopped => {
                TemplateError::Unbounded(error)
            }
            jinja::Error::NoStack(_) => TemplateError::Lack(error),
        }
    }
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
