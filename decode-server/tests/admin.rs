//! Admin HTTP of both roles: readiness, version, and metrics that follow a hand-off and return to zero.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "helpers of tests")]

mod support;

use engine::TransportChoice::Tcp;
use node::telemetry::Metrics;
use support::{PATIENCE, Process, Router, decode, engine, prefill, request};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn get(address: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    answer
}

fn value(metrics: &str, series: &str) -> f64 {
    let line = metrics.lines().find(|line| line.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
    let line = line.unwrap_or_else(|| panic!("{series} is not in\n{metrics}"));
    line[series.len()..].trim().parse().unwrap()
}

#[tokio::test]
async fn metrics_follow_a_hand_off_and_gauges_return_to_zero() {
    let metrics = Metrics::install("decode").unwrap();
    let prefill = Process::prefill_with(prefill(engine("llama", Tcp, 1_000.0)), metrics.clone()).await;
    let decode = decode(engine("llama", Tcp, 1_000.0), &[&prefill.started.address]);
    let decode = Process::decode_with(decode, metrics).await;
    for worker in [&prefill, &decode] {
        assert!(get(&worker.started.admin_address, "/ready").await.starts_with("HTTP/1.1 200"));
    }
    let version = get(&decode.started.admin_address, "/version").await;
    assert!(version.contains(r#""role":"decode","model":"llama""#), "{version}");

    let mut router = Router::between(&prefill, &decode).await;
    router.decode.pairs(1).await;
    router.serve(&request(1, 100, 10)).await;
    router.prefill.settled().await;
    router.decode.settled().await;

    let text = get(&decode.started.admin_address, "/metrics").await;
    let bytes = value(&text, r#"baton_kv_transfer_bytes_total{role="decode",transport="tcp"}"#);
    assert!(bytes > 0.0);
    assert_eq!(value(&text, r#"baton_kv_transfer_seconds_count{role="decode",transport="tcp"}"#), 1.0);
    assert_eq!(value(&text, r#"baton_kv_transfers_total{role="decode",transport="tcp",end="done"}"#), 1.0);
    let speed = format!(
        r#"baton_kv_transfer_bytes_per_second{{role="decode",transport="tcp",peer="{}"}}"#,
        prefill.started.address
    );
    assert!(value(&text, &speed) > 0.0);
    assert_eq!(value(&text, r#"baton_prompt_tokens_total{role="prefill"}"#), 100.0);
    assert_eq!(value(&text, r#"baton_generated_tokens_total{role="prefill"}"#), 1.0);
    assert_eq!(value(&text, r#"baton_generated_tokens_total{role="decode"}"#), 9.0);
    assert_eq!(value(&text, r#"baton_handoffs_total{role="prefill",outcome="handed_over"}"#), 1.0);
    assert_eq!(value(&text, r#"baton_handoffs_total{role="decode",outcome="joined"}"#), 1.0);
    assert_eq!(value(&text, r#"baton_peers_up{role="decode"}"#), 1.0);
    for role in ["prefill", "decode"] {
        for state in ["in_use", "quarantined"] {
            assert_eq!(value(&text, &format!(r#"baton_kv_blocks{{role="{role}",state="{state}"}}"#)), 0.0);
        }
        let held = value(&text, &format!(r#"baton_held_legs{{role="{role}"}}"#));
        let running = value(&text, &format!(r#"baton_running_sequences{{role="{role}"}}"#));
        assert_eq!((held, running), (0.0, 0.0));
        assert_eq!(value(&text, &format!(r#"baton_invariants_broken_total{{role="{role}"}}"#)), 0.0);
    }
}
