//! Connections that stand still do not keep their places.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::FAST;
use super::deployment::{Deployment, PATIENCE};

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.head_ms_max = 50).await;
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for said in ["", "G", "GET /health HTTP/1.1\r\nhost: localhost\r\n", "PRI * HT", http2] {
        let mut client = TcpStream::connect(deployment.address).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Bytes that nobody has read may turn the end into a reset: either way the place is free.
        let _ = timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap_or_else(|_| panic!("{said:?} stays"));
    }
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_nothing_gives_its_place_back() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.requests_max = 1;
        config.limits.unread_ms_max = 100;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(deployment.address).await.unwrap();
    // Some megabytes of chunks: more than the system keeps for a connection.
    let body = json!({
        "prompt": vec!["abc"; 16], "n": 16, "max_tokens": 200, "stream": true, "logprobs": 0, "return_token_ids": true,
    });
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length";
    let request = format!("{head}: {}\r\n\r\n{body}", body.to_string().len());
    client.write_all(request.as_bytes()).await.unwrap();
    super::deployment::until("it runs", || parrot.legs() > 0).await;
    super::deployment::until("the worker is done", || parrot.legs() == 0).await;
    let next = json!({"prompt": "x", "max_tokens": 1});
    let free = async {
        while deployment.post("/v1/completions", &next).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("the place is free again");
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_takes_too_little_is_given_up_too() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.unread_ms_max = 500;
        config.limits.answer_bytes_per_s_min = 1 << 30;
    })
    .await;
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(deployment.address).await.unwrap();
    let body = json!({
        "prompt": vec!["abc"; 16], "n": 16, "max_tokens": 200, "stream": true, "logprobs": 0, "return_token_ids": true,
    });
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length";
    let request = format!("{head}: {}\r\n\r\n{body}", body.to_string().len());
    client.write_all(request.as_bytes()).await.unwrap();
    // It never stops reading, and all of it would take minutes.
    let (mut some, mut end) = ([0; 2_048], Vec::new());
    let reading = async {
        while let Ok(taken @ 1..) = client.read(&mut some).await {
            end = some[..taken].to_vec();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(PATIENCE, reading).await.expect("it is given up");
    assert!(!end.ends_with(b"0\r\n\r\n"), "it had taken everything");
    deployment.stop().await;
}
