//! Connections with TLS: requests, streams and their end; whom the client trusts, and what it says of those it does not.

#![allow(clippy::unwrap_used, reason = "a test")]

mod server;

use std::sync::atomic::Ordering;

use client::http::{Client, Trust};
use client::{Error, Result};
use serde_json::json;
use server::{Behaviour, Opening, Server, certificate};

fn client(scheme: &str, host: &str, server: &Server, trusted: &str) -> Client {
    let target = format!("{scheme}://{host}:{}", server.address.port());
    Client::trusting(&target, &Trust::Only(certificate(trusted))).unwrap()
}

/// Number of events of a streamed answer of four tokens.
async fn streamed(client: &Client) -> Result<usize> {
    let mut events = client.stream("/v1/completions", json!({"max_tokens": 4}).to_string().into()).await?;
    let mut count = 0;
    while events.next().await?.is_some() {
        count += 1;
    }
    Ok(count)
}

/// Error with its causes.
fn told(error: &Error) -> String {
    let mut told = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        told = format!("{told}: {error}");
        cause = error.source();
    }
    told
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    let server = Server::opening(Opening::Tls, Behaviour::Good).await;
    let client = client("https", "localhost", &server, "one.pem");
    for _ in 0..3 {
        assert_eq!(streamed(&client).await.unwrap(), 5, "four tokens and the usage");
    }
    assert_eq!((server.connections.load(Ordering::SeqCst), server.requests.load(Ordering::SeqCst)), (1, 3));
}

#[tokio::test]
async fn what_is_wrong_with_a_connection_is_said() {
    let (secure, plain) =
        (Server::opening(Opening::Tls, Behaviour::Good).await, Server::start(Behaviour::Objects).await);
    let slams = Server::start(Behaviour::Slams).await;
    for (client, said) in [
        (client("https", "localhost", &secure, "two.pem"), "nobody who is trusted has signed its certificate; --ca"),
        (client("https", "127.0.0.1", &secure, "one.pem"), "its certificate is for another name"),
        (client("https", "localhost", &plain, "one.pem"), "what answers is no TLS; plain HTTP needs http://"),
        (client("https", "localhost", &slams, "one.pem"), "it hung up in the handshake; plain HTTP needs http://"),
        (client("http", "localhost", &secure, "one.pem"), "what answers is not HTTP; a port with TLS needs https://"),
    ] {
        let error = streamed(&client).await.unwrap_err();
        assert!(told(&error).contains(said), "{}: {}", client.target(), told(&error));
        assert!(told(&error).contains(client.target().authority()), "{}", told(&error));
    }
}

#[test]
fn files_that_hold_no_certificate_are_named() {
    for (file, said) in [
        ("one.key", "one.key: there is no certificate in PEM"),
        ("none.pem", "none.pem"),
        ("../mod.rs", "mod.rs: there is no certificate in PEM"),
    ] {
        let error = Client::trusting("https://localhost", &Trust::Only(certificate(file))).unwrap_err();
        assert!(error.to_string().contains(said), "{error}");
    }
    let odd = Client::trusting("https://a_b-.:1", &Trust::Only(certificate("one.pem"))).unwrap_err();
    assert!(odd.to_string().contains("no certificate can be for such a name"), "{odd}");
}
