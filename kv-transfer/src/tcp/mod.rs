//! Transport over TCP sockets: needs no privileges and no common host, and its owner checks every read. One runtime
//! thread serves and reads. Knows nothing of how peers learn each other's address.

mod frame;
mod owner;
mod reader;
mod runtime;
mod socket;

use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;

use kernels::memory::Region;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};

use crate::driver::{Command, Driver};
use crate::outbox::Outbox;
use crate::region::host_memory;
use crate::token::Token;
use crate::{RegionId, Serving, Setup, TransferError, Transport, TransportKind};

/// Opens a transport that listens on `listen`; peers are told that address, or `advertise` with the same port.
pub fn open(setup: &Setup, listen: SocketAddr, advertise: Option<IpAddr>) -> Result<Transport, TransferError> {
    let listening = match setup.serving {
        Serving::Readers => Some(listener(listen, advertise)?),
        Serving::Nobody => None,
    };
    let (listener, told) = listening.unzip();
    let (outbox, events) = Outbox::new(Arc::clone(&setup.notify));
    let token = Token::draw()?;
    let owner = Arc::new(owner::Owner::new(setup, token)?);
    let (commands, inbox) = unbounded_channel();
    let work = runtime::Work { listener, owner: Arc::clone(&owner), commands: inbox, outbox, limits: setup.limits };
    let thread = std::thread::Builder::new().name("kv-tcp".to_owned());
    let thread = thread.spawn(move || runtime::run(work));
    let thread = thread.map_err(|error| TransferError::system("start a transport thread", &error))?;
    let threads = Tcp { commands: Some(commands), thread: Some(thread), owner };
    let address = told.map(|told| told.to_string().into_bytes()).unwrap_or_default();
    Ok(Transport::new(TransportKind::Tcp, setup, token, address, Box::new(threads), events))
}

/// Returns the socket that readers connect to, and the address to tell them.
fn listener(listen: SocketAddr, advertise: Option<IpAddr>) -> Result<(TcpListener, SocketAddr), TransferError> {
    let failed = |error: std::io::Error| TransferError::System {
        operation: "listen for readers",
        reason: format!("{listen}: {error}"),
    };
    let listener = TcpListener::bind(listen).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let bound = listener.local_addr().map_err(failed)?;
    let told = SocketAddr::new(advertise.unwrap_or(bound.ip()), bound.port());
    if told.ip().is_unspecified() {
        let reason = format!("{told} is no address a peer can reach; say which one to advertise");
        return Err(TransferError::System { operation: "listen for readers", reason });
    }
    Ok((listener, told))
}

struct Tcp {
    /// `None` only while being dropped.
    commands: Option<UnboundedSender<Command>>,
    thread: Option<JoinHandle<()>>,
    owner: Arc<owner::Owner>,
}

impl Driver for Tcp {
    fn register(&mut self, _region: RegionId, memory: &Region) -> Result<Vec<u8>, TransferError> {
        self.owner.add(host_memory(TransportKind::Tcp, memory)?);
        Ok(Vec::new())
    }

    fn submit(&mut self, command: Command) -> Result<(), TransferError> {
        let commands = self.commands.as_ref().ok_or(TransferError::Stopped)?;
        commands.send(command).map_err(|_| TransferError::Stopped)
    }
}

impl Drop for Tcp {
    fn drop(&mut self) {
        self.commands = None;
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("the tcp transport's thread had panicked");
        }
    }
}
