//! Between text and tokens: tokenizer, chat template, detokenisation, stop strings; knows no HTTP and no worker.

mod choice_text;
mod continuation;
mod control;
mod cuts;
mod detokenizer;
mod dialect;
mod effort;
mod encode;
mod message;
mod model_text;
mod reach;
pub(crate) mod sampling_defaults;
mod stop;
mod template;
mod template_files;
mod thought_tags;
mod tokenizer;
mod tool;
mod tool_dialect;
mod turn_tokens;

pub use choice_text::ChoiceText;
pub use control::{ControlReading, ControlTokens, Source};
pub use detokenizer::{Detokenizer, SpecialText, offsets};
pub(crate) use effort::thread_time;
pub use effort::{Effort, Stopped, Waiting, Wanted};
pub use encode::EncodeError;
pub use message::{Content, Message, Role, ToolCall};
pub use model_text::{Marks, ModelText, ReasoningFormat, ToolCalls, Tooling};
pub use sampling_defaults::{Length, SamplingDefaults};
pub use stop::{StopMatcher, StopText};
pub use template::{ChatTemplate, GenerationPrompt, LeftOut, TemplateError};
pub use tokenizer::{AddSpecials, Tokenizer};
pub use tool::{Strict, Tool, ToolChoice};

pub(crate) use template::SERVER_VARIABLES;

#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod pieces_tests;
#[cfg(test)]
pub(crate) mod samples;
#[cfg(test)]
mod tool_dialect_tests;
