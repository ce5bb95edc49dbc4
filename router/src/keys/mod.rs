//! API keys: who may use the router, what each key allows, and how much; knows no endpoint.

mod config;
mod file;
mod key;
mod reload;
mod ring;

pub use config::{KeyConfig, KeysConfig};
pub use file::KeyFileError;
pub(crate) use key::{TokenKind, Visit, Visitor};
pub(crate) use reload::{KeySource, keep_up};
pub(crate) use ring::{Entry, Keys};
