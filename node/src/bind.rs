//! Opens listening ports, with errors that say which one and what for.

use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;

/// A port could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {purpose}")]
pub struct BindError {
    /// The address as configured.
    pub address: String,
    /// What should have listened there.
    pub purpose: &'static str,
    /// What the system said.
    pub source: std::io::Error,
}

/// A port that is open.
#[derive(Debug)]
pub struct Bound {
    /// The listener.
    pub listener: TcpListener,
    /// Where it really listens: port 0 in the configuration lets the system choose.
    pub address: SocketAddr,
}

/// Listens on `address` (`host:port`).
///
/// # Errors
/// The address is not one, is in use, or is not ours.
pub async fn bind(address: &str, purpose: &'static str) -> Result<Bound, BindError> {
    let failed = |source| BindError { address: address.to_owned(), purpose, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
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
    /// Where other hosts reach the first.
    pub advertised: String,
}

impl WorkerPorts {
    /// Opens both. `advertise` is what other hosts are told (`host` or `host:port`); empty is where `listen` is bound.
    ///
    /// # Errors
    /// A port cannot be opened, or it is bound to every address and nothing says which one to tell.
    pub async fn bind(listen: &str, advertise: &str, admin_listen: &str) -> Result<WorkerPorts, BindError> {
        let grpc = bind(listen, "gRPC").await?;
        let advertised = advertised(advertise, grpc.address).map_err(|reason| BindError {
            address: listen.to_owned(),
            purpose: "gRPC",
            source: std::io::Error::new(std::io::ErrorKind::AddrNotAvailable, reason),
        })?;
        let admin = bind(admin_listen, "admin HTTP").await?;
        Ok(WorkerPorts { grpc, admin, advertised })
    }
}

fn advertised(advertise: &str, bound: SocketAddr) -> Result<String, &'static str> {
    let names_port = advertise.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    match advertise {
        "" if bound.ip().is_unspecified() => Err("it has no address to tell others: set advertise"),
        "" => Ok(bound.to_string()),
        _ if names_port => Ok(advertise.to_owned()),
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

    #[tokio::test]
    async fn others_are_told_an_address_that_they_can_reach() {
        let ports = WorkerPorts::bind("127.0.0.1:0", "", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, ports.grpc.address.to_string());
        let ports = WorkerPorts::bind("0.0.0.0:0", "decode-0.baton", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, format!("decode-0.baton:{}", ports.grpc.address.port()));
        let ports = WorkerPorts::bind("0.0.0.0:0", "10.0.0.7:99", "127.0.0.1:0").await.unwrap();
        assert_eq!(ports.advertised, "10.0.0.7:99");
        let said = chain(&WorkerPorts::bind("0.0.0.0:0", "", "127.0.0.1:0").await.unwrap_err());
        assert!(said.contains("set advertise"), "{said}");
    }
}
