//! State that all endpoints share.

use std::sync::Arc;

use node::admin::{Gate, Version};
use node::telemetry::Metrics;

use super::work::Lanes;
use crate::Config;
use crate::admission::Admission;
use crate::clock::Clock;
use crate::dispatch::{Dispatcher, Unread};
use crate::keys::Visitor;
use crate::metrics::RouterMetrics;
use crate::openai::{ApiError, Limits};
use crate::random::Numbers;
use crate::text::ModelText;

pub(crate) struct App {
    pub(crate) config: Config,
    pub(crate) model: ModelText,
    /// Names by which clients may call the model, its own first; at least one.
    pub(crate) model_names: Vec<String>,
    pub(crate) dispatcher: Dispatcher,
    pub(crate) admission: Admission,
    /// Bounds on the news that wait for clients that read slowly.
    pub(crate) unread: Unread,
    pub(crate) metrics: Arc<RouterMetrics>,
    /// Workers whose metrics are included.
    pub(crate) metrics_of: Vec<crate::MetricsSource>,
    pub(crate) recorded: Metrics,
    pub(crate) gate: Gate,
    pub(crate) version: Version,
    pub(crate) clock: Clock,
    /// Start of the router, in seconds since 1970.
    pub(crate) started: u64,
    /// Source of names for answers and requests.
    pub(crate) numbers: Numbers,
    /// Lanes for heavy work.
    pub(crate) lanes: Lanes,
}

impl App {
    /// Returns the bounds on requests.
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

    /// Tokens that prompt and answer may have together, bounded by the model and by the workers' capacity.
    pub(crate) fn context_tokens(&self) -> u32 {
        let workers = self.dispatcher.view().sequence_tokens_max;
        workers.map_or(self.model.context_tokens, |tokens| tokens.min(self.model.context_tokens))
    }

    /// Returns the names under which this visitor may call the model.
    pub(crate) fn models_for(&self, visitor: &Visitor) -> Vec<String> {
        self.model_names.iter().filter(|name| visitor.may_use(name)).cloned().collect()
    }

    /// Returns the model name for the answer; a request without one gets the first that the visitor may use. Fails if
    /// the named model is not served here, or not to this visitor, who cannot tell the two apart.
    pub(crate) fn model_named(&self, name: Option<&str>, visitor: &Visitor) -> Result<String, ApiError> {
        let mut names = self.model_names.iter().filter(|known| visitor.may_use(known));
        let found = match name {
            None => names.next(),
            Some(name) => names.find(|known| *known == name),
        };
        found.cloned().ok_or_else(|| match name {
            Some(name) => ApiError::model_not_found(name),
            None => ApiError::no_model_for_key(),
        })
    }

    pub(crate) fn answer_id(&self, prefix: &str) -> String {
        format!("{prefix}{:016x}", self.numbers.scattered())
    }
}
