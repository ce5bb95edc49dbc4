//! The contract of every transport: the same scenarios, run over each of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{LEASE, PATIENCE, POOL_BYTES, Worker, copy, everything, expected, open_descriptors};
use kernels::memory::{DeviceMemory, Region, RegionKind};
use kv_transfer::{
    AccessDenied, Batch, KvTransport, Limits, PeerId, RegionId, Side, TransferError, TransferEvent, TransportKind,
};
use sched::LeaseId;

macro_rules! conformance {
    ($($scenario:ident),* $(,)?) => {
        conformance!(@transport in_process, TransportKind::InProcess, $($scenario),*);
        conformance!(@transport tcp, TransportKind::Tcp, $($scenario),*);
        conformance!(@transport shm, TransportKind::Shm, $($scenario),*);
        #[cfg(feature = "ucx")]
        conformance!(@transport ucx, TransportKind::Ucx, $($scenario),*);
    };
    (@transport $name:ident, $kind:expr, $($scenario:ident),*) => {
        mod $name {
            use super::TransportKind;
            $(#[test] fn $scenario() { super::$scenario($kind); })*
        }
    };
}

conformance![
    bytes_land_where_they_should,
    one_batch_of_many_ranges,
    ranges_outside_a_region_are_refused,
    what_the_lease_does_not_cover_is_refused,
    no_byte_lands_after_an_abort,
    an_abort_spares_other_batches,
    an_abort_that_cannot_wait_spares_other_batches,
    no_byte_lands_after_the_deadline,
    another_incarnation_is_refused,
    foreign_endpoints_are_refused,
    a_lost_owner_can_be_replaced,
    disconnecting_ends_everything,
    two_owners_at_once,
    calls_out_of_order_are_refused,
    memory_of_the_wrong_kind_is_refused,
    open_batches_are_bounded,
    a_thousand_batches_leak_nothing,
];

/// Whether the owner takes part in each read and can refuse it.
fn owner_checks(kind: TransportKind) -> bool {
    match kind {
        TransportKind::Tcp | TransportKind::InProcess => true,
        TransportKind::Ucx | TransportKind::Shm => false,
    }
}

/// Waits until the reader knows that an owner of this process is gone. Over ucx it cannot know: shared memory checks
/// the owner's *process* (`two_processes.rs` kills one), so the reader disconnects.
fn is_gone(reader: &mut Worker, peer: PeerId, kind: TransportKind) {
    match kind {
        TransportKind::Ucx => reader.transport.disconnect(peer),
        TransportKind::Tcp | TransportKind::Shm | TransportKind::InProcess => {}
    }
    match reader.next() {
        TransferEvent::PeerDown { peer: down, error } => {
            assert_eq!(down, peer);
            let lost = matches!(error, TransferError::PeerLost { .. });
            assert!(lost || (kind == TransportKind::Ucx && error == TransferError::Disconnected), "{error}");
        }
        other => panic!("{other:?}"),
    }
}

fn pair(kind: TransportKind) -> (Worker, Worker, PeerId) {
    let owner = Worker::owner(kind, 1);
    let mut reader = Worker::new(kind);
    let peer = reader.connect_to(&owner);
    (owner, reader, peer)
}

fn bytes_land_where_they_should(kind: TransportKind) {
    let (_owner, mut reader, peer) = pair(kind);
    for bytes in [1, 7, 63, 64, 4095, 4096, 65_536, (1 << 20) + 3, 5 << 20] {
        for (remote, local) in [(0, 0), (3, 17), (4096, 8191)] {
            reader.overwrite(0xEE);
            assert_eq!(reader.pull(peer, vec![copy(remote, local, bytes)]), Ok(bytes));
            assert!(reader.bytes(local, bytes) == expected(1, remote, bytes), "{bytes} bytes, {remote} -> {local}");
            let before = reader.bytes(0, local);
            let after = reader.bytes(local + bytes, POOL_BYTES as u64 - local - bytes);
            let untouched = before == vec![0xEE; before.len()] && after == vec![0xEE; after.len()];
            assert!(untouched, "{bytes} bytes spilled over");
        }
    }
}

fn one_batch_of_many_ranges(kind: TransportKind) {
    let (_owner, mut reader, peer) = pair(kind);
    let block = 24 * 1024;
    // Runs of three blocks change places, so that every run is joined into one read.
    let place = |index: u64| (99 - index / 3) * 3 + index % 3;
    let copies = (0..300).map(|index| copy(index * block, place(index) * block, block)).collect();
    assert_eq!(reader.pull(peer, copies), Ok(300 * block));
    for index in 0..300 {
        let found = reader.bytes(place(index) * block, block);
        assert!(found == expected(1, index * block, block), "block {index}");
    }
}

fn ranges_outside_a_region_are_refused(kind: TransportKind) {
    let (_owner, mut reader, peer) = pair(kind);
    let end = POOL_BYTES as u64;
    for bad in [copy(end - 1, 0, 2), copy(0, end, 1), copy(u64::MAX, 0, 2), copy(0, 0, u64::MAX)] {
        let error = reader.transport.start(peer, reader.batch(vec![copy(0, 0, 8), bad])).unwrap_err();
        assert!(matches!(error, TransferError::Bounds { region_bytes, .. } if region_bytes == end), "{error}");
    }
    let unknown = |side| TransferError::UnknownRegion { side, region: RegionId(1) };
    let batch = Batch { remote: RegionId(1), ..reader.batch(everything()) };
    assert_eq!(reader.transport.start(peer, batch), Err(unknown(Side::Remote)));
    let batch = Batch { local: RegionId(1), ..reader.batch(everything()) };
    assert_eq!(reader.transport.start(peer, batch), Err(unknown(Side::Local)));
    assert_eq!(reader.transport.start(peer, reader.batch(vec![])), Err(TransferError::EmptyBatch));
    assert_eq!(reader.pull(peer, vec![copy(end - 1, end - 1, 1)]), Ok(1));
}

fn what_the_lease_does_not_cover_is_refused(kind: TransportKind) {
    if !owner_checks(kind) {
        return;
    }
    let (owner, mut reader, peer) = pair(kind);
    let half = POOL_BYTES as u64 / 2;
    let narrow = LeaseId(12);
    owner.leases.grant(narrow, owner.region, std::iter::once(0..half));
    let mut read = |lease, remote| {
        let batch = Batch { lease, ..reader.batch(vec![copy(remote, 0, half)]) };
        let ticket = reader.transport.start(peer, batch).unwrap();
        reader.end_of(ticket)
    };
    let denied = |lease, denied| Err(TransferError::Denied { lease, denied });
    assert_eq!(read(narrow, 0), Ok(half));
    assert_eq!(read(narrow, 1), denied(narrow, AccessDenied::Bounds));
    assert_eq!(read(LeaseId(99), 0), denied(LeaseId(99), AccessDenied::Unknown));
    owner.leases.revoke(narrow);
    assert_eq!(read(narrow, 0), denied(narrow, AccessDenied::Expired));
    assert_eq!(read(LEASE, half), Ok(half), "a refusal harms nobody else");
}

fn no_byte_lands_after_an_abort(kind: TransportKind) {
    let (_owner, mut reader, peer) = pair(kind);
    let mut aborted = 0;
    for round in 0..40 {
        let ticket = reader.start(peer, everything());
        if round % 2 == 1 {
            std::thread::sleep(Duration::from_micros(100 * round));
        }
        reader.transport.abort(ticket);
        match reader.next() {
            TransferEvent::Aborted { ticket: ended } => {
                assert_eq!(ended, ticket);
                aborted += 1;
            }
            TransferEvent::Done { ticket: ended, .. } => assert_eq!(ended, ticket),
            other => panic!("{other:?}"),
        }
        reader.overwrite(0x55);
        std::thread::sleep(Duration::from_millis(10));
        assert!(reader.is_all(0x55), "bytes landed after the end of round {round}");
    }
    assert!(aborted > 0, "every abort of 8 MiB came too late");
    reader.transport.abort(kv_transfer::Ticket(12_345));
    assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
    assert!(reader.bytes(0, POOL_BYTES as u64) == expected(1, 0, POOL_BYTES as u64));
}

fn an_abort_spares_other_batches(kind: TransportKind) {
    aborts_beside_other_batches(kind, Limits::default());
}

/// Without time to drain, a one-sided transport closes the connection under the other batches and repeats their reads.
fn an_abort_that_cannot_wait_spares_other_batches(kind: TransportKind) {
    let (drain, in_flight_bytes_max, read_bytes_max) = (None, 64 << 20, 128 << 10);
    let limits = Limits { drain, in_flight_bytes_max, read_bytes_max, ..Limits::default() };
    aborts_beside_other_batches(kind, limits);
}

fn aborts_beside_other_batches(kind: TransportKind, limits: Limits) {
    const BATCHES: u64 = 8;
    let owner = Worker::owner(kind, 1);
    let all = POOL_BYTES as u64;
    let mut reader = Worker::with(kind, BATCHES as usize * POOL_BYTES, limits);
    let peer = reader.connect_to(&owner);
    let right = expected(1, 0, all);
    for round in 0..8 {
        reader.overwrite(0);
        let tickets: Vec<_> = (0..BATCHES).map(|index| reader.start(peer, vec![copy(0, index * all, all)])).collect();
        let doomed = tickets[round as usize % tickets.len()];
        std::thread::sleep(Duration::from_micros(300 * round));
        reader.transport.abort(doomed);
        let mut done = Vec::new();
        for _ in &tickets {
            match reader.next() {
                TransferEvent::Done { ticket, .. } => done.push(ticket),
                TransferEvent::Aborted { ticket } => assert_eq!(ticket, doomed),
                other => panic!("{other:?}"),
            }
        }
        let spared = tickets.iter().zip(0..).filter(|(ticket, _)| **ticket != doomed);
        for (ticket, index) in spared {
            assert!(done.contains(ticket), "round {round}: {done:?}");
            assert!(reader.bytes(index * all, all) == right, "round {round}, batch {index}");
        }
    }
}

fn no_byte_lands_after_the_deadline(kind: TransportKind) {
    let (_owner, mut reader, peer) = pair(kind);
    let batch = Batch { deadline: Duration::ZERO, ..reader.batch(everything()) };
    let ticket = reader.transport.start(peer, batch).unwrap();
    let late = TransferError::Deadline { operation: "pull a batch", deadline_ms: 0 };
    assert_eq!(reader.end_of(ticket), Err(late));
    reader.overwrite(0x55);
    std::thread::sleep(Duration::from_millis(100));
    assert!(reader.is_all(0x55));
    assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
}

fn another_incarnation_is_refused(kind: TransportKind) {
    let owner = Worker::owner(kind, 1);
    let mut reader = Worker::new(kind);
    let mut stale = owner.transport.endpoint();
    let instance_at = 4 + 2 + 1;
    stale[instance_at] ^= 0xFF;
    let error = reader.connect(&stale).unwrap_err();
    assert!(matches!(error, TransferError::WrongInstance { .. }), "{error}");
    assert!(reader.connect(&owner.transport.endpoint()).is_ok(), "a refused peer is not remembered as bad");
}

fn foreign_endpoints_are_refused(kind: TransportKind) {
    let mut reader = Worker::new(kind);
    let other = if kind == TransportKind::InProcess { TransportKind::Tcp } else { TransportKind::InProcess };
    let theirs = Worker::new(other).transport.endpoint();
    let refused = reader.transport.connect(&theirs);
    assert_eq!(refused, Err(TransferError::WrongTransport { ours: kind, theirs: other }));
    assert!(matches!(reader.transport.connect(b"not an endpoint"), Err(TransferError::Endpoint { .. })));
    assert!(matches!(reader.transport.connect(&[]), Err(TransferError::Endpoint { .. })));
}

fn a_lost_owner_can_be_replaced(kind: TransportKind) {
    let mut reader = Worker::new(kind);
    for round in 0..5 {
        let owner = Worker::owner(kind, round);
        let peer = reader.connect_to(&owner);
        assert_eq!(reader.pull(peer, everything()), Ok(POOL_BYTES as u64));
        assert!(reader.bytes(0, POOL_BYTES as u64) == expected(round, 0, POOL_BYTES as u64));
        let endpoint = owner.transport.endpoint();
        drop(owner);
        is_gone(&mut reader, peer, kind);
        let refused = reader.transport.start(peer, reader.batch(everything()));
        assert_eq!(refused, Err(TransferError::UnknownPeer { operation: "start a batch", peer }));
        assert!(reader.connect(&endpoint).is_err(), "nobody is there any more");
    }
}

fn disconnecting_ends_everything(kind: TransportKind) {
    let (owner, mut reader, peer) = pair(kind);
    let tickets: Vec<_> = (0..8).map(|_| reader.start(peer, everything())).collect();
    reader.transport.disconnect(peer);
    let mut ended = Vec::new();
    loop {
        match reader.next() {
            TransferEvent::Aborted { ticket } | TransferEvent::Done { ticket, .. } => ended.push(ticket),
            TransferEvent::PeerDown { peer: down, error } => {
                assert_eq!((down, error), (peer, TransferError::Disconnected));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
    ended.sort();
    assert_eq!(ended, tickets);
    reader.overwrite(0x55);
    std::thread::sleep(Duration::from_millis(50));
    assert!(reader.is_all(0x55));
    let again = reader.connect_to(&owner);
    assert!(again != peer && reader.pull(again, everything()).is_ok());
}

fn two_owners_at_once(kind: TransportKind) {
    let (first, second) = (Worker::owner(kind, 1), Worker::owner(kind, 2));
    let mut reader = Worker::new(kind);
    let peers = [reader.connect_to(&first), reader.connect_to(&second)];
    let half = POOL_BYTES as u64 / 2;
    for _ in 0..4 {
        reader.overwrite(0);
        for (index, peer) in peers.into_iter().enumerate() {
            reader.start(peer, vec![copy(100, half * index as u64, half)]);
        }
        for _ in 0..2 {
            assert!(matches!(reader.next(), TransferEvent::Done { .. }));
        }
        assert!(reader.bytes(0, half) == expected(1, 100, half));
        assert!(reader.bytes(half, half) == expected(2, 100, half));
    }
    drop(first);
    is_gone(&mut reader, peers[0], kind);
    assert_eq!(reader.pull(peers[1], everything()), Ok(POOL_BYTES as u64), "the other owner is untouched");
}

fn calls_out_of_order_are_refused(kind: TransportKind) {
    let owner = Worker::owner(kind, 1);
    let mut reader = Worker::new(kind);
    let nobody = PeerId(77);
    let refused = reader.transport.start(nobody, reader.batch(everything()));
    assert_eq!(refused, Err(TransferError::UnknownPeer { operation: "start a batch", peer: nobody }));
    reader.transport.disconnect(nobody);
    let peer = reader.transport.connect(&owner.transport.endpoint()).unwrap();
    let refused = reader.transport.start(peer, reader.batch(everything()));
    assert_eq!(refused, Err(TransferError::PeerConnecting { peer }));
    match reader.next() {
        TransferEvent::PeerUp { peer: up, probe } => {
            assert_eq!(up, peer);
            assert!(probe.bytes >= 1 << 20 && probe.bytes_per_second() > 0.0);
        }
        other => panic!("{other:?}"),
    }
    let cancelled = reader.transport.connect(&owner.transport.endpoint()).unwrap();
    reader.transport.disconnect(cancelled);
    loop {
        match reader.next() {
            TransferEvent::PeerUp { peer, .. } => assert_eq!(peer, cancelled),
            TransferEvent::PeerDown { peer, error } => {
                assert_eq!((peer, error), (cancelled, TransferError::Disconnected));
                break;
            }
            other => panic!("{other:?}"),
        }
    }
}

/// Memory of an accelerator, with no memory behind its address.
#[derive(Debug)]
struct OnDevice;

impl DeviceMemory for OnDevice {
    fn device(&self) -> u32 {
        0
    }

    fn address(&self) -> u64 {
        1 << 40
    }

    fn bytes(&self) -> usize {
        POOL_BYTES
    }
}

fn memory_of_the_wrong_kind_is_refused(kind: TransportKind) {
    let mut worker = Worker::new(kind);
    let refused = worker.transport.register(Region::Device(Arc::new(OnDevice))).unwrap_err();
    let (needed, found) = (RegionKind::Host, RegionKind::Device);
    assert_eq!(refused, TransferError::WrongMemory { kind, needed, found });
    let text = format!("register memory with {kind}: it serves host memory, not device memory");
    assert_eq!(refused.to_string(), text);
}

fn open_batches_are_bounded(kind: TransportKind) {
    let owner = Worker::owner(kind, 1);
    let limits = Limits { batches_max: 2, copies_max: 3, peers_max: 1, ..Limits::default() };
    let mut reader = Worker::with(kind, POOL_BYTES, limits);
    let peer = reader.connect_to(&owner);
    let limited = |what, max| TransferError::Limit { operation: "start a batch", what, max };
    let ranges = vec![copy(0, 0, 8); 4];
    assert_eq!(reader.transport.start(peer, reader.batch(ranges)), Err(limited("ranges", 3)));
    let tickets = [reader.start(peer, everything()), reader.start(peer, everything())];
    assert_eq!(reader.transport.start(peer, reader.batch(everything())), Err(limited("open batches", 2)));
    for _ in tickets {
        assert!(matches!(reader.next(), TransferEvent::Done { .. }));
    }
    assert!(reader.pull(peer, everything()).is_ok());
    let second = reader.transport.connect(&owner.transport.endpoint());
    assert_eq!(second, Err(TransferError::Limit { operation: "connect", what: "peers", max: 1 }));
}

fn a_thousand_batches_leak_nothing(kind: TransportKind) {
    let owner = Worker::owner(kind, 1);
    let mut reader = Worker::new(kind);
    let mut cycle = || {
        let peer = reader.connect_to(&owner);
        for index in 0..100 {
            let bytes = 1 + index * 97;
            let ticket = reader.start(peer, vec![copy(index * 1000, index * 10_000, bytes)]);
            assert_eq!(reader.end_of(ticket), Ok(bytes));
            assert!(reader.bytes(index * 10_000, bytes) == expected(1, index * 1000, bytes));
        }
        reader.transport.disconnect(peer);
        assert!(matches!(reader.next(), TransferEvent::PeerDown { .. }));
    };
    cycle();
    // Other tests of this process open descriptors too, so the smallest count over a while must not grow.
    let fewest = |rounds: u32| {
        (0..rounds).map(|_| {
            std::thread::sleep(Duration::from_millis(1));
            open_descriptors()
        })
    };
    let before = fewest(5).max().unwrap_or_default();
    for _ in 0..9 {
        cycle();
    }
    let deadline = std::time::Instant::now() + PATIENCE;
    // A leak of one descriptor per connection would be nine, of one per batch nine hundred.
    while fewest(5).min().unwrap_or_default() > before + 4 {
        assert!(std::time::Instant::now() < deadline, "{} descriptors before, {} after", before, open_descriptors());
    }
}
