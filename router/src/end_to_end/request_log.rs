//! Tests of the log line that each request has.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use node::telemetry::REQUEST_TARGET;
use sched::Role;
use serde_json::json;
use tracing::field::{Field, Visit};
use tracing::subscriber::DefaultGuard;
use tracing::{Dispatch, Event, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::layer::{Context, SubscriberExt};

use super::FAST;
use super::deployment::{Deployment, Events, post, until};
use super::parrot::{CACHED_TOKENS, Parrot};
use crate::Workers;

/// While there is a single subscriber, tracing asks that of the thread which comes first to a place that logs, and the
/// threads of other tests have none; if there are two, it asks both.
static SECOND: LazyLock<Dispatch> = LazyLock::new(|| Dispatch::new(tracing_subscriber::registry()));

type Line = BTreeMap<&'static str, String>;

/// Lines about requests of this thread, which runs the whole test.
#[derive(Debug, Clone, Default)]
struct Lines(Arc<Mutex<Vec<Line>>>);

impl Lines {
    fn collect() -> (Lines, DefaultGuard) {
        LazyLock::force(&SECOND);
        let lines = Lines::default();
        let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(lines.clone()));
        (lines, guard)
    }

    fn all(&self) -> Vec<Line> {
        self.0.lock().unwrap().clone()
    }

    async fn of(&self, request: &str) -> Line {
        let find = || self.all().into_iter().find(|line| line["request"] == request);
        until("the line is there", || find().is_some()).await;
        find().unwrap()
    }
}

impl<S: Subscriber> Layer<S> for Lines {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        if event.metadata().target() == REQUEST_TARGET {
            let mut line = Fields(Line::from([("level", event.metadata().level().to_string())]));
            event.record(&mut line);
            self.0.lock().unwrap().push(line.0);
        }
    }
}

struct Fields(Line);

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.insert(field.name(), format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.0.insert(field.name(), value.to_owned());
    }
}

fn us(line: &Line, field: &str) -> u64 {
    line[field].parse().unwrap_or_else(|error| panic!("{field} of {line:?}: {error}"))
}

fn named(path: &str, name: &str, body: &serde_json::Value) -> hyper::Request<String> {
    let mut request = post(path, body);
    request.headers_mut().insert("x-request-id", name.parse().unwrap());
    request
}

#[tokio::test]
async fn the_parts_of_ttft_sum_to_it_in_microseconds() {
    let (lines, _guard) = Lines::collect();
    let (deployment, parrot, decode) = Deployment::disaggregated(FAST).await;
    let body = json!({"prompt": "xyz", "max_tokens": 9, "add_special_tokens": false, "slo_class": "batch"});
    assert_eq!(deployment.call(named("/v1/completions", "mine-1", &body)).await.status, 200);
    let line = lines.of("mine-1").await;
    let parts = ["parse_us", "admission_us", "queue_us", "prefill_us", "relay_us"];
    let sum: u64 = parts.iter().map(|part| us(&line, part)).sum();
    assert_eq!(sum, us(&line, "ttft_us"), "{line:?}");
    assert_eq!(line["prefill_us"], "700", "as the worker measured");
    assert!(us(&line, "queue_us") >= 100 && us(&line, "e2e_us") > us(&line, "ttft_us"), "{line:?}");
    assert!(us(&line, "tpot_us") > 0 && line["id"].starts_with("req-"), "{line:?}");
    let wanted = [
        ("level", "INFO".to_owned()),
        ("endpoint", "/v1/completions".to_owned()),
        ("model", "parrot".to_owned()),
        ("class", "batch".to_owned()),
        ("outcome", "ok".to_owned()),
        ("status", "200".to_owned()),
        ("prompt_tokens", "3".to_owned()),
        ("cached_tokens", CACHED_TOKENS.to_string()),
        ("tokens", "9".to_owned()),
        ("retries", "0".to_owned()),
        ("workers", format!("{},{}", parrot.address, decode.address)),
    ];
    for (field, value) in wanted {
        assert_eq!(line[field], value, "{field} of {line:?}");
    }
    assert!(!format!("{line:?}").contains("xyz"), "no text of a client, and no hexadecimal digits: {line:?}");
    deployment.stop().await;
}

#[tokio::test]
async fn a_request_that_fails_or_is_left_has_its_line_too() {
    let (lines, _guard) = Lines::collect();
    let (deployment, _parrot) = Deployment::aggregated(Duration::from_millis(5), |_| {}).await;
    let wrong = json!({"prompt": "x", "max_tokens": 999});
    assert_eq!(deployment.call(named("/v1/completions", "wrong", &wrong)).await.status, 400);
    let line = lines.of("wrong").await;
    assert_eq!((&*line["outcome"], &*line["status"]), ("too_long", "400"));
    assert!(!line.contains_key("ttft_us") && !line.contains_key("workers"), "it came to no worker: {line:?}");

    let long = json!({"prompt": "ab", "max_tokens": 200, "stream": true});
    let response = deployment.send(named("/v1/completions", "left", &long)).await;
    let mut events = Events::of(response);
    events.next().await.unwrap();
    drop(events);
    let line = lines.of("left").await;
    assert_eq!((&*line["outcome"], &*line["status"]), ("cancelled", "200"), "its answer had begun");

    let mut probe = hyper::Request::get("/health").header("host", "localhost").body(String::new()).unwrap();
    probe.headers_mut().insert("x-request-id", "probe".parse().unwrap());
    assert_eq!(deployment.call(probe).await.status, 200);
    let line = lines.of("probe").await;
    assert_eq!((&*line["level"], &*line["endpoint"], &*line["status"]), ("DEBUG", "/health", "200"));
    deployment.stop().await;
}

#[tokio::test]
async fn a_retry_is_counted_and_both_workers_are_named() {
    let (lines, _guard) = Lines::collect();
    let mut first = Parrot::start(Role::Aggregated, 1, Duration::from_millis(5)).await;
    let mut second = Parrot::start(Role::Aggregated, 2, Duration::from_millis(5)).await;
    let workers = Workers { prefill: vec![], decode: vec![first.address.clone(), second.address.clone()] };
    let deployment = Deployment::start(workers, |_| {}).await;
    let body = json!({"prompt": "ab", "max_tokens": 60, "add_special_tokens": false, "stream": true});
    let mut events = Events::of(deployment.send(named("/v1/completions", "moved", &body)).await);
    events.next().await.unwrap();
    let (busy, other) = if first.legs() == 1 { (&mut first, &second) } else { (&mut second, &first) };
    let wanted = format!("{},{}", busy.address, other.address);
    busy.crash().await;
    events.all().await;
    let line = lines.of("moved").await;
    assert_eq!((&*line["outcome"], &*line["retries"], &*line["workers"]), ("ok", "1", &*wanted));
    assert_eq!(line["tokens"], "60");
    deployment.stop().await;
}
