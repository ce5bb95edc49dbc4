//! Transport between workers that are threads of one process; the owner checks each read. Knows no socket.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use crossbeam_channel::Sender;
use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;

use crate::copier::{self, Connector, Copier, Message, ReadError, Source};
use crate::endpoint::Endpoint;
use crate::flow::Read;
use crate::outbox::Outbox;
use crate::token::Token;
use crate::wire::{Reader, Writer};
use crate::{AccessCheck, AccessDenied, Limits, PeerId, Setup, TransferError, Transport, TransportKind, probe};

/// Open owners of this process, by the number in their address.
static OWNERS: Mutex<BTreeMap<u64, Weak<Owner>>> = Mutex::new(BTreeMap::new());
static OWNERS_MADE: AtomicU64 = AtomicU64::new(0);

/// Opens a transport that reaches other transports opened in this process.
pub fn open(setup: &Setup) -> Result<Transport, TransferError> {
    let (outbox, events) = Outbox::new(Arc::clone(&setup.notify));
    let number = OWNERS_MADE.fetch_add(1, Ordering::Relaxed);
    let owner = Arc::new(Owner {
        instance: setup.instance,
        page: probe::page(setup.instance, Backing::Anonymous)?,
        access: Arc::clone(&setup.access),
        limits: setup.limits,
        regions: RwLock::new(Vec::new()),
        readers: Mutex::new(BTreeMap::new()),
        readers_made: AtomicU64::new(0),
        closed: AtomicBool::new(false),
    });
    owners().insert(number, Arc::downgrade(&owner));
    let listed = Listed { number, owner };
    let copier =
        Copier::start(TransportKind::InProcess, "kv-in-process", listed, Box::new(Finder), outbox, setup.limits)?;
    let address = Writer::new().u64(number).finish();
    Ok(Transport::new(TransportKind::InProcess, setup, Token::draw()?, address, Box::new(copier), events))
}

fn owners() -> std::sync::MutexGuard<'static, BTreeMap<u64, Weak<Owner>>> {
    OWNERS.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Owner {
    instance: InstanceId,
    page: Arc<HostMemory>,
    access: Arc<dyn AccessCheck>,
    limits: Limits,
    regions: RwLock<Vec<Arc<HostMemory>>>,
    readers: Mutex<BTreeMap<u64, (PeerId, Sender<Message>)>>,
    readers_made: AtomicU64,
    closed: AtomicBool,
}

/// Entry of an owner in [`OWNERS`], removed when dropped.
struct Listed {
    number: u64,
    owner: Arc<Owner>,
}

impl copier::Owner for Listed {
    fn register(&mut self, memory: &Arc<HostMemory>) -> Result<(), TransferError> {
        self.owner.regions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(memory));
        Ok(())
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        owners().remove(&self.number);
        self.owner.closed.store(true, Ordering::Release);
        let readers = std::mem::take(&mut *self.owner.readers.lock().unwrap_or_else(PoisonError::into_inner));
        for (peer, messages) in readers.into_values() {
            let _reader_ended = messages.send(Message::Lost { peer, error: closed() });
        }
    }
}

fn closed() -> TransferError {
    TransferError::lost("read", "its transport was closed")
}

struct Finder;

impl Connector for Finder {
    fn connect(&mut self, peer: PeerId, endpoint: Endpoint, outcome: Sender<Message>) {
        let message = match find(peer, &endpoint, &outcome) {
            Ok((source, probe)) => Message::Connected { peer, source: Box::new(source), probe },
            Err(error) => Message::Lost { peer, error },
        };
        let _ended = outcome.send(message);
    }
}

fn find(
    peer: PeerId,
    endpoint: &Endpoint,
    messages: &Sender<Message>,
) -> Result<(InProcessSource, crate::Probe), TransferError> {
    let malformed = TransferError::Protocol { reason: "its address is not a number" };
    let number = Reader::new(&endpoint.address).u64().ok_or(malformed)?;
    let owner = owners().get(&number).and_then(Weak::upgrade);
    let owner = owner.ok_or_else(|| TransferError::lost("connect", "no such transport in this process"))?;
    if owner.instance != endpoint.instance {
        return Err(TransferError::WrongInstance { expected: endpoint.instance });
    }
    // SAFETY: `owner` keeps its page, which is as long as a probe is.
    let probe = unsafe { copier::probe(owner.page.as_ptr(), endpoint) }?;
    let reader = owner.readers_made.fetch_add(1, Ordering::Relaxed);
    let mut readers = owner.readers.lock().unwrap_or_else(PoisonError::into_inner);
    if readers.len() >= owner.limits.readers_max {
        return Err(TransferError::lost("connect", "it serves no more readers"));
    }
    readers.insert(reader, (peer, messages.clone()));
    drop(readers);
    Ok((InProcessSource { owner, reader }, probe))
}

struct InProcessSource {
    owner: Arc<Owner>,
    reader: u64,
}

impl Drop for InProcessSource {
    fn drop(&mut self) {
        self.owner.readers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.reader);
    }
}

impl Source for InProcessSource {
    fn read(&mut self, read: &Read) -> Result<(), ReadError> {
        if self.owner.closed.load(Ordering::Acquire) {
            return Err(ReadError::Peer(closed()));
        }
        let (lease, range) = (read.job.lease, read.range);
        let denied = |denied| ReadError::Batch(TransferError::Denied { lease, denied });
        let regions = self.owner.regions.read().unwrap_or_else(PoisonError::into_inner);
        let memory = regions.get(read.job.remote.0 as usize).ok_or_else(|| denied(AccessDenied::Bounds))?;
        let inside = range.remote_offset.checked_add(range.bytes).is_some_and(|end| end <= memory.len() as u64);
        if !inside {
            return Err(denied(AccessDenied::Bounds));
        }
        let from = memory.as_ptr().wrapping_add(range.remote_offset as usize);
        let to = read.host_destination(TransportKind::InProcess).map_err(ReadError::Batch)?;
        let mut copy = || {
            // SAFETY: both ranges were checked against their mappings, which `regions` and the job keep alive. The
            // source is not written, because its lease does not end during this call; the batch's destination belongs
            // to this thread alone until its ticket has ended.
            unsafe { copier::copy(from, to, range.bytes) };
        };
        self.owner.access.under(lease, read.job.remote, range.remote_offset, range.bytes, &mut copy).map_err(denied)
    }
}
