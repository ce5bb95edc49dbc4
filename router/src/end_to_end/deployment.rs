//! A router on a real port in front of parrots, and a small HTTP client.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use node::drain::Cause;
use node::telemetry::Metrics;
use sched::Role;
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::parrot::Parrot;
use crate::text::samples;
use crate::{Config, Error, Relief, Router, Workers};

pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// Writes the user's words and then the end token.
const TEMPLATE: &str = "{% for message in messages %}{% if message.role == 'system' %}{{ raise_exception('no system prompts here') }}{% endif %}{{ message.content }}{% endfor %}{% if add_generation_prompt %}<|end|>{% endif %}";

/// Metrics of the process, which has one recorder.
pub(super) fn metrics() -> Metrics {
    static METRICS: OnceLock<Metrics> = OnceLock::new();
    METRICS.get_or_init(|| Metrics::install("router").unwrap()).clone()
}

pub(super) struct Deployment {
    pub(super) address: SocketAddr,
    stop: Mutex<Option<oneshot::Sender<Cause>>>,
    running: JoinHandle<Result<(), Error>>,
    directory: PathBuf,
}

pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) headers: hyper::HeaderMap,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }

    pub(super) fn header(&self, name: &str) -> &str {
        self.headers.get(name).unwrap_or_else(|| panic!("no {name} in {:?}", self.headers)).to_str().unwrap()
    }
}

impl Deployment {
    pub(super) async fn aggregated(pace: Duration, change: impl FnOnce(&mut Config)) -> (Deployment, Parrot) {
        let parrot = Parrot::start(Role::Aggregated, 1, pace).await;
        let workers = Workers { prefill: vec![], decode: vec![parrot.address.clone()] };
        (Deployment::start(workers, change).await, parrot)
    }

    pub(super) async fn disaggregated(pace: Duration) -> (Deployment, Parrot, Parrot) {
        let prefill = Parrot::start(Role::Prefill, 1, pace).await;
        let decode = Parrot::start(Role::Decode, 2, pace).await;
        decode.pair_with(&[prefill.instance]);
        let workers = Workers { prefill: vec![prefill.address.clone()], decode: vec![decode.address.clone()] };
        (Deployment::start(workers, |_| {}).await, prefill, decode)
    }

    pub(super) async fn start(workers: Workers, change: impl FnOnce(&mut Config)) -> Deployment {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let directory = std::env::temp_dir().join(format!("baton-router-{}-{}", std::process::id(), address.port()));
        write_model(&directory);
        let model_names = vec!["parrot".to_owned(), "org/parrot".to_owned()];
        let mut config =
            Config { model_dir: directory.clone(), model_names, workers, drain_ms: 200, ..Config::default() };
        change(&mut config);
        let router = Router::load(config, metrics()).unwrap();
        let gate = router.gate();
        let (stop, stopped) = oneshot::channel::<Cause>();
        let asked = async { stopped.await.unwrap_or(Cause::Interrupted) };
        let running = tokio::spawn(router.run(listener, None, Relief::none(), asked));
        timeout(PATIENCE, gate.opened()).await.expect("ready");
        Deployment { address, stop: Mutex::new(Some(stop)), running, directory }
    }

    async fn connect(&self) -> SendRequest<Full<Bytes>> {
        let stream = TcpStream::connect(self.address).await.unwrap();
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        sender
    }

    pub(super) async fn send(&self, request: hyper::Request<String>) -> hyper::Response<Incoming> {
        let mut sender = self.connect().await;
        let request = request.map(|body| Full::new(Bytes::from(body)));
        timeout(PATIENCE, sender.send_request(request)).await.expect("an answer in time").unwrap()
    }

    pub(super) async fn call(&self, request: hyper::Request<String>) -> Answer {
        let response = self.send(request).await;
        let (parts, body) = response.into_parts();
        let body = timeout(PATIENCE, body.collect()).await.expect("an end in time").unwrap().to_bytes();
        let body = String::from_utf8(body.to_vec()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(super) async fn get(&self, path: &str) -> Answer {
        self.call(hyper::Request::get(path).header("host", "localhost").body(String::new()).unwrap()).await
    }

    pub(super) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.call(post(path, body)).await
    }

    /// Asks the router to stop, as a system with a load balancer does.
    pub(super) fn ask_to_leave(&self) {
        let stop = self.stop.lock().unwrap().take();
        stop.expect("asked once").send(Cause::Terminated).unwrap();
    }

    pub(super) async fn stop(mut self) {
        self.stop.lock().unwrap().take();
        timeout(PATIENCE, &mut self.running).await.expect("an end in time").unwrap().unwrap();
    }
}

pub(super) fn post(path: &str, body: &Value) -> hyper::Request<String> {
    hyper::Request::post(path)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .body(body.to_string())
        .unwrap()
}

impl Drop for Deployment {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn write_model(directory: &std::path::Path) {
    std::fs::create_dir_all(directory).unwrap();
    let write = |file: &str, text: String| std::fs::write(directory.join(file), text).unwrap();
    write("tokenizer.json", samples::byte_level_json().to_string());
    write("config.json", r#"{"model_type": "llama", "vocab_size": 280, "max_position_embeddings": 256}"#.to_owned());
    write("tokenizer_config.json", r#"{"eos_token": "<|end|>"}"#.to_owned());
    write("chat_template.jinja", TEMPLATE.to_owned());
}

/// Stream of events, read as it comes.
pub(super) struct Events {
    body: Incoming,
    buffer: String,
}

impl Events {
    pub(super) async fn open(deployment: &Deployment, path: &str, body: &Value) -> Events {
        Events::of(deployment.send(post(path, body)).await)
    }

    pub(super) fn of(response: hyper::Response<Incoming>) -> Events {
        assert_eq!(response.status().as_u16(), 200);
        Events { body: response.into_body(), buffer: String::new() }
    }

    /// Returns the next payload; `None` at the end.
    pub(super) async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.buffer.split_once("\n\n") {
                let payload = event.lines().find_map(|line| line.strip_prefix("data: ")).unwrap().to_owned();
                self.buffer = rest.to_owned();
                return Some(payload);
            }
            let frame = timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?.unwrap();
            self.buffer.push_str(std::str::from_utf8(frame.data_ref().unwrap()).unwrap());
        }
    }

    pub(super) async fn all(mut self) -> Vec<String> {
        let mut payloads = Vec::new();
        while let Some(payload) = self.next().await {
            payloads.push(payload);
        }
        payloads
    }
}

/// Sums the series of `name` whose labels contain all of `labels`.
pub(super) fn metric(name: &str, labels: &[&str]) -> f64 {
    let text = metrics().render();
    let series = text.lines().filter(|line| {
        line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' ']))
            && labels.iter().all(|label| line.contains(label))
    });
    series.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

pub(super) async fn until(what: &str, reached: impl Fn() -> bool) {
    let wait = async {
        while !reached() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("not in time: {what}"));
}
