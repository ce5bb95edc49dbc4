//! Between text and tokens: tokenizer, chat template, detokenisation, stop strings; knows no HTTP and no worker.

mod calendar;
mod choice_text;
mod detokenizer;
mod model_text;
mod pieces;
mod stop;
mod template;
mod tojson;
mod tokenizer;

pub use choice_text::ChoiceText;
pub use detokenizer::{Detokenizer, SpecialText};
pub use model_text::{ModelText, SamplingDefaults};
pub use pieces::Pieces;
pub use stop::StopMatcher;
pub use template::{ChatTemplate, GenerationPrompt, Message, Role, TemplateError};
pub use tokenizer::{AddSpecials, Tokenizer};

#[cfg(test)]
pub(crate) mod samples;
