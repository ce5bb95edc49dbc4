//! Opens listening ports; errors name the port and its purpose.

use std::collections::BTreeSet;
use std::net::{Ipv6Addr, SocketAddr};

use thiserror::Error;
use tokio::net::TcpListener;

use crate::key::KeyDigest;

/// Form of an address in a configuration.
const FORM: &str = "expected host:port, such as 127.0.0.1:8000 or [::1]:8000";

/// Reads an address to listen on, `host:port`; a port alone (`8000` or `:8000`) means 127.0.0.1. Other texts are
/// errors.
pub fn listen_address(text: &str) -> Result<String, String> {
    let alone = text.strip_prefix(':').unwrap_or(text);
    match alone.parse::<u16>() {
        // Rust also reads `+80` as a number.
        Ok(port) if !alone.starts_with('+') => Ok(format!("127.0.0.1:{port}")),
        Ok(_) | Err(_) => host_and_port(text).map_err(|problem| format!("{problem}, or a port alone")),
    }
}

/// Reads an address of another process, `host:port`; other texts are errors.
pub fn host_and_port(text: &str) -> Result<String, String> {
    let wrong = || format!("is {text:?}, {FORM}");
    let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
    let is_port = port.bytes().all(|digit| digit.is_ascii_digit()) && port.parse::<u16>().is_ok();
    if is_port && is_host(host) { Ok(text.to_owned()) } else { Err(wrong()) }
}

/// Checks addresses of other processes: each must be callable, and none may occur twice. An error has the place of the
/// first wrong address, and what is wrong with it.
pub fn addresses_of_others<'a>(addresses: impl IntoIterator<Item = &'a str>) -> Result<(), (usize, String)> {
    let mut seen = BTreeSet::new();
    for (place, address) in addresses.into_iter().enumerate() {
        host_and_port(address).map_err(|problem| (place, problem))?;
        if address.ends_with(":0") {
            return Err((place, format!("is {address:?}, and nobody answers at port 0")));
        }
        if !seen.insert(address) {
            return Err((place, format!("is {address:?}, which is named twice")));
        }
    }
    Ok(())
}

/// Returns true for a name, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_host(host: &str) -> bool {
    match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inside) => inside.split('%').next().is_some_and(|address| address.parse::<Ipv6Addr>().is_ok()),
        None => !host.is_empty() && host.chars().all(|letter| letter.is_alphanumeric() || "-._".contains(letter)),
    }
}

/// Most bytes of a worker's name.
const NAME_BYTES_MAX: usize = 128;

/// Checks a worker's name, which becomes a label and a word of log lines; an error is the reason.
pub fn check_name(name: &str) -> Result<(), String> {
    match name.len() <= NAME_BYTES_MAX && name.bytes().all(|letter| letter.is_ascii_graphic()) {
        true => Ok(()),
        false => Err(format!("is {name:?}, expected at most {NAME_BYTES_MAX} visible ASCII characters")),
    }
}

/// Most bytes of a model's name.
const MODEL_NAME_BYTES_MAX: usize = 256;

/// Checks a name by which clients call a model; an error is the reason.
pub fn check_model_name(name: &str) -> Result<(), String> {
    let is_name = !name.is_empty() && name.len() <= MODEL_NAME_BYTES_MAX && name.trim() == name;
    match is_name && !name.contains(char::is_control) {
        true => Ok(()),
        false => Err(format!(
            "is {name:?}, expected 1 to {MODEL_NAME_BYTES_MAX} bytes without control characters or spaces around them"
        )),
    }
}

/// Error: a port could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {purpose}")]
pub struct BindError {
    /// Address as configured.
    pub address: String,
    /// Purpose of the port.
    pub purpose: &'static str,
    /// Error of the system.
    pub source: std::io::Error,
}

/// Open port.
#[derive(Debug)]
pub struct Bound {
    /// The listener.
    pub listener: TcpListener,
    /// Actual address; for port 0 in the configuration the system chooses the port.
    pub address: SocketAddr,
}

/// Listens on `address` (see [`listen_address`]); fails when it is invalid, in use, or not of this machine.
pub async fn bind(address: &str, purpose: &'static str) -> Result<Bound, BindError> {
    let failed = |source| BindError { address: address.to_owned(), purpose, source };
    let wanted = listen_address(address).map_err(|problem| {
        let problem = format!("the address {problem}");
        failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, problem))
    })?;
    let listener = TcpListener::bind(&wanted).await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok(Bound { listener, address })
}

/// The two ports of a worker, opened before anything expensive is loaded.
#[derive(Debug)]
pub struct WorkerPorts {
    /// Sessions with routers and conversations with peers.
    pub grpc: Bound,
    /// Health, readiness, metrics.
    pub admin: Bound,
    /// Address of the gRPC port for other hosts.
    pub advertised: String,
    /// Key of the operators, who alone may read metrics at the admin port.
    pub admin_key: Option<KeyDigest>,
}

impl WorkerPorts {
    /// Opens both ports. `advertise` is the address for other hosts (`host` or `host:port`); empty means the bound one.
    ///
    /// # Errors
    /// When a port cannot be opened, or is bound to all addresses and `advertise` names none.
    pub async fn bind(listen: &str, advertise: &str, admin_listen: &str) -> Result<WorkerPorts, BindError> {
        let grpc = bind(listen, "gRPC").await?;
        let advertised = advertised(advertise, grpc.address).map_err(|reason| BindError {
            address: listen.to_owned(),
            purpose: "gRPC",
            source: std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, reason),
        })?;
        let admin = bind(admin_listen, "admin HTTP").await?;
        Ok(WorkerPorts { grpc, admin, advertised, admin_key: None })
    }

    /// Guards the admin port with a key.
    #[must_use]
    pub fn guarded_by(self, admin_key: Option<KeyDigest>) -> WorkerPorts {
        WorkerPorts { admin_key, ..self }
    }
}

fn advertised(advertise: &str, bound: SocketAddr) -> Result<String, &'static str> {
    let names_port = host_and_port(advertise).is_ok();
    match advertise {
        "" if bound.ip().is_unspecified() => Err("it has no address to tell others: set advertise"),
        "" => Ok(bound.to_string()),
        _ if names_port => Ok(advertise.to_owned()),
        host if host.parse::<Ipv6Addr>().is_ok() => Ok(format!("[{host}]:{}", bound.port())),
        host => Ok(format!("{host}:{}", bound.port())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::chain;

    #[tokio::test]
    async fn a_port_in_use_is_named_and_its_cause_is_said_once() {
        let first = bind("127.0.0.1:0", "sessions").await.unwrap();
        let said = chain(&bind(&first.address.to_string(), "metrics").await.unwrap_err());
        let start = format!("cannot listen on {} for metrics: ", first.address);
        assert!(said.starts_with(&start), "{said}");
        assert_eq!(said.matches("in use").count(), 1, "{said}");
        assert_eq!(said.matches(&first.address.to_string()).count(), 1, "{said}");
        assert!(bind("nonsense", "metrics").await.unwrap_err().to_string().starts_with("cannot listen on nonsense"));
    }

    #[test]
    fn addresses_are_understood_as_people_write_them() {
        for (text, meant) in [
            ("127.0.0.1:8001", "127.0.0.1:8001"),
            ("0.0.0.0:80", "0.0.0.0:80"),
            ("8001", "127.0.0.1:8001"),
            (":8001", "127.0.0.1:8001"),
            ("localhost:8001", "localhost:8001"),
            ("[::1]:8001", "[::1]:8001"),
            ("[fe80::1%eth0]:1", "[fe80::1%eth0]:1"),
            ("worker-0.baton_pool.svc:0", "worker-0.baton_pool.svc:0"),
        ] {
            assert_eq!(listen_address(text).as_deref(), Ok(meant), "{text:?}");
        }
        for text in [
            "",
            ":",
            "localhost",
            "::1:8001",
            "[::1]",
            "1:2:3",
            "a b:1",
            "host:",
            "host:99999",
            "99999",
            "+80",
            ":+80",
            "http://a:1",
            "host:+1",
            "-1",
            "[x]:1",
            "a:1/",
            "\n:1",
        ] {
            let said = listen_address(text).unwrap_err();
            assert!(said.contains("expected host:port"), "{text:?}: {said}");
            assert!(host_and_port(text).is_err(), "{text:?}");
        }
        assert!(host_and_port("8001").is_err(), "a port alone is no other process");
    }

    #[test]
    fn others_are_named_once_and_where_they_answer() {
        assert_eq!(addresses_of_others(["a:1", "b:1", "a:2", "[::1]:1"]), Ok(()));
        let said = |addresses: &[&str]| addresses_of_others(addresses.iter().copied()).unwrap_err();
        assert_eq!(said(&["a:1", "b:0"]), (1, "is \"b:0\", and nobody answers at port 0".to_owned()));
        assert_eq!(said(&["a:1", "b:1", "a:1"]), (2, "is \"a:1\", which is named twice".to_owned()));
        assert_eq!(said(&["a"]).0, 0);
    }

    #[tokio::test]
    async fn others_are_told_an_address_that_they_can_reach() {
        let ports = WorkerPorts::bind("127.0.0.1:0", "", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, ports.grpc.address.to_string());
        let ports = WorkerPorts::bind("0.0.0.0:0", "decode-0.baton", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, format!("decode-0.baton:{}", ports.grpc.address.port()));
        let ports = WorkerPorts::bind("0.0.0.0:0", "10.0.0.7:99", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, "10.0.0.7:99");
        let ports = WorkerPorts::bind("0.0.0.0:0", "fd00::7", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, format!("[fd00::7]:{}", ports.grpc.address.port()));
        let said = chain(&WorkerPorts::bind("0.0.0.0:0", "", "127.0.0.1:0").await.unwrap_err());
        assert!(said.contains("set advertise"), "{said}");
    }
}
