//! OpenAI and Anthropic HTTP, templates, tokens, text, admission, routing, the life of a request; knows no tensor, no KV.

mod admission;
pub mod anthropic;
mod clock;
mod config;
mod dispatch;
mod error;
mod exchange;
mod http;
pub mod jinja;
mod keys;
mod metrics;
pub mod model_output;
pub mod openai;
mod prompt_scores;
mod random;
mod relief;
mod request_log;
mod router;
mod slo;
mod structure;
pub mod text;
mod tls;
mod traces;
mod trail;
mod worker;

pub use config::{
    Config, LimitsConfig, PolicyName, RequestSection, RouteSection, SessionSection, TextSection, Workers,
};
pub use error::Error;
pub use keys::{KeyConfig, KeyFileError, KeysConfig};
pub use relief::Relief;
pub use router::{MetricsSource, Router};
pub use slo::{SloClass, SloConfig};
pub use tls::TlsConfig;
pub use traces::TracesConfig;

#[cfg(test)]
mod end_to_end;
