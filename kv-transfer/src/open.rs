//! Opens a transport by its kind; the only file that knows all of them.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use crate::{Fabric, Setup, TransferError, Transport, TransportKind, in_process, shm, tcp};

/// Settings of particular transports beyond [`Setup`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Address on which tcp listens; port 0 lets the system choose.
    pub tcp_listen: SocketAddr,
    /// Address that peers are told in place of the one listened on; needed when that is unspecified (0.0.0.0).
    pub tcp_advertise: Option<IpAddr>,
    /// UCX transports to open, in the syntax of `UCX_TLS`. `posix,cma` serves one host; an RDMA build adds `rc`.
    pub ucx_tls: String,
    /// Whether the UCX transports may include RDMA.
    pub ucx_fabric: Fabric,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            tcp_listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            tcp_advertise: None,
            ucx_tls: "posix,cma".to_owned(),
            ucx_fabric: Fabric::Untrusted,
        }
    }
}

/// Opens the transport that was asked for, never another; an error says why it cannot be opened.
pub fn open(kind: TransportKind, setup: &Setup, options: &Options) -> Result<Transport, TransferError> {
    match kind {
        TransportKind::Ucx => open_ucx(setup, options),
        TransportKind::Tcp => tcp::open(setup, options.tcp_listen, options.tcp_advertise),
        TransportKind::Shm => shm::open(setup),
        TransportKind::InProcess => in_process::open(setup),
    }
}

#[cfg(feature = "ucx")]
fn open_ucx(setup: &Setup, options: &Options) -> Result<Transport, TransferError> {
    crate::ucx::open(setup, &options.ucx_tls, options.ucx_fabric)
}

#[cfg(not(feature = "ucx"))]
fn open_ucx(_setup: &Setup, _options: &Options) -> Result<Transport, TransferError> {
    Err(TransferError::NotBuilt { kind: TransportKind::Ucx })
}
