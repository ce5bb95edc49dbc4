//! Fetches a peer's memfds and maps them; one sleeping thread per peer notices the end of its connection.

use std::io::{self, Read as _, Write as _};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use crossbeam_channel::Sender;
use kernels::memory::PeerMemory;

use super::{Address, passing};
use crate::copier::{self, Connector, Message, ReadError, Source};
use crate::endpoint::Endpoint;
use crate::flow::Read;
use crate::greeting::{self, ANSWER_BYTES};
use crate::probe::PROBE_BYTES;
use crate::{Limits, PeerId, Probe, Side, TransferError, TransportKind};

/// Connects each peer on a thread of its own, so that a silent peer delays no other.
pub(super) struct Finder {
    pub(super) boot: String,
    pub(super) limits: Limits,
}

impl Connector for Finder {
    fn connect(&mut self, peer: PeerId, endpoint: Endpoint, outcome: Sender<Message>) {
        let (boot, limits) = (self.boot.clone(), self.limits);
        let unknown = TransferError::lost("connect", "the thread that watches it has ended");
        let end = End { peer, messages: outcome, error: unknown };
        let thread = std::thread::Builder::new().name("kv-shm-peer".to_owned());
        let spawned = thread.spawn(move || {
            let error = match connect(&endpoint, &boot, &limits) {
                Ok((source, probe, stream)) => {
                    let _ended = end.messages.send(Message::Connected { peer, source: Box::new(source), probe });
                    watch(stream)
                }
                Err(error) => error,
            };
            end.because(error);
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "could not start the thread that watches a peer");
        }
    }
}

/// Reports the end of a peer when dropped, also after a panic or when the thread cannot start.
struct End {
    peer: PeerId,
    messages: Sender<Message>,
    error: TransferError,
}

impl End {
    fn because(mut self, error: TransferError) {
        self.error = error;
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let error = self.error.clone();
        let _ended = self.messages.send(Message::Lost { peer: self.peer, error });
    }
}

fn connect(endpoint: &Endpoint, boot: &str, limits: &Limits) -> Result<(ShmSource, Probe, UnixStream), TransferError> {
    let malformed = TransferError::Protocol { reason: "its address is not a boot id and a name" };
    let address = Address::decode(&endpoint.address).ok_or(malformed)?;
    if address.boot != boot {
        return Err(TransferError::OtherHost { kind: TransportKind::Shm });
    }
    let descriptors;
    let stream = {
        let lost = |error: io::Error| lost(&error, limits);
        let mut stream = passing::connect(&address.name, limits.connect_deadline).map_err(lost)?;
        // Another user's process could listen at the name of a dead owner.
        passing::same_user(&stream).map_err(lost)?;
        stream.set_read_timeout(Some(limits.connect_deadline)).map_err(lost)?;
        stream.write_all(&greeting::greeting(endpoint.instance, endpoint.token)).map_err(lost)?;
        let mut answer = [0; ANSWER_BYTES];
        let received;
        (received, descriptors) = passing::receive(&stream, &mut answer).map_err(lost)?;
        if received < ANSWER_BYTES {
            return Err(TransferError::lost("connect", "it closed the connection"));
        }
        greeting::accept(&answer, endpoint.instance)?;
        stream.set_read_timeout(None).map_err(lost)?;
        stream
    };
    let (page, regions) = map(endpoint, descriptors)?;
    // SAFETY: the page was mapped just now, as long as a probe is, and stays so until this function returns.
    let probe = unsafe { copier::probe(page.as_ptr(), endpoint) }?;
    let connection = stream.try_clone().map_err(|error| lost(&error, limits))?;
    Ok((ShmSource { regions, connection }, probe, stream))
}

fn lost(error: &io::Error, limits: &Limits) -> TransferError {
    let timed_out = matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut);
    if timed_out {
        return TransferError::late("connect", limits.connect_deadline);
    }
    TransferError::lost("connect", error)
}

fn map(endpoint: &Endpoint, descriptors: Vec<OwnedFd>) -> Result<(PeerMemory, Vec<PeerMemory>), TransferError> {
    let mut descriptors = descriptors.into_iter();
    let missing = || TransferError::Protocol { reason: "it passed fewer memories than its endpoint has" };
    let page = PeerMemory::open(descriptors.next().ok_or_else(missing)?, PROBE_BYTES)?;
    let mut regions = Vec::with_capacity(endpoint.regions.len());
    for region in &endpoint.regions {
        let bytes = usize::try_from(region.bytes).map_err(|_| missing())?;
        regions.push(PeerMemory::open(descriptors.next().ok_or_else(missing)?, bytes)?);
    }
    Ok((page, regions))
}

/// Waits for the end of the connection and returns its reason.
fn watch(mut stream: UnixStream) -> TransferError {
    match stream.read(&mut [0]) {
        Ok(0) => TransferError::lost("watch", "it closed the connection"),
        Ok(_) => TransferError::Protocol { reason: "it spoke when it should be silent" },
        Err(error) => TransferError::lost("watch", error),
    }
}

struct ShmSource {
    regions: Vec<PeerMemory>,
    connection: UnixStream,
}

impl Source for ShmSource {
    fn read(&mut self, read: &Read) -> Result<(), ReadError> {
        let (region, range) = (read.job.remote, read.range);
        let unknown = || ReadError::Batch(TransferError::UnknownRegion { side: Side::Remote, region });
        let memory = self.regions.get(region.0 as usize).ok_or_else(unknown)?;
        let from = memory.as_ptr().wrapping_add(range.remote_offset as usize);
        let to = read.host_destination(TransportKind::Shm).map_err(ReadError::Batch)?;
        // SAFETY: the range was checked against the length that the endpoint states, and the mapping is that long; the
        // batch's destination belongs to this thread alone until its ticket has ended.
        unsafe { copier::copy(from, to, range.bytes) };
        Ok(())
    }
}

impl Drop for ShmSource {
    fn drop(&mut self) {
        // Wakes the watching thread, which then ends.
        let _already_gone = self.connection.shutdown(Shutdown::Both);
    }
}
