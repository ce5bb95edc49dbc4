//! What every endpoint shares.

use std::sync::Arc;

use node::admin::{Gate, Version};
use node::telemetry::Metrics;

use super::work::Lanes;
use crate::Config;
use crate::admission::Admission;
use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Unread};
use crate::metrics::RouterMetrics;
use crate::openai::{ApiError, Limits};
use crate::random::Numbers;
use crate::text::ModelText;

/// The router as its endpoints see it.
pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) model: ModelText,
    /// Names that clients may call the model by, its own first; at least one.
    pub(crate) model_names: Vec<String>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) admission: Admission,
    /// What may wait for clients that read slowly.
    pub(crate) unread: Unread,
    pub(crate) metrics: Arc<RouterMetrics>,
    /// Whose metrics are carried too.
    pub(crate) metrics_of: Vec<crate::MetricsSource>,
    pub(crate) recorded: Metrics,
    pub(crate) gate: Gate,
    pub(crate) version: Version,
    pub(crate) clock: Clock,
    /// When the router started, in seconds since 1970.
    pub(crate) started: u64,
    /// Names of answers and requests.
    pub(crate) numbers: Numbers,
    /// Turns at heavy work.
    pub(crate) lanes: Lanes,
}

impl App {
    /// What requests may ask for now.
    pub(crate) fn limits(&self) -> Limits {
        let limits = &self.config.limits;
        Limits {
            n_max: limits.n_max,
            prompts_max: limits.prompts_max,
            stop_max: limits.stop_max,
            stop_bytes_max: limits.stop_bytes_max,
            vocab_size: self.model.vocab_size,
        }
    }

    /// Tokens of prompt and answer together: what the model was made for, and what the workers can hold.
    pub(crate) fn context_tokens(&self) -> u32 {
        let workers = self.dispatcher.view().sequence_tokens_max;
        workers.map_or(self.model.context_tokens, |tokens| tokens.min(self.model.context_tokens))
    }

    /// The name to answer with; a request that names no model means this one.
    ///
    /// # Errors
    /// When the named model is not served here.
    pub(crate) fn model_named(&self, name: Option<&str>) -> Result<String, ApiError> {
        let names = &self.model_names;
        match name {
            None => Ok(names.first().cloned().unwrap_or_default()),
            Some(name) if names.iter().any(|known| known == name) => Ok(name.to_owned()),
            Some(name) => Err(ApiError::model_not_found(name)),
        }
    }

    /// A name for an answer.
    pub(crate) fn answer_id(&self, prefix: &str) -> String {
        format!("{prefix}-{:016x}", self.numbers.scattered())
    }
}
