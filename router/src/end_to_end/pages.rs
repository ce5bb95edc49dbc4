//! Tests of web pages at the API: what browsers ask before, send and may read, with keys and over TLS.

use std::path::PathBuf;
use std::sync::Arc;

use node::key::KeyDigest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

use super::FAST;
use super::deployment::{Deployment, PATIENCE, post};
use crate::KeyConfig;

const ORIGIN: &str = "https://chat.example";
/// What a page with OpenAI's client asks for.
const ASKED: &str = "authorization,content-type,x-stainless-arch,x-stainless-lang,x-stainless-os,\
                     x-stainless-package-version,x-stainless-retry-count,x-stainless-runtime,\
                     x-stainless-runtime-version,x-stainless-timeout";

fn preflight(origin: &str) -> hyper::Request<String> {
    hyper::Request::options("/v1/chat/completions")
        .header("host", "localhost")
        .header("origin", origin)
        .header("access-control-request-method", "POST")
        .header("access-control-request-headers", ASKED)
        .header("sec-fetch-mode", "cors")
        .body(String::new())
        .unwrap()
}

fn sent(origin: &str, key: &str) -> hyper::Request<String> {
    let mut request = post("/v1/completions", &json!({"prompt": "a", "max_tokens": 1}));
    for (name, value) in [("origin", origin), ("authorization", key), ("x-stainless-lang", "js")] {
        request.headers_mut().insert(name, value.parse().unwrap());
    }
    request
}

#[tokio::test]
async fn a_page_asks_without_a_key_and_then_sends_it() {
    let limited =
        KeyConfig { requests_per_minute: 5, ..KeyConfig::unlimited("page", KeyDigest::of(b"sk-page").unwrap()) };
    for allowed in [ORIGIN, "*"] {
        let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
            config.allowed_origins.push(allowed.to_owned());
            config.keys.list = vec![limited.clone()];
        })
        .await;
        let answer = deployment.call(preflight(ORIGIN)).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, ORIGIN));
        assert_eq!(answer.header("access-control-allow-headers"), ASKED);
        assert!(answer.header("access-control-allow-methods").contains("POST"));
        assert!(answer.header("access-control-max-age").parse::<u32>().unwrap() > 0);
        assert!(answer.headers.get("access-control-allow-credentials").is_none(), "cookies mean nothing here");

        let answer = deployment.call(sent(ORIGIN, "Bearer sk-page")).await;
        assert_eq!((answer.status, answer.header("access-control-allow-origin")), (200, ORIGIN));
        let readable = answer.header("access-control-expose-headers");
        for name in ["x-request-id", "x-ratelimit-remaining-requests", "retry-after"] {
            assert!(readable.contains(name), "{name}: {readable}");
        }
        let refused = deployment.call(sent(ORIGIN, "Bearer wrong")).await;
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (401, ORIGIN), "it may read why");
        deployment.stop().await;
    }
}

#[tokio::test]
async fn a_page_of_another_origin_gets_nothing_with_or_without_a_key() {
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.allowed_origins.push(ORIGIN.to_owned());
        config.keys.list = vec![KeyConfig::unlimited("page", KeyDigest::of(b"sk-page").unwrap())];
    })
    .await;
    for request in [preflight("https://evil.example"), sent("https://evil.example", "Bearer sk-page")] {
        let answer = deployment.call(request).await;
        assert_eq!((answer.status, answer.json()["error"]["code"].as_str()), (403, Some("origin_not_allowed")));
        assert!(answer.headers.get("access-control-allow-origin").is_none());
    }
    deployment.stop().await;
}

#[tokio::test]
async fn the_api_is_served_over_tls() {
    let certificates = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../node/tests/support/certificates"));
    let (deployment, _parrot) = Deployment::aggregated(FAST, |config| {
        config.tls.cert_file = certificates.join("one.pem");
        config.tls.key_file = certificates.join("one.key");
    })
    .await;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.join("one.pem")).unwrap()).unwrap();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let stream = TcpStream::connect(deployment.address).await.unwrap();
    let name = ServerName::try_from("localhost").unwrap();
    let mut client = TlsConnector::from(Arc::new(config)).connect(name, stream).await.unwrap();
    // A page that this server has sent is of its own origin.
    let head = "GET /v1/models HTTP/1.1\r\nhost: localhost:8000\r\norigin: https://localhost:8000\r\nconnection: close\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, client.read_to_string(&mut answer)).await.expect("an answer in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(r#""id":"parrot""#), "{answer}");
    deployment.stop().await;
}
