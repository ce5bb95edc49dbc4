//! Serves our regions to readers that connect, each read checked against region bounds and lease. Knows nothing of our
//! own reading.

use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;
use tokio::io::{AsyncReadExt, BufReader};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::frame::{REQUEST_BYTES, Reply, Request, What};
use super::socket;
use crate::greeting::{self, Answer, GREETING_BYTES};
use crate::{AccessCheck, AccessDenied, RegionId, Setup, TransferError, probe};

/// How long a newcomer may take to greet.
const GREETING_DEADLINE: Duration = Duration::from_secs(5);
/// How long a reader may take to receive one reply.
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// The pause after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What we serve, shared by all connections.
pub(super) struct Owner {
    instance: InstanceId,
    page: Arc<HostMemory>,
    regions: RwLock<Vec<Arc<HostMemory>>>,
    access: Arc<dyn AccessCheck>,
    readers: AtomicUsize,
    readers_max: usize,
}

impl Owner {
    pub(super) fn new(setup: &Setup) -> Result<Self, TransferError> {
        Ok(Self {
            instance: setup.instance,
            page: probe::page(setup.instance, Backing::Anonymous)?,
            regions: RwLock::new(Vec::new()),
            access: Arc::clone(&setup.access),
            readers: AtomicUsize::new(0),
            readers_max: setup.limits.readers_max,
        })
    }

    pub(super) fn add(&self, memory: &Arc<HostMemory>) {
        self.regions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(memory));
    }

    fn region(&self, region: RegionId) -> Option<Arc<HostMemory>> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions.get(region.0 as usize).map(Arc::clone)
    }

    /// The memory that a request may be answered from.
    fn admit(&self, request: &Request) -> Result<Arc<HostMemory>, AccessDenied> {
        let memory = match request.what {
            What::Probe => Arc::clone(&self.page),
            What::Region { region, .. } => self.region(region).ok_or(AccessDenied::Bounds)?,
        };
        let end = request.offset.checked_add(request.bytes).ok_or(AccessDenied::Bounds)?;
        if end > memory.len() as u64 {
            return Err(AccessDenied::Bounds);
        }
        match request.what {
            What::Probe => {}
            What::Region { region, lease } => self.access.check(lease, region, request.offset, request.bytes)?,
        }
        Ok(memory)
    }
}

/// Accepts readers for ever.
pub(super) async fn accept(listener: TcpListener, owner: Arc<Owner>) {
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let owner = Arc::clone(&owner);
                tokio::spawn(async move {
                    if let Err(error) = welcome(stream, &owner).await {
                        tracing::debug!(%address, %error, "a reader's connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a reader");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// One place among the readers, given back when dropped.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn welcome(mut stream: TcpStream, owner: &Owner) -> io::Result<()> {
    let _place = Place(&owner.readers);
    let before = owner.readers.fetch_add(1, Ordering::Relaxed);
    socket::prepare(&stream)?;
    let (mut incoming, outgoing) = stream.split();
    let mut words = [0; GREETING_BYTES];
    timeout(GREETING_DEADLINE, incoming.read_exact(&mut words)).await??;
    let judged = greeting::judge(&words, owner.instance);
    let answer = match judged.ok_or_else(|| invalid("it did not greet"))? {
        Answer::Welcome if before >= owner.readers_max => Answer::Full,
        judged => judged,
    };
    let head = greeting::encode_answer(answer);
    timeout(GREETING_DEADLINE, socket::send(outgoing.as_ref(), &head, &owner.page, 0, 0)).await??;
    match answer {
        Answer::Welcome => serve(incoming, outgoing, owner).await,
        Answer::WrongInstance | Answer::WrongVersion | Answer::Full => Err(invalid("it was not welcome")),
    }
}

async fn serve(incoming: ReadHalf<'_>, outgoing: WriteHalf<'_>, owner: &Owner) -> io::Result<()> {
    let mut requests = BufReader::new(incoming);
    loop {
        let mut frame = [0; REQUEST_BYTES];
        if let Err(error) = requests.read_exact(&mut frame).await {
            let ended = error.kind() == io::ErrorKind::UnexpectedEof;
            return if ended { Ok(()) } else { Err(error) };
        }
        let request = Request::decode(&frame).ok_or_else(|| invalid("its request is malformed"))?;
        let (outcome, memory, offset) = match owner.admit(&request) {
            Ok(memory) => (Ok(request.bytes), memory, request.offset),
            Err(denied) => (Err(denied), Arc::clone(&owner.page), 0),
        };
        let head = Reply { id: request.id, outcome }.encode();
        let reply = socket::send(outgoing.as_ref(), &head, &memory, offset, outcome.unwrap_or(0));
        timeout(REPLY_DEADLINE, reply).await??;
    }
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}
