//! Workers for transport tests: a transport with its pool, filled with bytes that depend on their place.

#![allow(dead_code, unreachable_pub, reason = "each test binary is a crate of its own and uses its own part")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use kernels::memory::HostMemory;
use kv_transfer::{
    Batch, KvTransport, LeaseTable, Limits, Notify, Options, PeerId, Probe, RangeCopy, RegionId, Serving, Setup,
    Ticket, TransferError, TransferEvent, Transport, TransportKind, open,
};
use sched::{InstanceId, LeaseId};

/// Longer than any step of a test may take on a loaded machine.
pub const PATIENCE: Duration = Duration::from_secs(30);
pub const LEASE: LeaseId = LeaseId(11);
pub const POOL_BYTES: usize = 8 << 20;

static INSTANCES: AtomicU64 = AtomicU64::new(1);

pub struct Worker {
    pub transport: Transport,
    pub pool: Arc<HostMemory>,
    pub region: RegionId,
    pub leases: Arc<LeaseTable>,
    woken: Receiver<()>,
}

pub fn notify() -> (Notify, Receiver<()>) {
    let (wake, woken) = bounded(1);
    let notify = Arc::new(move || {
        // A full channel means that the wake-up is already there.
        let _full = wake.try_send(());
    });
    (notify, woken)
}

impl Worker {
    pub fn new(kind: TransportKind) -> Self {
        Self::with(kind, POOL_BYTES, Limits::default())
    }

    pub fn with(kind: TransportKind, pool_bytes: usize, limits: Limits) -> Self {
        let (notify, woken) = notify();
        let leases = Arc::new(LeaseTable::new());
        let instance = u128::from(std::process::id()) << 64 | u128::from(INSTANCES.fetch_add(1, Ordering::Relaxed));
        let setup =
            Setup { instance: InstanceId(instance), notify, access: leases.clone(), limits, serving: Serving::Readers };
        let mut transport = open(kind, &setup, &Options::default()).unwrap();
        let pool = Arc::new(HostMemory::new(pool_bytes, kind.backing()).unwrap());
        let region = transport.register(Arc::clone(&pool).into()).unwrap();
        Self { transport, pool, region, leases, woken }
    }

    /// A worker whose pool holds a pattern and may be read whole under [`LEASE`].
    pub fn owner(kind: TransportKind, seed: u64) -> Self {
        Self::new(kind).filled(seed)
    }

    pub fn filled(self, seed: u64) -> Self {
        let bytes = self.pool.len() as u64;
        for word in 0..bytes / 8 {
            // SAFETY: the word lies inside the pool, which is aligned, and no reader is connected yet.
            unsafe { self.pool.as_ptr().cast::<u64>().add(word as usize).write(pattern(seed, word)) };
        }
        self.leases.grant(LEASE, self.region, std::iter::once(0..bytes));
        self
    }

    pub fn next(&mut self) -> TransferEvent {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.transport.poll() {
                return event;
            }
            let left = PATIENCE.checked_sub(begun.elapsed()).expect("an event should have come");
            let _timeout = self.woken.recv_timeout(left);
        }
    }

    pub fn next_within(&mut self, wait: Duration) -> Option<TransferEvent> {
        let begun = Instant::now();
        loop {
            if let Some(event) = self.transport.poll() {
                return Some(event);
            }
            let left = wait.checked_sub(begun.elapsed())?;
            let _timeout = self.woken.recv_timeout(left);
        }
    }

    pub fn connect(&mut self, endpoint: &[u8]) -> Result<(PeerId, Probe), TransferError> {
        let connecting = self.transport.connect(endpoint)?;
        match self.next() {
            TransferEvent::PeerUp { peer, probe } if peer == connecting => Ok((peer, probe)),
            TransferEvent::PeerDown { peer, error } if peer == connecting => Err(error),
            other => panic!("while connecting: {other:?}"),
        }
    }

    pub fn connect_to(&mut self, owner: &Worker) -> PeerId {
        self.connect(&owner.transport.endpoint()).unwrap().0
    }

    pub fn start(&mut self, peer: PeerId, copies: Vec<RangeCopy>) -> Ticket {
        self.transport.start(peer, self.batch(copies)).unwrap()
    }

    pub fn batch(&self, copies: Vec<RangeCopy>) -> Batch {
        Batch { lease: LEASE, remote: RegionId(0), local: self.region, copies, deadline: PATIENCE, reading: PATIENCE }
    }

    pub fn pull(&mut self, peer: PeerId, copies: Vec<RangeCopy>) -> Result<u64, TransferError> {
        let ticket = self.start(peer, copies);
        self.end_of(ticket)
    }

    /// Waits for the end of a ticket; any other event fails the test.
    pub fn end_of(&mut self, wanted: Ticket) -> Result<u64, TransferError> {
        match self.next() {
            TransferEvent::Done { ticket, bytes, .. } if ticket == wanted => Ok(bytes),
            TransferEvent::Failed { ticket, error } if ticket == wanted => Err(error),
            other => panic!("while waiting for {wanted}: {other:?}"),
        }
    }

    pub fn bytes(&self, offset: u64, bytes: u64) -> Vec<u8> {
        assert!(offset + bytes <= self.pool.len() as u64);
        // SAFETY: the range lies inside the pool, and tests look only when nothing is in flight.
        unsafe { std::slice::from_raw_parts(self.pool.as_ptr().add(offset as usize), bytes as usize) }.to_vec()
    }

    pub fn overwrite(&self, byte: u8) {
        // SAFETY: the whole pool, when nothing is in flight.
        unsafe { std::ptr::write_bytes(self.pool.as_ptr(), byte, self.pool.len()) };
    }

    pub fn is_all(&self, byte: u8) -> bool {
        self.bytes(0, self.pool.len() as u64) == vec![byte; self.pool.len()]
    }
}

pub fn copy(remote_offset: u64, local_offset: u64, bytes: u64) -> RangeCopy {
    RangeCopy { remote_offset, local_offset, bytes }
}

pub fn everything() -> Vec<RangeCopy> {
    vec![copy(0, 0, POOL_BYTES as u64)]
}

pub fn pattern(seed: u64, word: u64) -> u64 {
    (seed << 48 ^ word).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

pub fn expected(seed: u64, offset: u64, bytes: u64) -> Vec<u8> {
    let words = offset / 8..(offset + bytes).div_ceil(8);
    let mut all = Vec::with_capacity(bytes as usize + 16);
    for word in words {
        all.extend_from_slice(&pattern(seed, word).to_le_bytes());
    }
    all[(offset % 8) as usize..][..bytes as usize].to_vec()
}

pub fn open_descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Ends this process with its parent, so that a killed test leaves no process behind.
pub fn die_with_parent() {
    // SAFETY: sets an attribute of this process.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) };
}
