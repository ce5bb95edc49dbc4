//! Adds faults to any transport, from a seed: failing, late and reordered ends. For tests; knows no transport.

use std::collections::{BTreeMap, BTreeSet};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, unbounded};
use kernels::memory::Region;

use crate::{Batch, KvTransport, Notify, PeerId, RegionId, Ticket, TransferError, TransferEvent, TransportKind};

/// Plan of the faults. The same plan over the same calls makes the same faults.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FaultPlan {
    /// Seed of the delays.
    pub seed: u64,
    /// Numbers of the batches to fail, from 0 in the order of `start`. Some of their bytes may land, as in real life.
    pub fail: BTreeSet<u64>,
    /// Longest delay of a batch's end. Delays differ from batch to batch, so ends overtake each other.
    pub delay_max: Duration,
}

/// A transport with faults.
pub struct Faulty<T> {
    inner: T,
    plan: FaultPlan,
    started: u64,
    failing: BTreeSet<Ticket>,
    delays: BTreeMap<Ticket, Duration>,
    /// Delayed events by due time; a peer's end must not overtake the ends of its batches.
    held: BTreeMap<(Instant, u64), TransferEvent>,
    held_made: u64,
    alarm: Alarm,
}

impl<T: KvTransport> Faulty<T> {
    /// Wraps a transport that was opened with `notify`.
    pub fn new(inner: T, plan: FaultPlan, notify: Notify) -> Result<Self, TransferError> {
        let alarm = Alarm::start(notify)?;
        let (failing, delays, held) = (BTreeSet::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { inner, plan, started: 0, failing, delays, held, held_made: 0, alarm })
    }

    fn hold(&mut self, event: TransferEvent) {
        let delay = event.ended().and_then(|ticket| self.delays.remove(&ticket)).unwrap_or_default();
        let event = match event.ended() {
            Some(ticket) if self.failing.remove(&ticket) => {
                TransferEvent::Failed { ticket, error: TransferError::Injected }
            }
            Some(_) | None => event,
        };
        let mut due = Instant::now() + delay;
        if matches!(event, TransferEvent::PeerDown { .. }) {
            due = self.held.last_key_value().map_or(due, |((last, _), _)| due.max(*last));
        }
        self.held.insert((due, self.held_made), event);
        self.held_made += 1;
        self.alarm.ring_at(due);
    }
}

impl<T: KvTransport> KvTransport for Faulty<T> {
    fn kind(&self) -> TransportKind {
        self.inner.kind()
    }

    fn register(&mut self, memory: Region) -> Result<RegionId, TransferError> {
        self.inner.register(memory)
    }

    fn endpoint(&self) -> Vec<u8> {
        self.inner.endpoint()
    }

    fn connect(&mut self, endpoint: &[u8]) -> Result<PeerId, TransferError> {
        self.inner.connect(endpoint)
    }

    fn start(&mut self, peer: PeerId, batch: Batch) -> Result<Ticket, TransferError> {
        let ticket = self.inner.start(peer, batch)?;
        if self.plan.fail.contains(&self.started) {
            self.failing.insert(ticket);
            self.inner.abort(ticket);
        }
        let longest = self.plan.delay_max.as_nanos() as u64;
        let drawn = scramble(self.plan.seed ^ scramble(self.started)).checked_rem(longest).unwrap_or(0);
        self.delays.insert(ticket, Duration::from_nanos(drawn));
        self.started += 1;
        Ok(ticket)
    }

    fn poll(&mut self) -> Option<TransferEvent> {
        while let Some(event) = self.inner.poll() {
            self.hold(event);
        }
        let first = self.held.first_entry()?;
        (first.key().0 <= Instant::now()).then(|| first.remove())
    }

    fn abort(&mut self, ticket: Ticket) {
        self.inner.abort(ticket);
    }

    fn disconnect(&mut self, peer: PeerId) {
        self.inner.disconnect(peer);
    }
}

/// SplitMix64's output function (Steele, Lea, Flood: Fast splittable pseudorandom number generators, 2014).
fn scramble(seed: u64) -> u64 {
    let mut word = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    word ^ (word >> 31)
}

/// Thread that calls `notify` when a held event is due.
struct Alarm {
    due: Option<Sender<Instant>>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    fn start(notify: Notify) -> Result<Self, TransferError> {
        let (due, times) = unbounded();
        let thread = std::thread::Builder::new().name("kv-faulty".to_owned());
        let thread = thread.spawn(move || ring(&times, &notify));
        let thread = thread.map_err(|error| TransferError::system("start a transport thread", &error))?;
        Ok(Self { due: Some(due), thread: Some(thread) })
    }

    fn ring_at(&self, time: Instant) {
        if let Some(due) = &self.due {
            let _ended = due.send(time);
        }
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.due = None;
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn ring(times: &Receiver<Instant>, notify: &Notify) {
    let mut due = BTreeSet::new();
    loop {
        let wait = due
            .first()
            .map_or(Duration::from_secs(3600), |first: &Instant| first.saturating_duration_since(Instant::now()));
        match times.recv_timeout(wait) {
            Ok(time) => {
                due.insert(time);
            }
            Err(RecvTimeoutError::Timeout) => {
                let now = Instant::now();
                due.retain(|time| *time > now);
                notify();
            }
            Err(RecvTimeoutError::Disconnected) => return,
        }
    }
}
