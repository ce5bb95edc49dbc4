//! The reader's task for one peer: requests ranges a window ahead and receives replies straight into their place. Knows
//! nothing of what this worker serves.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::Instant;

use kernels::memory::{Backing, HostMemory};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::task::yield_now;
use tokio::time::{sleep_until, timeout};

use super::frame::{REPLY_BYTES, REQUEST_BYTES, REQUEST_BYTES_MAX, Reply, Request, What};
use super::runtime::too_late;
use super::socket;
use crate::batch::Job;
use crate::endpoint::Endpoint;
use crate::flow::{Ending, Flow, Read};
use crate::greeting::{self, ANSWER_BYTES};
use crate::outbox::Outbox;
use crate::probe::{PROBE_BYTES, PROBE_READS, Scratch};
use crate::region::host_memory;
use crate::{Limits, PeerId, Probe, Ticket, TransferError, TransferEvent, TransportKind};

/// Limit on unanswered requests: small reads must not fill the peer's socket with requests.
const OWED_MAX: usize = 1024;
/// Size of the buffer that takes the bytes of ended batches.
const DISCARD_BYTES: usize = 256 << 10;
const IDLE_PROBE_BYTES: u64 = 1;
/// Receives in a row before the next look at orders and deadlines.
const RECEIVES_MAX: usize = 8;

pub(super) enum Order {
    Start { ticket: Ticket, job: Arc<Job> },
    Abort { ticket: Ticket },
}

/// Runs as long as the connection; closing `orders` disconnects.
pub(super) async fn run(
    peer: PeerId,
    endpoint: Endpoint,
    mut orders: UnboundedReceiver<Order>,
    outbox: Outbox,
    limits: Limits,
) {
    // Sends `PeerDown` when dropped: last, and also when this task panics.
    let mut end = outbox.peer(peer);
    let connecting = timeout(limits.connect_deadline, connect(&endpoint));
    let connected = tokio::select! {
        connected = connecting => connected.unwrap_or_else(|_| Err(TransferError::late("connect", limits.connect_deadline))),
        () = orders_closed(&mut orders) => Err(TransferError::Disconnected),
    };
    end.error = match connected {
        Ok((stream, probe)) => {
            outbox.tell(TransferEvent::PeerUp { peer, probe });
            read(stream, &mut orders, &outbox, limits).await
        }
        Err(error) => error,
    };
    orders.close();
    while let Ok(order) = orders.try_recv() {
        match order {
            Order::Start { ticket, .. } => outbox.tell(too_late(ticket)),
            Order::Abort { .. } => {}
        }
    }
}

/// Waits for the end of orders. A peer that is not up gets none, so any that comes is ignored.
async fn orders_closed(orders: &mut UnboundedReceiver<Order>) {
    while orders.recv().await.is_some() {}
}

async fn connect(endpoint: &Endpoint) -> Result<(TcpStream, Probe), TransferError> {
    let lost = |error: io::Error| TransferError::lost("connect", error);
    let address = str::from_utf8(&endpoint.address).ok().and_then(|text| text.parse::<std::net::SocketAddr>().ok());
    let address = address.ok_or(TransferError::Protocol { reason: "its address is not an address and a port" })?;
    let mut stream = TcpStream::connect(address).await.map_err(lost)?;
    socket::prepare(&stream).map_err(lost)?;
    stream.write_all(&greeting::greeting(endpoint.instance, endpoint.token)).await.map_err(lost)?;
    let mut answer = [0; ANSWER_BYTES];
    stream.read_exact(&mut answer).await.map_err(lost)?;
    greeting::accept(&answer, endpoint.instance)?;
    let mut scratch = Scratch::new(endpoint.instance)?;
    probe(&mut stream, &scratch).await?;
    scratch.warm()?;
    for _ in 0..PROBE_READS {
        probe(&mut stream, &scratch).await?;
    }
    let probe = scratch.measured()?;
    Ok((stream, probe))
}

async fn probe(stream: &mut TcpStream, scratch: &Scratch) -> Result<(), TransferError> {
    let lost = |error: io::Error| TransferError::lost("connect", error);
    let all = PROBE_BYTES as u64;
    let request = Request { id: 0, what: What::Probe, offset: 0, bytes: all };
    stream.write_all(&request.encode()).await.map_err(lost)?;
    let mut frame = [0; REPLY_BYTES];
    stream.read_exact(&mut frame).await.map_err(lost)?;
    if Reply::decode(&frame) != Some(Reply { id: 0, outcome: Ok(all) }) {
        return Err(TransferError::Protocol { reason: "it did not answer the probe" });
    }
    let mut received = 0;
    while received < all {
        stream.readable().await.map_err(lost)?;
        // SAFETY: the scratch is this connection's alone, and nothing else is received into it.
        match unsafe { socket::try_receive(stream, scratch.memory(), received, all - received) } {
            Ok(0) => return Err(lost(io::ErrorKind::UnexpectedEof.into())),
            Ok(some) => received += some as u64,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(lost(error)),
        }
    }
    Ok(())
}

/// Pulls batches until the connection ends; returns the reason.
async fn read(
    stream: TcpStream,
    orders: &mut UnboundedReceiver<Order>,
    outbox: &Outbox,
    limits: Limits,
) -> TransferError {
    let mut reader = match Reader::new(stream, outbox, limits) {
        Ok(reader) => reader,
        Err(error) => return error,
    };
    let (ending, error) = match reader.run(orders).await {
        Ok(()) => (Ending::Aborted, TransferError::Disconnected),
        Err(error) => (Ending::Failed(error.clone()), error),
    };
    for ticket in reader.flow.tickets() {
        reader.tell_forgotten(ticket, ending.clone());
    }
    error
}

struct Reader<'a> {
    stream: TcpStream,
    outbox: &'a Outbox,
    limits: Limits,
    flow: Flow,
    /// Requests that are not fully answered, in the order of their replies.
    owed: VecDeque<Owed>,
    owed_bytes: u64,
    requests_made: u64,
    unsent: VecDeque<u8>,
    receiving: Receiving,
    discard: HostMemory,
    /// Time of the last byte received, or of a request made when nothing was owed.
    heard: Instant,
    /// Bytes received since the tasks of other peers had a turn.
    turn: u64,
}

struct Owed {
    id: u64,
    bytes: u64,
    /// Destination of the bytes; `None` once the batch has ended, and for a test of an idle connection.
    read: Option<Read>,
}

enum Receiving {
    Head { frame: [u8; REPLY_BYTES], filled: usize },
    Body { received: u64 },
}

const NEXT_HEAD: Receiving = Receiving::Head { frame: [0; REPLY_BYTES], filled: 0 };

impl<'a> Reader<'a> {
    fn new(stream: TcpStream, outbox: &'a Outbox, limits: Limits) -> Result<Self, TransferError> {
        let discard = HostMemory::new(DISCARD_BYTES, Backing::Anonymous)?;
        Ok(Self {
            stream,
            outbox,
            limits,
            flow: Flow::default(),
            owed: VecDeque::new(),
            owed_bytes: 0,
            requests_made: 0,
            unsent: VecDeque::new(),
            receiving: NEXT_HEAD,
            discard,
            heard: Instant::now(),
            turn: 0,
        })
    }

    async fn run(&mut self, orders: &mut UnboundedReceiver<Order>) -> Result<(), TransferError> {
        loop {
            // Late batches end before bytes are received: the timer below is up to a millisecond late.
            self.end_late();
            self.ask();
            let wake = tokio::time::Instant::from_std(self.next_timeout());
            if self.turn >= self.limits.turn_bytes {
                // A socket that is never empty would occupy the runtime's only thread.
                self.turn = 0;
                yield_now().await;
            }
            let interest =
                if self.unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
            tokio::select! {
                biased;
                order = orders.recv() => match order {
                    Some(order) => self.follow(order),
                    None => return Ok(()),
                },
                () = sleep_until(wake) => self.look_at_clock()?,
                ready = self.stream.ready(interest) => {
                    let ready = ready.map_err(|error| TransferError::lost("read", error))?;
                    if ready.is_writable() {
                        self.send()?;
                    }
                    if ready.is_readable() {
                        self.receive()?;
                    }
                }
            }
        }
    }

    fn follow(&mut self, order: Order) {
        match order {
            Order::Start { ticket, job } => self.flow.push(ticket, job),
            Order::Abort { ticket } => self.tell_forgotten(ticket, Ending::Aborted),
        }
    }

    fn next_timeout(&self) -> Instant {
        let patience = if self.owed.is_empty() { self.limits.idle_probe } else { self.limits.silence };
        let silent = self.heard + patience;
        self.flow.next_deadline().map_or(silent, |deadline| deadline.min(silent))
    }

    /// Ends late batches, tests an idle connection, and gives up a peer that owes bytes and is silent: TCP sees no
    /// fault as long as something on the path acknowledges.
    fn look_at_clock(&mut self) -> Result<(), TransferError> {
        self.end_late();
        let silent = self.heard.elapsed();
        if !self.owed.is_empty() && silent >= self.limits.silence {
            let seconds = self.limits.silence.as_secs_f32();
            return Err(TransferError::lost(
                "read",
                format!("it has sent nothing for {seconds} s of what it was asked for"),
            ));
        }
        if self.owed.is_empty() && silent >= self.limits.idle_probe {
            self.owe(What::Probe, 0, IDLE_PROBE_BYTES, None);
        }
        Ok(())
    }

    fn end_late(&mut self) {
        for (ticket, error) in self.flow.late(Instant::now()) {
            self.tell_forgotten(ticket, Ending::Failed(error));
        }
    }

    /// Ends a batch now: bytes still owed for it will be discarded, so none can land any more.
    fn tell_forgotten(&mut self, ticket: Ticket, ending: Ending) {
        for owed in &mut self.owed {
            if owed.read.as_ref().is_some_and(|read| read.ticket == ticket) {
                owed.read = None;
            }
        }
        let ended = self.flow.forget(ticket, ending, Instant::now());
        self.tell(ended);
    }

    fn tell(&self, event: Option<TransferEvent>) {
        if let Some(event) = event {
            self.outbox.tell(event);
        }
    }

    fn ask(&mut self) {
        let read_bytes_max = self.limits.read_bytes_max.min(REQUEST_BYTES_MAX);
        while self.owed.len() < OWED_MAX && self.owed_bytes < self.limits.in_flight_bytes_max {
            let Some(read) = self.flow.next_read(read_bytes_max, Instant::now()) else { break };
            let what = What::Region { region: read.job.remote, lease: read.job.lease };
            self.owe(what, read.range.remote_offset, read.range.bytes, Some(read));
        }
        debug_assert!(self.unsent.len() <= OWED_MAX * REQUEST_BYTES);
    }

    fn owe(&mut self, what: What, offset: u64, bytes: u64, read: Option<Read>) {
        if self.owed.is_empty() {
            self.heard = Instant::now();
        }
        let id = self.requests_made;
        self.requests_made += 1;
        self.unsent.extend(Request { id, what, offset, bytes }.encode());
        self.owed.push_back(Owed { id, bytes, read });
        self.owed_bytes += bytes;
    }

    fn send(&mut self) -> Result<(), TransferError> {
        while !self.unsent.is_empty() {
            match self.stream.try_write(self.unsent.as_slices().0) {
                Ok(sent) => drop(self.unsent.drain(..sent)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(TransferError::lost("ask for bytes", error)),
            }
        }
        Ok(())
    }

    fn receive(&mut self) -> Result<(), TransferError> {
        for _ in 0..RECEIVES_MAX {
            match self.receive_some() {
                Ok(0) => return Err(TransferError::lost("read", "it closed the connection")),
                Ok(some) => {
                    self.turn += some as u64;
                    self.heard = Instant::now();
                    self.advance()?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(TransferError::lost("read", error)),
            }
        }
        Ok(())
    }

    /// Receives part of a head, or part of a body straight into its place, by one system call.
    fn receive_some(&mut self) -> io::Result<usize> {
        match &mut self.receiving {
            Receiving::Head { frame, filled } => {
                let some = self.stream.try_read(&mut frame[*filled..])?;
                *filled += some;
                Ok(some)
            }
            Receiving::Body { received } => {
                let Some(owed) = self.owed.front() else { return Ok(0) };
                let left = owed.bytes - *received;
                let some = match &owed.read {
                    Some(read) => {
                        let offset = read.range.local_offset + *received;
                        let memory = host_memory(TransportKind::Tcp, &read.job.local).map_err(io::Error::other)?;
                        // SAFETY: the range belongs to the batch, whose ticket has not ended, and replies come one at a
                        // time.
                        unsafe { socket::try_receive(&self.stream, memory, offset, left) }?
                    }
                    None => {
                        let some = left.min(DISCARD_BYTES as u64);
                        // SAFETY: only this reader has the memory.
                        unsafe { socket::try_receive(&self.stream, &self.discard, 0, some) }?
                    }
                };
                *received += some as u64;
                Ok(some)
            }
        }
    }

    fn advance(&mut self) -> Result<(), TransferError> {
        match &self.receiving {
            Receiving::Head { frame, filled } if *filled == REPLY_BYTES => {
                let reply = Reply::decode(frame);
                self.begin(reply.ok_or(TransferError::Protocol { reason: "its reply is malformed" })?)
            }
            Receiving::Body { received } if self.owed.front().is_some_and(|owed| owed.bytes == *received) => {
                self.finish();
                Ok(())
            }
            Receiving::Head { .. } | Receiving::Body { .. } => Ok(()),
        }
    }

    fn begin(&mut self, reply: Reply) -> Result<(), TransferError> {
        let unasked = TransferError::Protocol { reason: "it answered what was not asked" };
        let Some(owed) = self.owed.front().filter(|owed| owed.id == reply.id) else { return Err(unasked) };
        match reply.outcome {
            Ok(bytes) if bytes == owed.bytes => {
                self.receiving = Receiving::Body { received: 0 };
                Ok(())
            }
            Ok(_) => Err(unasked),
            Err(denied) => {
                if let Some(read) = self.take_owed() {
                    let error = TransferError::Denied { lease: read.job.lease, denied };
                    self.tell_forgotten(read.ticket, Ending::Failed(error));
                }
                Ok(())
            }
        }
    }

    fn finish(&mut self) {
        if let Some(read) = self.take_owed() {
            let ended = self.flow.landed(read.ticket, Instant::now());
            self.tell(ended);
        }
    }

    /// Removes the first owed request, which is answered; returns its read unless the batch has ended meanwhile.
    fn take_owed(&mut self) -> Option<Read> {
        self.receiving = NEXT_HEAD;
        let owed = self.owed.pop_front()?;
        self.owed_bytes -= owed.bytes;
        owed.read
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::Write;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use sched::LeaseId;
    use tokio::sync::mpsc::unbounded_channel;

    use super::*;
    use crate::{Batch, RangeCopy, RegionId};

    /// Found by reading: a peer that sent as fast as could be received occupied the one thread of all peers.
    #[test]
    fn a_peer_that_is_never_slow_gives_the_others_a_turn() {
        const READS: u64 = 64;
        const READ_BYTES: u64 = 256;
        const POOL_BYTES: u64 = READS * READ_BYTES;
        let limits = Limits { turn_bytes: READ_BYTES, read_bytes_max: READ_BYTES, ..Limits::default() };
        let (outbox, events) = Outbox::new(Arc::new(|| {}));
        let local = Arc::new(HostMemory::new(POOL_BYTES as usize, Backing::Anonymous).unwrap());
        let copies = vec![RangeCopy { remote_offset: 0, local_offset: 0, bytes: POOL_BYTES }];
        let (region, patience) = (RegionId(0), Duration::from_secs(60));
        let (deadline, reading) = (patience, patience);
        let batch = Batch { lease: LeaseId(1), remote: region, local: region, copies, deadline, reading };
        let job = Arc::new(Job::check(batch, POOL_BYTES, &local.into(), &limits).unwrap());
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let turns = runtime.block_on(async {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
            let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
            let (mut peer, _) = listener.accept().unwrap();
            // All replies are in the socket before the requests are made, so the reader never waits.
            for id in 0..READS {
                peer.write_all(&Reply { id, outcome: Ok(READ_BYTES) }.encode()).unwrap();
                peer.write_all(&[7; READ_BYTES as usize]).unwrap();
            }
            let (orders, mut inbox) = unbounded_channel();
            assert!(orders.send(Order::Start { ticket: Ticket(1), job }).is_ok());
            let mut reading = pin!(read(stream, &mut inbox, &outbox, limits));
            let mut turns = 0;
            poll_fn(|context| {
                turns += 1;
                assert!(reading.as_mut().poll(context).is_pending(), "the connection has ended");
                if events.try_recv().is_ok() { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            turns
        });
        // Head and body take a receive each.
        let replies_per_turn = RECEIVES_MAX as u64 / 2;
        assert!(turns >= READS / replies_per_turn, "{READS} replies in {turns} turns");
    }
}
