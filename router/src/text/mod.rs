//! Between text and tokens: tokenizer, chat template, detokenisation, stop strings; knows no HTTP and no worker.

mod calendar;
mod choice_text;
mod cuts;
mod detokenizer;
mod effort;
mod encode;
mod model_text;
mod pieces;
mod reach;
pub(crate) mod sampling_defaults;
mod special_tokens;
mod stop;
mod template;
mod tojson;
mod tokenizer;
mod tokenizer_file;

pub use choice_text::ChoiceText;
pub use detokenizer::{Detokenizer, SpecialText};
pub use effort::{Effort, Stopped, Waiting, Wanted};
pub use encode::EncodeError;
pub use model_text::ModelText;
pub use pieces::Pieces;
pub use sampling_defaults::{Length, SamplingDefaults};
pub use stop::StopMatcher;
pub use template::{ChatTemplate, GenerationPrompt, Message, Role, TemplateError};
pub use tokenizer::{AddSpecials, Tokenizer};

pub(crate) use template::SERVER_VARIABLES;

#[cfg(test)]
mod keys_tests;
#[cfg(test)]
pub(crate) mod samples;
