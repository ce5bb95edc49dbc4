//! The thread of transports that map their peers' memory: copies read by read, and looks at commands and deadlines
//! between two reads. Knows nothing of how the memory was mapped.

mod thread;

use std::sync::Arc;
use std::thread::JoinHandle;

use crossbeam_channel::{Sender, unbounded};
use kernels::memory::{HostMemory, Region};

use crate::driver::{Command, Driver};
use crate::endpoint::Endpoint;
use crate::flow::Read;
use crate::outbox::Outbox;
use crate::probe::{PROBE_BYTES, PROBE_READS, Scratch};
use crate::region::host_memory;
use crate::{Limits, PeerId, Probe, RegionId, TransferError, TransportKind};

/// Memory of a connected peer. Dropping it closes the connection.
pub(crate) trait Source: Send {
    fn read(&mut self, read: &Read) -> Result<(), ReadError>;
}

/// Failure of a read, by what it ends.
pub(crate) enum ReadError {
    Batch(TransferError),
    Peer(TransferError),
}

/// Way in which a transport connects to peers.
pub(crate) trait Connector: Send {
    /// Starts to connect; the outcome is sent as a message, at once or from another thread.
    fn connect(&mut self, peer: PeerId, endpoint: Endpoint, outcome: Sender<Message>);
}

pub(crate) enum Message {
    Command(Command),
    Connected { peer: PeerId, source: Box<dyn Source>, probe: Probe },
    Lost { peer: PeerId, error: TransferError },
    Stop,
}

/// Keeper of the memory that this worker serves.
pub(crate) trait Owner: Send {
    /// Adds a region; its id is the number of regions before it.
    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<(), TransferError>;
}

/// `None` is a worker that serves no readers.
impl<O: Owner> Owner for Option<O> {
    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<(), TransferError> {
        self.as_mut().map_or(Ok(()), |owner| owner.register(memory))
    }
}

/// Handle of the front on the copying thread and on the served memory.
pub(crate) struct Copier<O> {
    kind: TransportKind,
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
    owner: O,
}

impl<O: Owner> Copier<O> {
    pub(crate) fn start(
        kind: TransportKind,
        name: &str,
        owner: O,
        connector: Box<dyn Connector>,
        outbox: Outbox,
        limits: Limits,
    ) -> Result<Self, TransferError> {
        let (messages, inbox) = unbounded();
        let alive = outbox.essential("the thread that copies");
        let thread = thread::Thread::new(inbox, messages.clone(), connector, outbox, limits);
        let thread = std::thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || {
                let _alive = alive;
                thread.run();
            })
            .map_err(|error| TransferError::system("start a transport thread", &error))?;
        Ok(Self { kind, messages, thread: Some(thread), owner })
    }
}

impl<O: Owner> Driver for Copier<O> {
    fn register(&mut self, _region: RegionId, memory: &Region) -> Result<Vec<u8>, TransferError> {
        self.owner.register(host_memory(self.kind, memory)?)?;
        Ok(Vec::new())
    }

    fn submit(&mut self, command: Command) -> Result<(), TransferError> {
        self.messages.send(Message::Command(command)).map_err(|_| TransferError::Stopped)
    }
}

impl<O> Drop for Copier<O> {
    fn drop(&mut self) {
        let _ended = self.messages.send(Message::Stop);
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("a transport thread had panicked");
        }
    }
}

/// Copies `bytes` bytes from the peer's memory without making a reference to either side: the peer may write its memory
/// at any time.
///
/// # Safety
///
/// `from` must be valid for reads and `to` for writes of `bytes` bytes, and no other code may touch `to` meanwhile.
pub(crate) unsafe fn copy(from: *const u8, to: *mut u8, bytes: u64) {
    // SAFETY: passed on to the caller; the ranges lie in different mappings or are the caller's to keep apart.
    unsafe { std::ptr::copy(from, to, bytes as usize) };
}

/// Copies the peer's page as batches are copied, and measures the rate.
///
/// # Safety
///
/// `page` must be valid for reads of `PROBE_BYTES` bytes until this returns.
pub(crate) unsafe fn probe(page: *const u8, endpoint: &Endpoint) -> Result<Probe, TransferError> {
    let mut scratch = Scratch::new(endpoint.instance)?;
    let copy_page = |scratch: &Scratch| {
        // SAFETY: the caller promises a readable page, and the scratch is as long and used by this function alone.
        unsafe { copy(page, scratch.memory().as_ptr(), PROBE_BYTES as u64) };
    };
    copy_page(&scratch);
    scratch.warm()?;
    for _ in 0..PROBE_READS {
        copy_page(&scratch);
    }
    scratch.measured()
}
