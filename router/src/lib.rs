//! OpenAI HTTP, chat templates, tokens and text, admission, routing, the life of a request; knows no tensor and no KV byte.

mod admission;
mod clock;
mod config;
mod dispatch;
mod error;
mod exchange;
mod http;
pub mod jinja;
mod metrics;
pub mod openai;
mod random;
mod relief;
mod router;
mod slo;
mod structure;
pub mod text;
mod worker;

pub use config::{
    Config, LimitsConfig, PolicyName, RequestSection, RouteSection, SessionSection, TextSection, Workers,
};
pub use error::Error;
pub use relief::Relief;
pub use router::{MetricsSource, Router};
pub use slo::{SloClass, SloConfig};

#[cfg(test)]
mod end_to_end;
