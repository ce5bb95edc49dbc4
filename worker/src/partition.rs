//! What operators see and set of the division of a worker's device; knows no policy.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use engine::replica::{Command, ReplicaHandle};
use node::admin::{Knob, Unset};
use sched::Span;
use sched::cost::Phase;
use sched::share::{Decision, Latencies, Measured, SharePolicy, Split, WindowReport};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::watch;

/// Longest wait for the replica thread to do as it was told.
const ANSWER_WAIT: Duration = Duration::from_secs(5);

/// The division of a worker's device, for its operators. Clones share it.
#[derive(Clone)]
pub(crate) struct PartitionKnob(Arc<Shared>);

struct Shared {
    policy: SharePolicy,
    /// Set once the replica runs.
    replica: OnceLock<ReplicaHandle>,
    last: watch::Sender<Option<Told>>,
}

#[derive(Clone, Copy)]
struct Told {
    decision: Decision,
    at: Instant,
    /// The last decision that changed the split.
    switch: Option<(Decision, Instant)>,
}

/// Wish of an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Wish {
    /// Prefill has this share until it is released.
    PrefillPercent(u32),
    /// Nobody divides until it is released.
    Oversubscribed,
    /// The policy decides again.
    Release,
}

impl PartitionKnob {
    pub(crate) fn new(policy: SharePolicy) -> PartitionKnob {
        PartitionKnob(Arc::new(Shared { policy, replica: OnceLock::new(), last: watch::Sender::new(None) }))
    }

    pub(crate) fn runs(&self, replica: &ReplicaHandle) {
        self.0.replica.get_or_init(|| replica.clone());
    }

    /// Takes in a decision; called on the replica's thread.
    pub(crate) fn divided(&self, decision: Decision) {
        let at = Instant::now();
        self.0.last.send_modify(|last| {
            let switch = if decision.switches() { Some((decision, at)) } else { last.and_then(|last| last.switch) };
            *last = Some(Told { decision, at, switch });
        });
    }

    async fn wish(&self, body: &[u8]) -> Result<Value, Unset> {
        let form = "must be {\"prefill_percent\": 1 to 99}, \"oversubscribed\" or \"release\"";
        let wish: Wish = serde_json::from_slice(body).map_err(|error| Unset::Wrong(format!("{form}: {error}")))?;
        let wrong = |error: sched::share::ShareError| Unset::Wrong(format!("prefill_percent {}", error.problem));
        let command = match wish {
            Wish::PrefillPercent(percent) => Command::Pin(Split::prefill_percent(percent).map_err(wrong)?),
            Wish::Oversubscribed => Command::Pin(Split::Oversubscribed),
            Wish::Release => Command::Release,
        };
        let starting = || Unset::Unable("the model is not loaded yet".to_owned());
        let replica = self.0.replica.get().ok_or_else(starting)?;
        let mut last = self.0.last.subscribe();
        last.mark_unchanged();
        replica.send(command).map_err(|error| Unset::Unable(error.to_string()))?;
        match wish {
            // Nothing is decided where nothing was pinned.
            Wish::Release => drop(tokio::time::timeout(ANSWER_WAIT / 50, last.changed()).await),
            Wish::PrefillPercent(_) | Wish::Oversubscribed => {
                let answer = tokio::time::timeout(ANSWER_WAIT, last.changed()).await;
                answer.map_err(|_| Unset::Unable("the replica does not answer".to_owned()))?.map_err(|_| starting())?;
            }
        }
        Ok(self.show())
    }
}

impl Knob for PartitionKnob {
    fn paths(&self) -> (&'static str, &'static str) {
        ("/debug/partition", "/admin/partition")
    }

    fn show(&self) -> Value {
        let policy = self.0.policy;
        let Some(Told { decision, at, switch }) = *self.0.last.borrow() else {
            return json!({"policy": policy, "split": null});
        };
        json!({
            "policy": policy,
            "split": split(decision.split),
            "last_decision": explain(&decision, at),
            "last_switch": switch.map(|(decision, at)| explain(&decision, at)),
        })
    }

    fn set<'a>(&'a self, body: &'a [u8]) -> Pin<Box<dyn Future<Output = Result<Value, Unset>> + Send + 'a>> {
        Box::pin(self.wish(body))
    }
}

fn explain(decision: &Decision, at: Instant) -> Value {
    json!({
        "seconds_ago": at.elapsed().as_secs_f64(),
        "reason": decision.reason.label(),
        "before": split(decision.before),
        "wanted": split(decision.wanted),
        "after": split(decision.split),
        "measured": latencies(decision.measured),
        "predicted_before": latencies(decision.predicted_before),
        "predicted": latencies(decision.predicted),
        "model_calls": decision.model_calls,
        "window": decision.window.as_ref().map(window),
    })
}

fn split(split: Split) -> Value {
    match split {
        Split::Oversubscribed => json!("oversubscribed"),
        Split::Divided { .. } => {
            let percent = |phase| (split.share_of(phase) * 1_000.0).round() / 10.0;
            json!({"prefill_percent": percent(Phase::Prefill), "decode_percent": percent(Phase::Decode)})
        }
    }
}

fn latencies(latencies: Latencies) -> Value {
    json!({"prefill_ms": latencies.prefill.map(ms), "decode_ms": latencies.decode.map(ms)})
}

fn window(window: &WindowReport) -> Value {
    let measured = |measured: Measured| match measured {
        Measured::Unknown => Value::Null,
        Measured::AtLeast(span) => json!({"at_least_ms": ms(span)}),
        Measured::Value(span) => json!(ms(span)),
    };
    json!({
        "seconds": (window.to - window.from).0 as f64 / 1e6,
        "requests": window.requests,
        "attainment": window.attainment(),
        "ttft_ms": measured(window.ttft),
        "tpot_ms": measured(window.tpot),
        "prefill_load": window.prefill_load,
    })
}

fn ms(span: Span) -> f64 {
    span.0 as f64 / 1e3
}

#[cfg(test)]
mod tests {
    use sched::Time;
    use sched::message::Load;
    use sched::share::{Divisions, IdleShare, Partition, ShareConfig};

    use super::*;

    #[tokio::test]
    async fn a_decision_is_explained_and_nonsense_refused() {
        let knob = PartitionKnob::new(SharePolicy::Fixed);
        assert_eq!(knob.show(), json!({"policy": "fixed", "split": null}));
        let device = Divisions::new(20, IdleShare::Lent).unwrap();
        let mut partition = Partition::new(&ShareConfig::default(), device, (1, 1), Time(0)).unwrap();
        partition.pin(Time(1), Split::prefill_percent(28).unwrap());
        partition.tick(Time(2), &Load::default());
        while let Some(decision) = partition.poll() {
            knob.divided(decision);
        }
        let shown = knob.show();
        assert_eq!(shown["split"], json!({"prefill_percent": 30.0, "decode_percent": 70.0}));
        assert_eq!(shown["last_decision"]["wanted"]["prefill_percent"], 28.0);
        assert_eq!(shown["last_switch"]["reason"], "pinned");
        for body in
            ["", "7", "{\"prefill_percent\": 0}", "{\"prefill_percent\": 100}", "\"relase\"", "{\"release\": 1}"]
        {
            assert!(matches!(knob.set(body.as_bytes()).await, Err(Unset::Wrong(_))), "{body}");
        }
        assert!(matches!(knob.set(b"{\"prefill_percent\": 30}").await, Err(Unset::Unable(_))), "no replica yet");
    }
}
