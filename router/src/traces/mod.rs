//! Traces of requests for a collector that speaks OTLP; knows no HTTP request and no worker.
//!
//! Only builds with the feature `otlp` have them; other builds refuse a configured collector. Spans are made from what the
//! request log says, and the JSON form of OTLP is a stable document: these files are less than what the crates of the
//! opentelemetry project would bring in.

#[cfg(feature = "otlp")]
mod parent;
#[cfg(feature = "otlp")]
mod sender;
#[cfg(feature = "otlp")]
mod span;

use node::config::Fault;
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

use crate::random::Numbers;
use crate::request_log::Ended;

#[cfg(feature = "otlp")]
pub(crate) use parent::Parent;
/// Where traces go.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracesConfig {
    /// Collector, `http://host:port`; empty for none.
    pub collector: String,
}

impl TracesConfig {
    /// Checks that this build can send to the collector.
    ///
    /// # Errors
    /// The key that is wrong.
    pub fn check(&self) -> Result<(), Fault> {
        match self.collector.as_str() {
            "" => Ok(()),
            collector => check_collector(collector).map_err(|problem| Fault::of("router.traces.collector", problem)),
        }
    }
}

#[cfg(feature = "otlp")]
fn check_collector(collector: &str) -> Result<(), String> {
    sender::Collector::read(collector).map(|_| ())
}

#[cfg(not(feature = "otlp"))]
fn check_collector(_: &str) -> Result<(), String> {
    Err("is set, but this build sends no traces: build it with --features otlp".to_owned())
}

/// Way of ended requests to the collector, if there is one.
#[derive(Debug)]
pub(crate) struct Traces {
    #[cfg(feature = "otlp")]
    sender: Option<sender::Sender>,
}

#[cfg(feature = "otlp")]
impl Traces {
    /// Starts what sends to the collector, if there is one.
    pub(crate) fn start(config: &TracesConfig, numbers: Numbers, tasks: &mut JoinSet<()>) -> Traces {
        let started = sender::Sender::start(&config.collector, numbers);
        let sender = started.map(|(sender, sending)| {
            tasks.spawn(sending);
            sender
        });
        Traces { sender }
    }

    /// Sends the trace of a request, or counts that there was no room for it. Never waits.
    pub(crate) fn ended(&self, ended: &Ended<'_>) {
        if let Some(sender) = &self.sender {
            sender.put(ended);
        }
    }
}

#[cfg(not(feature = "otlp"))]
impl Traces {
    pub(crate) fn start(_: &TracesConfig, _: Numbers, _: &mut JoinSet<()>) -> Traces {
        Traces {}
    }

    pub(crate) fn ended(&self, _: &Ended<'_>) {}
}

/// What the client says of the trace that its request belongs to; there is none in a build without traces.
#[cfg(not(feature = "otlp"))]
#[derive(Debug, Clone, Copy)]
pub(crate) enum Parent {}

#[cfg(not(feature = "otlp"))]
impl Parent {
    pub(crate) fn read(_: &str) -> Option<Parent> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_collector_is_refused_where_nothing_would_be_sent() {
        assert_eq!(TracesConfig::default().check(), Ok(()));
        let said = |collector: &str| TracesConfig { collector: collector.to_owned() }.check();
        let fine = said("http://127.0.0.1:4318");
        assert_eq!(fine.is_ok(), cfg!(feature = "otlp"), "{fine:?}");
        let refused = said("https://collector").unwrap_err();
        assert_eq!(refused.key, "router.traces.collector");
    }
}
