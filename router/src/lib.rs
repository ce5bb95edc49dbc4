//! OpenAI HTTP, chat templates, tokens and text, admission, routing, the life of a request; knows no tensor and no KV byte.

mod error;
pub mod openai;
pub mod text;

pub use error::Error;
