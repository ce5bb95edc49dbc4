//! One key at work: what its holder may do, what is left of its limits, and who is here with it; knows no file.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::{HeaderMap, HeaderValue};
use metrics::{Counter, counter};
use node::names;
use sched::quota::{Exceeded, Level, Quota};
use sched::{Span, Time};

use super::config::KeyConfig;
use crate::clock::Clock;

const ROLE: &str = "router";

/// Key of the ring. A key of the same name goes on with what its predecessor has used.
#[derive(Debug)]
pub(super) struct Key {
    name: String,
    /// Models that it may use; empty for all.
    models: Vec<String>,
    slo_class: Option<String>,
    quota: Arc<Mutex<Quota>>,
    clock: Clock,
    prompt_tokens: Counter,
    generated_tokens: Counter,
}

/// Side on which a token counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TokenKind {
    /// Part of a prompt.
    Prompt,
    /// Part of an answer.
    Generated,
}

/// Who sends a request: the holder of a key, or anybody where no keys are configured.
#[derive(Debug, Clone, Default)]
pub(crate) struct Visitor(Option<Arc<Key>>);

/// Request that has begun; ends when dropped.
#[derive(Debug)]
pub(crate) struct Visit {
    visitor: Visitor,
    counts: Counts,
}

/// Whether a request counts towards the limits of its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Counts {
    /// It does.
    Yes,
    /// It only asks what there is.
    No,
}

impl Key {
    pub(super) fn new(config: &KeyConfig, clock: Clock, former: Option<&Key>) -> Key {
        let (limits, now) = (config.limits(), clock.now());
        let quota = match former {
            Some(former) => {
                former.quota().limit(limits, now);
                Arc::clone(&former.quota)
            }
            None => Arc::new(Mutex::new(Quota::new(limits, now))),
        };
        let tokens = |kind: &'static str| counter!(names::KEY_TOKENS_TOTAL, "role" => ROLE, "key" => config.name.clone(), "kind" => kind);
        Key {
            name: config.name.clone(),
            models: config.models.clone(),
            slo_class: Some(config.slo_class.clone()).filter(|class| !class.is_empty()),
            quota,
            clock,
            prompt_tokens: tokens("prompt"),
            generated_tokens: tokens("generated"),
        }
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Begins a request, unless a limit is reached.
    pub(super) fn begin(&self) -> Result<(), Exceeded> {
        let begun = self.quota().begin(self.clock.now());
        let outcome = begun.map_or_else(Exceeded::label, |()| "begun");
        let name = self.name.clone();
        counter!(names::KEY_REQUESTS_TOTAL, "role" => ROLE, "key" => name, "outcome" => outcome).increment(1);
        begun
    }

    fn quota(&self) -> MutexGuard<'_, Quota> {
        self.quota.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Visitor {
    pub(super) fn holding(key: &Arc<Key>) -> Visitor {
        Visitor(Some(Arc::clone(key)))
    }

    /// Name of the key.
    pub(crate) fn name(&self) -> Option<&str> {
        self.0.as_ref().map(|key| key.name.as_str())
    }

    pub(crate) fn may_use(&self, model: &str) -> bool {
        self.0.as_ref().is_none_or(|key| key.models.is_empty() || key.models.iter().any(|known| known == model))
    }

    /// Latency class of requests that name none.
    pub(crate) fn slo_class(&self) -> Option<&str> {
        self.0.as_ref().and_then(|key| key.slo_class.as_deref())
    }

    /// Counts tokens of a request.
    pub(crate) fn spend(&self, kind: TokenKind, tokens: u64, now: Time) {
        let Some(key) = &self.0 else { return };
        key.quota().spend(now, tokens);
        match kind {
            TokenKind::Prompt => key.prompt_tokens.increment(tokens),
            TokenKind::Generated => key.generated_tokens.increment(tokens),
        }
    }

    /// Writes what is left of the limits, in the headers that OpenAI's clients know.
    pub(crate) fn write_levels(&self, headers: &mut HeaderMap) {
        let Some(key) = &self.0 else { return };
        let (requests, tokens) = key.quota().levels(key.clock.now());
        let names = ["x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests"];
        write_level(headers, names, requests);
        let names = ["x-ratelimit-limit-tokens", "x-ratelimit-remaining-tokens", "x-ratelimit-reset-tokens"];
        write_level(headers, names, tokens);
    }
}

impl Visit {
    pub(super) fn new(visitor: Visitor, counts: Counts) -> Visit {
        Visit { visitor, counts }
    }

    pub(crate) fn visitor(&self) -> &Visitor {
        &self.visitor
    }
}

impl Drop for Visit {
    fn drop(&mut self) {
        if let (Some(key), Counts::Yes) = (&self.visitor.0, self.counts) {
            key.quota().end();
        }
    }
}

fn write_level(headers: &mut HeaderMap, [limit, remaining, reset]: [&'static str; 3], level: Option<Level>) {
    let Some(level) = level else { return };
    headers.insert(limit, HeaderValue::from(level.limit));
    headers.insert(remaining, HeaderValue::from(level.remaining));
    if let Ok(time) = HeaderValue::try_from(shown(level.full_in)) {
        headers.insert(reset, time);
    }
}

/// Writes a time as OpenAI does: `120ms`, `7s`, `6m0s`; rounded up.
fn shown(span: Span) -> String {
    let (ms, seconds) = (span.us().div_ceil(1_000), span.us().div_ceil(1_000_000));
    match seconds {
        _ if ms < 1_000 => format!("{ms}ms"),
        0..60 => format!("{seconds}s"),
        _ => format!("{}m{}s", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_clients_of_openai_know_them() {
        let times = [0, 120, 999, 1_000, 1_001, 59_000, 60_000, 61_500].map(|ms| shown(Span::from_ms(ms)));
        assert_eq!(times, ["0ms", "120ms", "999ms", "1s", "2s", "59s", "1m0s", "1m2s"]);
    }
}
