//! Between text and tokens: tokenizer, chat template, detokenisation, stop strings; knows no HTTP and no worker.

mod choice_text;
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
mod tokenizer;
mod turn_tokens;

pub use choice_text::ChoiceText;
pub use control::{ControlReading, ControlTokens, Source};
pub use detokenizer::{Detokenizer, SpecialText};
pub(crate) use effort::thread_time;
pub use effort::{Effort, Stopped, Waiting, Wanted};
pub use encode::EncodeError;
pub use message::{Content, Message, Role};
pub use model_text::ModelText;
pub use sampling_defaults::{Length, SamplingDefaults};
pub use stop::StopMatcher;
pub use template::{ChatTemplate, GenerationPrompt, TemplateError};
pub use tokenizer::{AddSpecials, Tokenizer};

pub(crate) use template::SERVER_VARIABLES;

#[cfg(test)]
mod keys_tests;
#[cfg(test)]
mod pieces_tests;
#[cfg(test)]
pub(crate) mod samples;
