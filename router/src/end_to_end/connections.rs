//! Connections that stand still do not keep their places.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

use super::FAST;
use super::deployment::{Deployment, PATIENCE, until};
use super::parrot::Parrot;

#[tokio::test]
async fn a_connection_without_a_request_is_closed() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| config.limits.head_ms_max = 50).await;
    let http2 = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    for said in ["", "G", "GET /health HTTP/1.1\r\nhost: localhost\r\n", "PRI * HT", http2] {
        let mut client = TcpStream::connect(deployment.address).await.unwrap();
        client.write_all(said.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // Unread bytes may turn the end into a reset; the place is free in both cases.
        let _ = timeout(PATIENCE, client.read_to_end(&mut answer)).await.unwrap_or_else(|_| panic!("{said:?} stays"));
    }
    deployment.stop().await;
}

/// Asks for some megabytes of chunks, more than a socket buffers, and waits until they are generated.
async fn asks_for_much(deployment: &Deployment, parrot: &Parrot) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4_096).unwrap();
    let mut client = socket.connect(deployment.address).await.unwrap();
    let body = json!({
        "prompt": vec!["abc"; 16], "n": 16, "max_tokens": 200, "stream": true, "logprobs": 0, "return_token_ids": true,
    });
    let head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\ncontent-length";
    let request = format!("{head}: {}\r\n\r\n{body}", body.to_string().len());
    client.write_all(request.as_bytes()).await.unwrap();
    until("it runs", || parrot.legs() > 0).await;
    until("the worker is done", || parrot.legs() == 0).await;
    client
}

async fn is_free(deployment: &Deployment) {
    let next = json!({"prompt": "x", "max_tokens": 1});
    let free = async {
        while deployment.post("/v1/completions", &next).await.status != 200 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, free).await.expect("the place is free again");
}

#[tokio::test]
async fn a_client_that_reads_nothing_gives_its_place_back() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.requests_max = 1;
        config.limits.unread_ms_max = 100;
    })
    .await;
    let client = asks_for_much(&deployment, &parrot).await;
    is_free(&deployment).await;
    drop(client);
    deployment.stop().await;
}

#[tokio::test]
async fn a_client_that_reads_too_little_gives_its_place_back() {
    let (deployment, parrot) = Deployment::aggregated(FAST, |config| {
        config.limits.requests_max = 1;
        config.limits.unread_ms_max = 500;
        config.limits.answer_bytes_per_s_min = 1 << 30;
    })
    .await;
    let mut client = asks_for_much(&deployment, &parrot).await;
    // The client never stops reading, and reading all would take minutes.
    let mut some = [0; 2_048];
    let reading = async {
        loop {
            let _ = client.read(&mut some).await;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::select! {
        () = is_free(&deployment) => {}
        () = reading => {}
    }
    deployment.stop().await;
}
