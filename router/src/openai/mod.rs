//! The OpenAI wire format: bytes to typed requests, typed answers to bytes; knows no socket, worker or tokenizer state.

mod answer_form;
mod api_error;
pub(crate) mod chat;
mod chat_answer;
mod completion;
mod completion_answer;
mod delta;
pub(crate) mod fields;
pub(crate) mod generation;
pub(crate) mod known;
mod limits;
mod logprobs;
mod masks;
mod models;
pub(crate) mod openapi;
mod prompt_report;
pub(crate) mod refused;
mod responses;
pub mod sse;
pub(crate) mod structure;
mod tier;
mod tokenize;
pub(crate) mod tools;
mod truncation;
mod unreadable;

pub use answer_form::AnswerForm;
pub use api_error::{Advice, ApiError};
pub use chat::{ChatRequest, Conversation, Thoughts};
pub use chat_answer::ChatAnswer;
pub use completion::{CompletionRequest, Echo, Prompt};
pub use completion_answer::CompletionAnswer;
pub use delta::{Choice, Delta, Head, Repeated, StopReason, Usage, WholeCall};
pub use generation::{Amount, BeyondContext, Delivery, EndTokens, Generation, TokenIds, UnnamedLength, UsageChunk};
pub use limits::Limits;
pub use logprobs::{TokenLogprob, TokenNames};
pub use models::{model_list, model_object};
pub use openapi::openapi;
pub use prompt_report::{PromptLogprobs, PromptReport};
pub use responses::{ResponseAnswer, ResponsesRequest};
pub use structure::Wanted;
pub use tokenize::{DetokenizeRequest, TokenStrings, TokenizeInput, TokenizeRequest, detokenized, tokenized};
pub use tools::ToolUse;
pub use truncation::Truncation;

#[cfg(test)]
mod message_tests;
#[cfg(test)]
mod request_tests;
#[cfg(test)]
mod tool_tests;
#[cfg(test)]
mod transcript_tests;
