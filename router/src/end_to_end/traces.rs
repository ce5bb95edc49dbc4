//! Tests of the traces of requests, in builds that send them.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::FAST;
use super::deployment::{Deployment, PATIENCE, metric, post, until};

/// Takes one message of the router and returns its spans.
async fn collected(listener: &TcpListener) -> Vec<Value> {
    let (mut stream, _) = timeout(PATIENCE, listener.accept()).await.expect("a message in time").unwrap();
    let mut text = String::new();
    let body = loop {
        let mut bytes = [0; 4_096];
        let read = timeout(PATIENCE, stream.read(&mut bytes)).await.expect("bytes in time").unwrap();
        text.push_str(std::str::from_utf8(&bytes[..read]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
        if let Ok(body) = serde_json::from_str::<Value>(body) {
            break body;
        }
    };
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}").await.unwrap();
    body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
}

fn ns(span: &Value, field: &str) -> u64 {
    span[field].as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_request_is_a_span_in_its_clients_trace_with_its_parts_under_it() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("http://{}", listener.local_addr().unwrap());
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.traces.collector = collector).await;
    let body = json!({"prompt": "abc", "max_tokens": 3});
    let mut request = post("/v1/completions", &body);
    let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    request.headers_mut().insert("traceparent", parent.parse().unwrap());
    let mut unwanted = request.clone();
    unwanted.headers_mut().insert("traceparent", parent.replace("-01", "-00").parse().unwrap());
    assert_eq!(deployment.call(unwanted).await.status, 200);
    assert_eq!(deployment.call(request).await.status, 200);
    let spans = collected(&listener).await;
    let names: Vec<&str> = spans.iter().map(|span| span["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["POST /v1/completions", "parse", "admission", "queue", "prefill", "relay", "decode"]);
    let (whole, parts) = spans.split_first().unwrap();
    assert_eq!(whole["parentSpanId"], "00f067aa0ba902b7");
    let mut at = ns(whole, "startTimeUnixNano");
    for part in parts {
        assert_eq!(part["traceId"], "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(part["parentSpanId"], whole["spanId"]);
        assert_eq!(ns(part, "startTimeUnixNano"), at, "one after the other: {part}");
        at = ns(part, "endTimeUnixNano");
    }
    assert_eq!(at, ns(whole, "endTimeUnixNano"), "the parts are the whole");
    assert!(!json!(spans).to_string().contains("abc"), "no text of a client");
    deployment.stop().await;
}

#[tokio::test]
async fn a_collector_that_is_not_there_costs_a_counter() {
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let collector = format!("http://{nobody}");
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.traces.collector = collector).await;
    let before = metric("baton_traces_dropped_total", &[]);
    for _ in 0..3 {
        let body = json!({"prompt": "abc", "max_tokens": 1});
        assert_eq!(deployment.post("/v1/completions", &body).await.status, 200);
    }
    until("they are counted", || metric("baton_traces_dropped_total", &[]) > before + 2.5).await;
    deployment.stop().await;
}
