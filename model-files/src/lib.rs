//! Published model folders: their files, how they are read, and the effect of every key.
//!
//! Both users of a model read it through this crate: the engine its shape, the router its text. So a key has one
//! meaning, one default and one line in `docs/models.md` for both. Knows no tensor, no tokenizer and no request.

mod bounds;
mod config;
mod error;
mod family;
mod fields;
mod folder;
mod generation;
mod json;
pub mod keys;
mod kinds;
mod weights;

pub use bounds::{CONTEXT_MAX, VOCAB_MAX};
pub use config::ModelConfig;
pub use error::ModelFileError;
pub use family::Family;
pub use fields::Fields;
pub use folder::{open, served_name};
pub use generation::Generation;
pub use json::{JSON_BYTES_MAX, TOKENIZER_BYTES_MAX, object_of, read_bytes, read_text};
pub use weights::weight_files;
