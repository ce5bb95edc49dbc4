//! Opens listening ports, with errors that say which one and what for.

use std::net::SocketAddr;

use thiserror::Error;
use tokio::net::TcpListener;

/// A port could not be opened.
#[derive(Debug, Error)]
#[error("cannot listen on {address} for {purpose}: {source}")]
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_in_use_is_named() {
        let first = bind("127.0.0.1:0", "sessions").await.unwrap();
        let said = bind(&first.address.to_string(), "metrics").await.unwrap_err().to_string();
        assert!(said.starts_with(&format!("cannot listen on {} for metrics: ", first.address)), "{said}");
        assert!(bind("nonsense", "metrics").await.unwrap_err().to_string().starts_with("cannot listen on nonsense"));
    }
}
