//! One peer from connecting to its end: greeted by real reads, then batches; closed by force when reads must not land
//! any more. Knows no other peer.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ucx_rs::status_string;

use super::address::{self, Address, Memory};
use super::connection::{Connection, RemoteMemory, Return, Route, What};
use super::library::{self, Mapped, OK};
use super::rights;
use super::thread::Shared;
use crate::batch::Job;
use crate::endpoint::Endpoint;
use crate::flow::{Ending, Flow};
use crate::probe::{PROBE_BYTES, PROBE_READS, Scratch};
use crate::{PeerId, Ticket, TransferError, TransferEvent};

use sched::InstanceId;

/// Time for reads in flight before the connection is closed under them: a multiple of the measured time, and a limit.
const DRAIN_SPARE: f64 = 4.0;
const DRAIN_MAX: Duration = Duration::from_millis(500);

/// The index of the peer's page among its memories; its regions follow.
const PAGE: usize = 0;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    Alive,
    Over,
}

pub(super) struct Peer {
    id: PeerId,
    instance: InstanceId,
    address: Address,
    regions: Vec<Memory>,
    connection: Connection,
    phase: Phase,
    flow: Flow,
    in_flight_bytes: u64,
    /// Time when a read last came back, or was posted while none was in flight.
    heard: Instant,
    /// Rate measured at connect; 0 before.
    bytes_per_second: f64,
    greeted_by: Instant,
    /// Oldest ending batch that waits for its reads in flight, and until when it may.
    draining: Option<(Ticket, Instant)>,
}

enum Phase {
    Greeting(Greeting),
    Up,
    Closing(Next),
}

struct Greeting {
    scratch: Scratch,
    mapped: Rc<Mapped>,
    reads: u32,
    purpose: Purpose,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    Meet,
    /// Check over a fresh endpoint that the peer is still the same.
    MeetAgain,
}

enum Next {
    /// Open a fresh endpoint: the old one was closed only to end some batches.
    MeetAgain,
    Down(TransferError),
}

impl Peer {
    pub(super) fn connect(id: PeerId, endpoint: &Endpoint, shared: &Shared) -> Result<Self, TransferError> {
        let malformed = TransferError::Protocol { reason: "its address is not one of ucx" };
        let (Some(address), Some(regions)) = (Address::decode(&endpoint.address), address::regions(endpoint)) else {
            return Err(malformed);
        };
        rights::check(&address, endpoint.instance, &shared.here, &shared.paths)?;
        let greeting = Greeting::new(endpoint.instance, Purpose::Meet, shared)?;
        let mut peer = Self {
            id,
            instance: endpoint.instance,
            connection: open(&address, &regions, shared)?,
            address,
            regions,
            phase: Phase::Greeting(greeting),
            flow: Flow::default(),
            in_flight_bytes: 0,
            heard: Instant::now(),
            bytes_per_second: 0.0,
            greeted_by: Instant::now() + shared.limits.connect_deadline,
            draining: None,
        };
        peer.read_page(shared);
        Ok(peer)
    }

    pub(super) fn start(&mut self, ticket: Ticket, job: Arc<Job>, shared: &Shared) {
        self.flow.push(ticket, job);
        if let Phase::Closing(Next::Down(error)) = &self.phase {
            let ending = Ending::Failed(error.clone());
            tell(shared, self.flow.end(ticket, ending, Instant::now()));
        }
    }

    pub(super) fn abort(&mut self, ticket: Ticket, shared: &Shared) {
        tell(shared, self.flow.end(ticket, Ending::Aborted, Instant::now()));
    }

    /// Ends all batches and closes; the peer is over when no read is in flight.
    pub(super) fn go_down(&mut self, error: TransferError, ending: &Ending, shared: &Shared) {
        if matches!(self.phase, Phase::Closing(Next::Down(_))) {
            return;
        }
        for ticket in self.flow.tickets() {
            tell(shared, self.flow.end(ticket, ending.clone(), Instant::now()));
        }
        self.phase = Phase::Closing(Next::Down(error));
        self.connection.close();
    }

    fn fail(&mut self, error: TransferError, shared: &Shared) {
        self.go_down(error.clone(), &Ending::Failed(error), shared);
    }

    pub(super) fn is_closing(&self) -> bool {
        self.connection.is_closing()
    }

    /// Latest time for the next call of [`Peer::step`].
    pub(super) fn next_timeout(&self, shared: &Shared) -> Option<Instant> {
        let greeting = matches!(self.phase, Phase::Greeting(_)).then_some(self.greeted_by);
        let draining = self.draining.map(|(_, until)| until);
        [greeting, draining, self.silent_at(shared), self.flow.next_deadline()].into_iter().flatten().min()
    }

    /// Time when the peer counts as lost if no read comes back.
    fn silent_at(&self, shared: &Shared) -> Option<Instant> {
        let waits = matches!(self.phase, Phase::Up) && self.in_flight_bytes > 0;
        waits.then(|| self.heard + shared.limits.silence)
    }

    pub(super) fn take_back(&mut self, back: Return, shared: &Shared) {
        self.connection.count_return();
        self.heard = Instant::now();
        match back.what {
            What::Page if back.status == OK => {
                if let Err(error) = self.greet(shared) {
                    self.fail(error, shared);
                }
            }
            What::Page => self.fail(self.loss("connect", back.status), shared),
            What::Batch(read) => {
                let now = Instant::now();
                self.in_flight_bytes -= read.range.bytes;
                let ended = match &self.phase {
                    Phase::Greeting(_) | Phase::Up | Phase::Closing(_) if back.status == OK => {
                        self.flow.landed(read.ticket, now)
                    }
                    Phase::Closing(Next::MeetAgain) => {
                        let error = TransferError::lost("read", "its connection was closed under it twice");
                        self.flow.came_back(&read, &error, now)
                    }
                    Phase::Greeting(_) | Phase::Up | Phase::Closing(Next::Down(_)) => {
                        let error = self.loss("read", back.status);
                        let ended = self.flow.failed(read.ticket, error.clone(), now);
                        self.fail(error, shared);
                        ended
                    }
                };
                tell(shared, ended);
            }
        }
    }

    /// Acts on deadlines and on UCX's error callback, and posts reads that may be posted.
    pub(super) fn step(&mut self, now: Instant, shared: &Shared) -> Life {
        if let Phase::Closing(_) = self.phase {
            if self.connection.is_closed() {
                return self.closed(shared);
            }
        } else if let Some(status) = self.connection.failure() {
            self.fail(TransferError::lost("watch", status_string(status)), shared);
        } else if matches!(self.phase, Phase::Greeting(_)) && now >= self.greeted_by {
            self.fail(TransferError::late("connect", shared.limits.connect_deadline), shared);
        } else if self.silent_at(shared).is_some_and(|silent_at| now >= silent_at) {
            let seconds = shared.limits.silence.as_secs_f32();
            self.fail(TransferError::lost("read", format!("no read has come back for {seconds} s")), shared);
        }
        for (ticket, error) in self.flow.late(now) {
            tell(shared, self.flow.end(ticket, Ending::Failed(error), now));
        }
        if matches!(self.phase, Phase::Up) {
            self.drain(now, shared);
            self.post(now, shared);
        }
        Life::Alive
    }

    /// Gives an ending batch a little time for its reads in flight, then closes the endpoint under them; the reads of
    /// other batches are repeated over a fresh endpoint.
    fn drain(&mut self, now: Instant, shared: &Shared) {
        let oldest = self.flow.draining();
        self.draining = match (oldest, self.draining) {
            (Some(ticket), Some((same, until))) if ticket == same => Some((ticket, until)),
            (Some(ticket), Some(_) | None) => Some((ticket, now + self.drain_time(shared))),
            (None, Some(_) | None) => None,
        };
        if self.draining.is_some_and(|(_, until)| now >= until) {
            self.draining = None;
            self.phase = Phase::Closing(Next::MeetAgain);
            self.connection.close();
        }
    }

    /// Time that the reads in flight need at the measured rate, with a margin, and at least the configured time:
    /// closing delays every other batch of the peer.
    fn drain_time(&self, shared: &Shared) -> Duration {
        let Some(least) = shared.limits.drain else { return Duration::ZERO };
        let seconds = DRAIN_SPARE * self.in_flight_bytes as f64 / self.bytes_per_second;
        Duration::try_from_secs_f64(seconds).map_or(least, |needed| needed.clamp(least, least.max(DRAIN_MAX)))
    }

    fn post(&mut self, now: Instant, shared: &Shared) {
        while matches!(self.phase, Phase::Up)
            && self.in_flight_bytes < shared.limits.in_flight_bytes_max
            && self.connection.failure().is_none()
        {
            let Some(read) = self.flow.next_read(shared.limits.read_bytes_max, now) else { return };
            let Some(local) = shared.regions.get(read.job.local_region.0 as usize) else { return };
            if self.in_flight_bytes == 0 {
                self.heard = now;
            }
            self.in_flight_bytes += read.range.bytes;
            let route = Route {
                memory: PAGE + 1 + read.job.remote.0 as usize,
                remote_offset: read.range.remote_offset,
                local,
                local_offset: read.range.local_offset,
                bytes: read.range.bytes,
            };
            self.connection.get(&route, (self.id, What::Batch(read)), &shared.returned);
        }
    }

    fn closed(&mut self, shared: &Shared) -> Life {
        if let Phase::Closing(Next::Down(error)) = &self.phase {
            let (peer, error) = (self.id, error.clone());
            shared.outbox.tell(TransferEvent::PeerDown { peer, error });
            return Life::Over;
        }
        self.flow.connection_renewed();
        let greeting = Greeting::new(self.instance, Purpose::MeetAgain, shared);
        let fresh = greeting.and_then(|greeting| Ok((greeting, open(&self.address, &self.regions, shared)?)));
        match fresh {
            Ok((greeting, connection)) => {
                self.connection = connection;
                self.phase = Phase::Greeting(greeting);
                self.greeted_by = Instant::now() + shared.limits.connect_deadline;
                self.read_page(shared);
            }
            Err(error) => self.fail(error, shared),
        }
        Life::Alive
    }

    fn read_page(&mut self, shared: &Shared) {
        if let Phase::Greeting(greeting) = &self.phase {
            let bytes = PROBE_BYTES as u64;
            let route = Route { memory: PAGE, remote_offset: 0, local: &greeting.mapped, local_offset: 0, bytes };
            self.connection.get(&route, (self.id, What::Page), &shared.returned);
        }
    }

    /// Acts on a read of the page: the first proves who the peer is, the next ones measure the path.
    fn greet(&mut self, shared: &Shared) -> Result<(), TransferError> {
        let Phase::Greeting(greeting) = &mut self.phase else { return Ok(()) };
        if greeting.reads == 0 {
            greeting.scratch.warm()?;
        }
        greeting.reads += 1;
        match greeting.purpose {
            Purpose::Meet if greeting.reads > PROBE_READS => {
                let probe = greeting.scratch.measured()?;
                self.bytes_per_second = probe.bytes_per_second();
                self.phase = Phase::Up;
                shared.outbox.tell(TransferEvent::PeerUp { peer: self.id, probe });
            }
            Purpose::Meet => self.read_page(shared),
            Purpose::MeetAgain => self.phase = Phase::Up,
        }
        Ok(())
    }

    /// Error of a failed read: the peer is lost, or a greeting for which UCX reports no loss has no zero-copy path.
    fn loss(&self, operation: &'static str, status: library::Status) -> TransferError {
        match (&self.phase, self.connection.failure()) {
            (_, Some(status)) => TransferError::lost(operation, status_string(status)),
            (Phase::Greeting(_), None) => library::error("read over a zero-copy path", status),
            (Phase::Up | Phase::Closing(_), None) => TransferError::lost(operation, status_string(status)),
        }
    }
}

impl Greeting {
    fn new(instance: InstanceId, purpose: Purpose, shared: &Shared) -> Result<Self, TransferError> {
        let scratch = Scratch::new(instance)?;
        let mapped = Mapped::new(&shared.library, scratch.memory())?;
        Ok(Self { scratch, mapped, reads: 0, purpose })
    }
}

fn open(address: &Address, regions: &[Memory], shared: &Shared) -> Result<Connection, TransferError> {
    let memories = std::iter::once(&address.page).chain(regions);
    let memories: Vec<_> = memories.map(|memory| RemoteMemory { base: memory.base, key: &memory.key }).collect();
    Connection::open(&shared.library, &address.worker, &memories)
}

fn tell(shared: &Shared, event: Option<TransferEvent>) {
    if let Some(event) = event {
        shared.outbox.tell(event);
    }
}
