//! TLS at the door: protocols, changing certificates, and clients that do not play along.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use node::door::{ConnectionLimits, Look, Tls, TlsFiles};
use support::{DATA, Door, PATIENCE, frame_of, get, hello, limits, send, until_closed};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};

const ONE: (&str, &str) = (include_str!("support/certificates/one.pem"), include_str!("support/certificates/one.key"));
const TWO: (&str, &str) = (include_str!("support/certificates/two.pem"), include_str!("support/certificates/two.key"));

/// Files of a certificate and its key, deleted at the end.
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

impl Files {
    fn new(name: &str) -> Files {
        let at = |kind: &str| std::env::temp_dir().join(format!("baton-tls-{}-{name}.{kind}", std::process::id()));
        let files = Files { cert: at("pem"), key: at("key") };
        files.write(ONE.0, ONE.1);
        files
    }

    fn write(&self, cert: &str, key: &str) {
        std::fs::write(&self.cert, cert).unwrap();
        std::fs::write(&self.key, key).unwrap();
    }

    fn load(&self) -> (Tls, TlsFiles) {
        Tls::load(&self.cert, &self.key).unwrap()
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.cert);
        let _ = std::fs::remove_file(&self.key);
    }
}

async fn connect(door: &Door, protocols: &[&str]) -> TlsStream<TcpStream> {
    let mut roots = RootCertStore::empty();
    for (cert, _) in [ONE, TWO] {
        roots.add(CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()).unwrap();
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    let name = ServerName::try_from("localhost").unwrap();
    let connecting = TlsConnector::from(Arc::new(config)).connect(name, door.connect().await);
    timeout(PATIENCE, connecting).await.expect("a handshake in time").unwrap()
}

fn is_of(stream: &TlsStream<TcpStream>, (cert, _): (&str, &str)) -> bool {
    let shown = stream.get_ref().1.peer_certificates().unwrap();
    shown[0] == CertificateDer::from_pem_slice(cert.as_bytes()).unwrap()
}

async fn asks(stream: &mut TlsStream<TcpStream>) -> String {
    stream.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    while !answer.ends_with("HTTP/1.1 0") {
        let mut some = [0; 1_024];
        let read = timeout(PATIENCE, stream.read(&mut some)).await.expect("an answer in time").unwrap();
        assert!(read > 0, "the connection has ended: {answer}");
        answer.push_str(std::str::from_utf8(&some[..read]).unwrap());
    }
    answer
}

#[tokio::test]
async fn the_client_chooses_the_protocol() {
    let files = Files::new("protocol");
    let door = Door::open(limits(), Some(files.load().0)).await;
    for (offered, agreed) in [(&["h2", "http/1.1"][..], Some("h2")), (&["http/1.1"], Some("http/1.1")), (&[], None)] {
        let mut client = connect(&door, offered).await;
        assert_eq!(client.get_ref().1.alpn_protocol(), agreed.map(str::as_bytes));
        if agreed == Some("h2") {
            send(&mut client, &[hello(1 << 16), get(1, "/")].concat()).await;
            assert_eq!(frame_of(&mut client, DATA).await.expect("an answer").1, b"HTTP/2.0 0");
        } else {
            assert!(asks(&mut client).await.starts_with("HTTP/1.1 200"));
        }
    }
    door.shut().await;
}

#[tokio::test]
async fn a_new_certificate_is_for_new_connections_and_a_bad_one_for_none() {
    let files = Files::new("reload");
    let (tls, mut watched) = files.load();
    let door = Door::open(limits(), Some(tls.clone())).await;
    let mut old = connect(&door, &[]).await;
    assert!(is_of(&old, ONE));
    // Half of the exchange is done: the new certificate does not fit the old key.
    files.write(TWO.0, ONE.1);
    let Look::Unusable(error) = watched.look(&tls).await else { panic!("the two do not fit") };
    assert!(error.to_string().contains("cannot be used together"), "{error}");
    assert!(is_of(&connect(&door, &[]).await, ONE));
    files.write(TWO.0, TWO.1);
    assert!(matches!(watched.look(&tls).await, Look::Changed));
    assert!(is_of(&connect(&door, &[]).await, TWO));
    assert!(asks(&mut old).await.starts_with("HTTP/1.1 200"), "an old connection goes on");
    for (cert, key, said) in [
        ("", TWO.1, "no certificate chain"),
        (TWO.0, "", "no private key"),
        (TWO.1, TWO.0, "no certificate chain"),
        ("-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n", TWO.1, "no certificate chain"),
    ] {
        files.write(cert, key);
        let Look::Unusable(error) = watched.look(&tls).await else { panic!("{said}") };
        assert!(error.to_string().contains(said), "{error}");
        assert!(matches!(watched.look(&tls).await, Look::Same), "a fault is reported once");
    }
    assert!(is_of(&connect(&door, &[]).await, TWO));
    door.shut().await;
}

#[tokio::test]
async fn plain_http_is_told_that_the_port_speaks_tls() {
    let files = Files::new("plain");
    let door = Door::open(limits(), Some(files.load().0)).await;
    let mut client = door.connect().await;
    client.write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let answer = String::from_utf8(until_closed(&mut client).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 400 ") && answer.ends_with("speaks HTTPS and not plain HTTP.\n"), "{answer}");
    for said in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", b"\x00"] {
        let mut client = door.connect().await;
        client.write_all(said).await.unwrap();
        client.shutdown().await.unwrap();
        until_closed(&mut client).await;
    }
    door.shut().await;
}

#[tokio::test]
async fn a_handshake_has_an_end_and_keeps_no_place() {
    let files = Files::new("slow");
    let hasty = ConnectionLimits { head_time_max: Duration::from_millis(100), ..limits() };
    let door = Door::open(hasty, Some(files.load().0)).await;
    for said in [&b""[..], b"\x16", b"\x16\x03\x01\x02\x00\x01"] {
        let mut client = door.connect().await;
        client.write_all(said).await.unwrap();
        until_closed(&mut client).await;
    }
    door.shut().await;
    let narrow = ConnectionLimits { connections_max: 1, ..limits() };
    let door = Door::open(narrow, Some(files.load().0)).await;
    let mut slow = door.connect().await;
    slow.write_all(b"\x16\x03\x01\x02\x00\x01").await.unwrap();
    let mut quick = connect(&door, &[]).await;
    assert!(asks(&mut quick).await.starts_with("HTTP/1.1 200"));
    until_closed(&mut slow).await;
    drop(quick);
    door.shut().await;
}

#[test]
fn files_that_cannot_be_used_are_named() {
    let files = Files::new("names");
    files.write(ONE.0, TWO.1);
    let error = Tls::load(&files.cert, &files.key).unwrap_err().to_string();
    assert!(error.contains("names.pem") && error.contains("names.key"), "{error}");
    let error = Tls::load(&files.cert, &PathBuf::from("/nowhere/key.pem")).unwrap_err().to_string();
    assert!(error.starts_with("cannot read /nowhere/key.pem"), "{error}");
}
