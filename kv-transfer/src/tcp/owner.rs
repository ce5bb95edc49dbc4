//! Serves this worker's regions to readers, each send checked against region bounds and lease. Knows nothing of
//! pulling.

use std::io;
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use kernels::memory::{Backing, HostMemory};
use sched::InstanceId;
use tokio::io::{AsyncReadExt, BufReader, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{AbortHandle, yield_now};
use tokio::time::{sleep, timeout};

use super::frame::{REQUEST_BYTES, REQUEST_BYTES_MAX, Reply, Request, What};
use super::socket::{self, Body};
use crate::accept::{ACCEPT_PAUSE, Failures, LEAVE_PAUSE, is_for_want_of_room};
use crate::greeting::{self, Answer, GREETING_BYTES};
use crate::lobby::{GREETING_DEADLINE, Lobby};
use crate::outbox::Essential;
use crate::token::Token;
use crate::{AccessCheck, AccessDenied, RegionId, Setup, TransferError, probe};

const REPLY_DEADLINE: Duration = Duration::from_secs(30);

pub(super) struct Owner {
    instance: InstanceId,
    token: Token,
    page: Arc<HostMemory>,
    /// Zeroes, sent in place of bytes whose lease has ended under their reply.
    blank: HostMemory,
    regions: RwLock<Vec<Arc<HostMemory>>>,
    access: Arc<dyn AccessCheck>,
    lobby: Mutex<Lobby<AbortHandle>>,
    readers: AtomicUsize,
    readers_max: usize,
    turn_bytes: u64,
}

impl Owner {
    pub(super) fn new(setup: &Setup, token: Token) -> Result<Self, TransferError> {
        Ok(Self {
            instance: setup.instance,
            token,
            page: probe::page(setup.instance, Backing::Anonymous)?,
            blank: HostMemory::new(REQUEST_BYTES_MAX as usize, Backing::Anonymous)?,
            regions: RwLock::new(Vec::new()),
            access: Arc::clone(&setup.access),
            lobby: Mutex::new(Lobby::within_files()),
            readers: AtomicUsize::new(0),
            readers_max: setup.limits.readers_max,
            turn_bytes: setup.limits.turn_bytes,
        })
    }

    pub(super) fn add(&self, memory: &Arc<HostMemory>) {
        self.regions.write().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(memory));
    }

    fn lobby(&self) -> MutexGuard<'_, Lobby<AbortHandle>> {
        self.lobby.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn region(&self, region: RegionId) -> Option<Arc<HostMemory>> {
        let regions = self.regions.read().unwrap_or_else(PoisonError::into_inner);
        regions.get(region.0 as usize).map(Arc::clone)
    }

    /// Checks a request and returns the memory that answers it.
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

    /// Sends some of a reply after its first `sent` bytes of head and body, by one system call during which the lease
    /// cannot end. If the lease has ended before, the rest is zeroes: the reader has ended the batch itself or learns
    /// of it when it asks for the release, and its other batches go on.
    fn send_some(&self, socket: i32, reply: &Answered<'_>, sent: u64) -> io::Result<usize> {
        let Request { what, offset, bytes, .. } = *reply.request;
        let body = Body { memory: reply.memory, offset, bytes };
        match what {
            What::Probe => socket::send_some(socket, reply.head, body, sent),
            What::Region { region, lease } => {
                let mut outcome = Err(io::ErrorKind::WouldBlock.into());
                let mut send = || outcome = socket::send_some(socket, reply.head, body, sent);
                match self.access.under(lease, region, offset, bytes, &mut send) {
                    Ok(()) => outcome,
                    Err(_) => {
                        let blank = Body { memory: &self.blank, offset: 0, bytes };
                        socket::send_some(socket, reply.head, blank, sent)
                    }
                }
            }
        }
    }
}

struct Answered<'a> {
    request: &'a Request,
    head: &'a [u8],
    memory: &'a HostMemory,
}

pub(super) async fn accept(listener: TcpListener, owner: Arc<Owner>, _alive: Essential) {
    let mut failures = Failures::default();
    loop {
        match listener.accept().await {
            Ok((stream, address)) => {
                let mut lobby = owner.lobby();
                let entry = Entry { number: lobby.next(), owner: Arc::clone(&owner) };
                let newcomer = tokio::spawn(async move {
                    if let Err(error) = welcome(stream, entry).await {
                        tracing::debug!(%address, %error, "a reader's connection ended");
                    }
                });
                if let Some(oldest) = lobby.enter(newcomer.abort_handle()) {
                    oldest.abort();
                }
            }
            Err(error) => {
                failures.log(&error);
                sleep(ACCEPT_PAUSE).await;
                let oldest = is_for_want_of_room(&error).then(|| owner.lobby().turn_out_oldest()).flatten();
                if let Some(oldest) = oldest {
                    oldest.abort();
                    sleep(LEAVE_PAUSE).await;
                }
            }
        }
    }
}

struct Entry {
    number: u64,
    owner: Arc<Owner>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.owner.lobby().leave(self.number);
    }
}

struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

async fn welcome(mut stream: TcpStream, entry: Entry) -> io::Result<()> {
    socket::prepare(&stream)?;
    let owner = Arc::clone(&entry.owner);
    let mut words = [0; GREETING_BYTES];
    timeout(GREETING_DEADLINE, stream.read_exact(&mut words)).await??;
    drop(entry);
    let judged = greeting::judge(&words, owner.instance, owner.token).ok_or_else(|| invalid("it did not greet"))?;
    let before = owner.readers.fetch_add(1, Ordering::Relaxed);
    let _place = Place(&owner.readers);
    let answer = match judged {
        Answer::Welcome if before >= owner.readers_max => Answer::Full,
        judged => judged,
    };
    let head = greeting::encode_answer(answer);
    timeout(GREETING_DEADLINE, send(&stream, &head, 0, |socket, sent| owner.send_head(socket, &head, sent))).await??;
    match answer {
        Answer::Welcome => serve(&mut stream, &owner).await,
        Answer::WrongInstance | Answer::WrongVersion | Answer::Full | Answer::Stranger => {
            Err(invalid("it was not welcome"))
        }
    }
}

impl Owner {
    fn send_head(&self, socket: i32, head: &[u8], sent: u64) -> io::Result<usize> {
        socket::send_some(socket, head, Body { memory: &self.page, offset: 0, bytes: 0 }, sent)
    }
}

async fn serve(stream: &mut TcpStream, owner: &Owner) -> io::Result<()> {
    let (incoming, outgoing) = stream.split();
    let mut requests = BufReader::new(incoming);
    let mut turn = 0;
    loop {
        let mut frame = [0; REQUEST_BYTES];
        if let Err(error) = requests.read_exact(&mut frame).await {
            let ended = error.kind() == io::ErrorKind::UnexpectedEof;
            return if ended { Ok(()) } else { Err(error) };
        }
        let request = Request::decode(&frame).ok_or_else(|| invalid("its request is malformed"))?;
        let admitted = owner.admit(&request);
        let outcome = admitted.as_ref().map(|_| request.bytes).map_err(|denied| *denied);
        let head = Reply { id: request.id, outcome }.encode();
        let stream = outgoing.as_ref();
        match &admitted {
            Ok(memory) => {
                let reply = Answered { request: &request, head: &head, memory };
                let send = send(stream, &head, request.bytes, |socket, sent| owner.send_some(socket, &reply, sent));
                timeout(REPLY_DEADLINE, send).await??;
            }
            Err(_) => {
                let send = send(stream, &head, 0, |socket, sent| owner.send_head(socket, &head, sent));
                timeout(REPLY_DEADLINE, send).await??;
            }
        }
        // A socket that never blocks would occupy the runtime's only thread.
        turn += request.bytes;
        if turn >= owner.turn_bytes {
            turn = 0;
            yield_now().await;
        }
    }
}

/// Sends `head` and `bytes` bytes after it; each call of `some` sends a part.
async fn send(
    stream: &TcpStream,
    head: &[u8],
    bytes: u64,
    some: impl Fn(i32, u64) -> io::Result<usize>,
) -> io::Result<()> {
    let socket = stream.as_raw_fd();
    let whole = head.len() as u64 + bytes;
    let mut sent = 0;
    while sent < whole {
        stream.writable().await?;
        match stream.try_io(Interest::WRITABLE, || some(socket, sent)) {
            Ok(some) => sent += some as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn invalid(reason: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, reason)
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::net::Shutdown;
    use std::pin::pin;

    use super::*;
    use crate::{LeaseTable, Limits, Serving};

    /// Found by reading: a reader that took its replies as fast as they came occupied the one thread of all readers.
    #[test]
    fn a_reader_that_is_never_slow_gives_the_others_a_turn() {
        const READS: u64 = 64;
        const READ_BYTES: u64 = 256;
        let limits = Limits { turn_bytes: READ_BYTES, ..Limits::default() };
        let access = Arc::new(LeaseTable::new());
        let (instance, notify) = (InstanceId(1), Arc::new(|| {}));
        let setup = Setup { instance, notify, access, limits, serving: Serving::Readers };
        let owner = Owner::new(&setup, Token::draw().unwrap()).unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let turns = runtime.block_on(async {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let mut reader = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (mut stream, _) = listener.accept().await.unwrap();
            // All requests are there and the socket has room for all replies, so the owner never waits.
            for id in 0..READS {
                let request = Request { id, what: What::Probe, offset: 0, bytes: READ_BYTES };
                reader.write_all(&request.encode()).unwrap();
            }
            reader.shutdown(Shutdown::Write).unwrap();
            let mut serving = pin!(serve(&mut stream, &owner));
            let mut turns = 0;
            poll_fn(|context| {
                turns += 1;
                serving.as_mut().poll(context)
            })
            .await
            .unwrap();
            turns
        });
        assert!(turns >= READS, "{READS} replies in {turns} turns");
    }
}
