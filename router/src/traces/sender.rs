//! Sends spans to a collector from a bounded queue; knows no request. A collector that is dead or slow costs nothing but
//! what a counter says.

use std::time::{Duration, SystemTime};

use http_body_util::Full;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use metrics::{Counter, counter};
use node::names;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::parent::{Parent, Sampling};
use super::span::{SpanIds, spans};
use crate::random::Numbers;
use crate::request_log::Ended;

/// Traces that may wait; further ones are dropped.
const QUEUE_MAX: usize = 1_024;
/// Most traces in one message to the collector.
const BATCH_MAX: usize = 128;
/// Time in which a message collects more traces.
const BATCH_TIME: Duration = Duration::from_secs(1);
/// Time in which the collector must have taken a message.
const SEND_TIME_MAX: Duration = Duration::from_secs(5);

/// Address of a collector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collector {
    address: String,
    path: String,
}

impl Collector {
    /// Reads `http://host:port`, with another path behind it if it is not `/v1/traces`.
    pub(super) fn read(text: &str) -> Result<Collector, String> {
        let wrong = || format!("must be http://host:port, found {text:?}");
        let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
        let (address, path) = rest.split_once('/').unwrap_or((rest, ""));
        let address = node::bind::host_and_port(address).map_err(|_| wrong())?;
        let is_path = path.bytes().all(|byte| byte.is_ascii_graphic());
        let path = if path.is_empty() { "/v1/traces".to_owned() } else { format!("/{path}") };
        if is_path { Ok(Collector { address, path }) } else { Err(wrong()) }
    }
}

/// Queue of traces.
#[derive(Debug)]
pub(super) struct Sender {
    queue: mpsc::Sender<Vec<Value>>,
    dropped: Counter,
    numbers: Numbers,
}

impl Sender {
    /// Returns the queue for the collector that `text` names, and what sends from it until the queue is gone; `None` if
    /// there is no collector.
    pub(super) fn start(text: &str, numbers: Numbers) -> Option<(Sender, impl Future<Output = ()> + Send + use<>)> {
        let collector = Collector::read(text).ok()?;
        let (queue, waiting) = mpsc::channel(QUEUE_MAX);
        let dropped = counter!(names::TRACES_DROPPED_TOTAL, "role" => "router");
        dropped.increment(0);
        Some((Sender { queue, dropped: dropped.clone(), numbers }, send_all(collector, waiting, dropped)))
    }

    pub(super) fn put(&self, ended: &Ended<'_>) {
        let parent = ended.trail.parent();
        if parent.is_some_and(|parent| parent.sampling == Sampling::Dropped) {
            return;
        }
        let spans = spans(ended, self.ids(parent), now_ns());
        if self.queue.try_send(spans).is_err() {
            self.dropped.increment(1);
        }
    }

    fn ids(&self, parent: Option<Parent>) -> SpanIds {
        let draw = || self.numbers.scattered().max(1);
        let trace = parent.map_or_else(|| u128::from(draw()) << 64 | u128::from(draw()), |parent| parent.trace);
        SpanIds { trace, request: draw(), parent: parent.map(|parent| parent.span), parts: draw() }
    }
}

fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

async fn send_all(collector: Collector, mut waiting: mpsc::Receiver<Vec<Value>>, dropped: Counter) {
    let mut batch = Vec::new();
    let mut is_told = false;
    while waiting.recv_many(&mut batch, BATCH_MAX).await > 0 {
        tokio::time::sleep(BATCH_TIME).await;
        while batch.len() < BATCH_MAX
            && let Ok(more) = waiting.try_recv()
        {
            batch.push(more);
        }
        let traces = batch.len();
        let spans: Vec<Value> = batch.drain(..).flatten().collect();
        let sent = tokio::time::timeout(SEND_TIME_MAX, post(&collector, message(&spans))).await;
        let Err(reason) = sent.unwrap_or_else(|_| Err(format!("no answer within {SEND_TIME_MAX:?}"))) else {
            is_told = false;
            continue;
        };
        dropped.increment(traces as u64);
        if std::mem::replace(&mut is_told, true) {
            debug!(collector = collector.address, reason, traces, "traces are still not taken");
        } else {
            warn!(collector = collector.address, reason, "traces are not taken; they are dropped and counted");
        }
    }
}

fn message(spans: &[Value]) -> Vec<u8> {
    let service = json!({"key": "service.name", "value": {"stringValue": "baton-router"}});
    let message = json!({"resourceSpans": [{
        "resource": {"attributes": [service]},
        "scopeSpans": [{"scope": {"name": "baton", "version": env!("CARGO_PKG_VERSION")}, "spans": spans}],
    }]});
    message.to_string().into_bytes()
}

async fn post(collector: &Collector, message: Vec<u8>) -> Result<(), String> {
    let stream = TcpStream::connect(&collector.address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
    let request = hyper::Request::post(&collector.path)
        .header("host", &collector.address)
        .header("content-type", "application/json")
        .body(Full::new(Bytes::from(message)))
        .map_err(|error| error.to_string())?;
    let mut answered = std::pin::pin!(sender.send_request(request));
    let answered = tokio::select! {
        // If the connection ends first, the request knows why.
        _ = connection => answered.await,
        answered = &mut answered => answered,
    };
    let status = answered.map_err(|error| error.to_string())?.status();
    if status.is_success() { Ok(()) } else { Err(format!("status {status}")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collectors_are_read_or_refused() {
        let read = |text| Collector::read(text).map(|collector| (collector.address, collector.path));
        let plain = Ok(("127.0.0.1:4318".to_owned(), "/v1/traces".to_owned()));
        assert_eq!(read("http://127.0.0.1:4318"), plain);
        assert_eq!(read("http://127.0.0.1:4318/"), plain);
        assert_eq!(read("http://otel:4318/otlp/v1").unwrap().1, "/otlp/v1");
        for wrong in ["127.0.0.1:4318", "https://otel:4318", "http://", "http://otel", "http://otel:4318/a b"] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }
}
