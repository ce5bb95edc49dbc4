//! Tests of API keys: who is let in, to what, how often, and what changes when the key file does.

use std::path::PathBuf;
use std::time::Duration;

use node::key::KeyDigest;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::FAST;
use super::deployment::{Answer, Deployment, Events, PATIENCE, metric, metrics, post, until};
use crate::{Config, KeyConfig};

const COMPLETIONS: &str = "/v1/completions";

fn digest(key: &str) -> KeyDigest {
    KeyDigest::of(key.as_bytes()).unwrap()
}

fn key(name: &str) -> KeyConfig {
    KeyConfig::unlimited(name, digest(&format!("sk-{name}")))
}

fn with(key: &str, mut request: hyper::Request<String>) -> hyper::Request<String> {
    request.headers_mut().insert("authorization", format!("Bearer {key}").parse().unwrap());
    request
}

fn get(path: &str) -> hyper::Request<String> {
    hyper::Request::get(path).header("host", "localhost").body(String::new()).unwrap()
}

fn completion(tokens: u32) -> hyper::Request<String> {
    post(COMPLETIONS, &json!({"prompt": "ab", "max_tokens": tokens, "ignore_eos": true}))
}

async fn locked(pace: Duration, keys: Vec<KeyConfig>) -> (Deployment, super::parrot::Parrot) {
    Deployment::aggregated(pace, |config| config.keys.list = keys).await
}

fn code(answer: &Answer) -> (u16, Value) {
    (answer.status, answer.json()["error"]["code"].clone())
}

#[tokio::test]
async fn without_a_key_nothing_is_told_and_no_body_is_waited_for() {
    let (deployment, parrot) = locked(FAST, vec![key("ann")]).await;
    // Whatever else is wrong with a stranger's request, only the key is spoken of.
    let odd = |name: &str, value: &str| {
        let head = hyper::Request::post(COMPLETIONS).header("host", "localhost").header(name, value);
        head.body("{}".to_owned()).unwrap()
    };
    let odd = [("content-type", "text/plain"), ("content-encoding", "gzip"), ("origin", "http://evil.example")]
        .map(|(name, value)| odd(name, value));
    let plain = [completion(1), get("/v1/models"), get("/nothing"), get("/metrics"), with("sk-bob", completion(1))];
    for request in plain.into_iter().chain(odd) {
        let answer = deployment.call(request).await;
        assert_eq!(code(&answer), (401, json!("invalid_api_key")), "{}", answer.body);
        assert_eq!(answer.header("www-authenticate"), "Bearer");
        assert_eq!(answer.json()["error"]["type"], "invalid_request_error");
        assert!(!answer.header("x-request-id").is_empty() && !answer.body.contains("sk-bob"), "{}", answer.body);
    }
    for path in ["/health", "/ready", "/version"] {
        assert_eq!(deployment.get(path).await.status, 200, "{path}");
    }
    let mut client = TcpStream::connect(deployment.address).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer wrong\r\n\
                content-type: application/json\r\ncontent-length: 1000000\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, client.read_exact(&mut answer)).await.expect("the body is not waited for").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 401");
    assert_eq!(parrot.legs(), 0);
    deployment.stop().await;
}

/// A client that sends its body after the answer got a reset instead of the answer.
#[tokio::test]
async fn who_is_refused_reads_why_and_keeps_the_connection() {
    let (deployment, _parrot) = locked(FAST, vec![key("ann")]).await;
    let mut client = TcpStream::connect(deployment.address).await.unwrap();
    for _ in 0..3 {
        let body = "x".repeat(20_000);
        let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n";
        client.write_all(format!("{head}content-length: {}\r\n\r\n", body.len()).as_bytes()).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        client.write_all(body.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with('}') {
            let mut some = [0; 4_096];
            let read = timeout(PATIENCE, client.read(&mut some)).await.expect("an answer in time").unwrap();
            assert!(read > 0, "the connection is closed after {answer:?}");
            answer.push_str(std::str::from_utf8(&some[..read]).unwrap());
        }
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
    }
    deployment.stop().await;
}

#[tokio::test]
async fn a_key_lets_in_by_either_header_and_is_counted_under_its_name() {
    let (deployment, _parrot) = locked(FAST, vec![key("eva")]).await;
    let answer = deployment.call(with("sk-eva", completion(3))).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    let mut anthropic = completion(3);
    anthropic.headers_mut().insert("x-api-key", "sk-eva".parse().unwrap());
    assert_eq!(deployment.call(anthropic).await.status, 200);
    assert!(answer.headers.get("x-ratelimit-limit-requests").is_none(), "no limit, no level");
    let counted = |name: &str, label: &str| metric(name, &["key=\"eva\"", label]) as u64;
    assert_eq!(counted("baton_key_requests_total", "outcome=\"begun\""), 2);
    assert_eq!(counted("baton_key_tokens_total", "kind=\"generated\""), 6);
    assert!(counted("baton_key_tokens_total", "kind=\"prompt\"") >= 2);
    deployment.stop().await;
}

#[tokio::test]
async fn a_model_that_a_key_may_not_use_does_not_exist_for_it() {
    let few = KeyConfig { models: vec!["org/parrot".to_owned()], ..key("few") };
    let (deployment, _parrot) = locked(FAST, vec![few, key("all")]).await;
    let listed = |answer: Answer| {
        let models = answer.json()["data"].clone();
        models.as_array().unwrap().iter().map(|model| model["id"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(listed(deployment.call(with("sk-few", get("/v1/models"))).await), ["org/parrot"]);
    assert_eq!(listed(deployment.call(with("sk-all", get("/v1/models"))).await), ["parrot", "org/parrot"]);
    for (path, model) in [("/v1/completions", "parrot"), ("/tokenize", "parrot"), ("/v1/completions", "other")] {
        let request = post(path, &json!({"prompt": "a", "max_tokens": 1, "model": model}));
        let answer = deployment.call(with("sk-few", request)).await;
        assert_eq!(code(&answer), (404, json!("model_not_found")), "{}", answer.body);
        assert_eq!(answer.json()["error"]["message"], format!("The model `{model}` does not exist."));
    }
    assert_eq!(deployment.call(with("sk-few", get("/v1/models/parrot"))).await.status, 404);
    assert_eq!(deployment.call(with("sk-few", get("/v1/models/org/parrot"))).await.status, 200);
    let unnamed = deployment.call(with("sk-few", completion(1))).await;
    assert_eq!(unnamed.json()["model"], "org/parrot", "{}", unnamed.body);
    deployment.stop().await;
}

#[tokio::test]
async fn a_limit_is_told_beforehand_and_refuses_with_the_time_to_wait() {
    let rate = KeyConfig { requests_per_minute: 2, ..key("rate") };
    let tokens = KeyConfig { tokens_per_minute: 60, ..key("tokens") };
    let (deployment, _parrot) = locked(FAST, vec![rate, tokens]).await;
    let answer = deployment.call(with("sk-rate", completion(1))).await;
    assert_eq!((answer.status, answer.header("x-ratelimit-limit-requests")), (200, "2"));
    assert_eq!(answer.header("x-ratelimit-remaining-requests"), "1");
    assert!(answer.header("x-ratelimit-reset-requests").ends_with('s'));
    assert_eq!(deployment.call(with("sk-rate", get("/v1/models"))).await.status, 200, "asking costs nothing");
    assert_eq!(deployment.call(with("sk-rate", completion(1))).await.status, 200);
    let refused = deployment.call(with("sk-rate", completion(1))).await;
    assert_eq!(code(&refused), (429, json!("rate_limit_exceeded")));
    assert_eq!(refused.json()["error"]["type"], "rate_limit_error");
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((20..=30).contains(&wait), "30 s after the first request at the latest: {wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-requests"), "0");

    let much = deployment.call(with("sk-tokens", completion(90))).await;
    assert_eq!(
        (much.status, much.json()["usage"]["completion_tokens"].as_u64()),
        (200, Some(90)),
        "what has begun ends"
    );
    let refused = deployment.call(with("sk-tokens", completion(1))).await;
    assert!(refused.body.contains("60 tokens per minute"), "{}", refused.body);
    let wait: u64 = refused.header("retry-after").parse().unwrap();
    assert!((20..=40).contains(&wait), "33 tokens of debt: {wait}");
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), "0");
    deployment.stop().await;
}

#[tokio::test]
async fn a_stream_is_one_of_those_at_a_time_until_its_client_has_it_or_leaves() {
    let one = KeyConfig { concurrency_max: 1, ..key("one") };
    let (deployment, parrot) = locked(Duration::from_millis(5), vec![one, key("other")]).await;
    let body = json!({"prompt": "ab", "max_tokens": 200, "stream": true, "ignore_eos": true});
    let mut first = Events::of(deployment.send(with("sk-one", post(COMPLETIONS, &body))).await);
    first.next().await.unwrap();
    let refused = deployment.call(with("sk-one", completion(1))).await;
    assert_eq!(refused.status, 429);
    assert!(refused.body.contains("1 requests at a time"), "{}", refused.body);
    assert_eq!(deployment.call(with("sk-other", completion(1))).await.status, 200, "others are not held up");
    drop(first);
    until("the stream has ended", || parrot.legs() == 0).await;
    let mut status = 429;
    while status == 429 {
        status = deployment.call(with("sk-one", completion(1))).await.status;
    }
    assert_eq!(status, 200);
    deployment.stop().await;
}

#[tokio::test]
async fn a_key_has_a_latency_class_of_its_own() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.slo.classes[1].name = "night".to_owned();
        config.keys.list = vec![KeyConfig { slo_class: "night".to_owned(), ..key("slow") }];
    })
    .await;
    assert_eq!(deployment.call(with("sk-slow", completion(1))).await.status, 200);
    assert!((metric("baton_requests_total", &["class=\"night\"", "outcome=\"ok\""]) - 1.0).abs() < 0.5);
    deployment.stop().await;
}

struct KeyFile(PathBuf);

impl KeyFile {
    fn new(name: &str, keys: &[&str]) -> KeyFile {
        let file = KeyFile(std::env::temp_dir().join(format!("baton-keys-{}-{name}.toml", std::process::id())));
        file.write(&KeyFile::text(keys));
        file
    }

    fn text(keys: &[&str]) -> String {
        let entry = |key: &&str| format!("[[key]]\nname = \"{key}\"\nsha256 = \"{}\"\n", digest(&format!("sk-{key}")));
        keys.iter().map(entry).collect()
    }

    fn write(&self, text: &str) {
        std::fs::write(&self.0, text).unwrap();
    }
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

async fn becomes(deployment: &Deployment, key: &str, status: u16) {
    let answered = async {
        while deployment.call(with(key, get("/v1/models"))).await.status != status {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, answered).await.unwrap_or_else(|_| panic!("{key} never gets {status}"));
}

#[tokio::test]
async fn a_changed_key_file_takes_effect_and_a_broken_one_does_not() {
    let file = KeyFile::new("reload", &["old"]);
    let (deployment, _parrot) =
        Deployment::aggregated(Duration::from_millis(20), |config| config.keys.file.clone_from(&file.0)).await;
    let body = json!({"prompt": "ab", "max_tokens": 250, "stream": true, "ignore_eos": true});
    let mut running = Events::of(deployment.send(with("sk-old", post(COMPLETIONS, &body))).await);
    running.next().await.unwrap();
    file.write(&KeyFile::text(&["new"]));
    becomes(&deployment, "sk-new", 200).await;
    becomes(&deployment, "sk-old", 401).await;
    assert_eq!(running.all().await.last().map(String::as_str), Some("[DONE]"), "what has begun goes on");
    file.write("[[key]]\nname = \"third\"\n");
    until("the broken file is noticed", || metric("baton_reloads_total", &["of=\"keys\"", "outcome=\"failed\""]) > 0.5)
        .await;
    becomes(&deployment, "sk-new", 200).await;
    file.write("");
    becomes(&deployment, "sk-new", 401).await;
    deployment.stop().await;
}

#[test]
fn a_router_without_its_key_file_does_not_start() {
    let file = KeyFile::new("start", &[]);
    file.write("[[key]]\nname = \"x\"\nsha256 = \"sk-oops\"\n");
    let workers = crate::Workers { decode: vec!["127.0.0.1:1".to_owned()], ..Default::default() };
    let mut config = Config { workers, ..Config::default() };
    config.keys.file.clone_from(&file.0);
    let error = crate::Router::load(config.clone(), metrics()).unwrap_err().to_string();
    assert!(error.contains("start.toml, line 3: key[0].sha256 is not the SHA-256"), "{error}");
    assert!(!error.contains("sk-oops"), "{error}");
    config.keys.file = PathBuf::from("/nowhere/keys.toml");
    let error = crate::Router::load(config, metrics()).unwrap_err().to_string();
    assert!(error.starts_with("router.keys.file: cannot read /nowhere/keys.toml"), "{error}");
}
