//! Injected faults keep the contract: every ticket ends once, before its peer.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by panicking")]

mod harness;

use std::sync::Arc;
use std::time::Duration;

use harness::{LEASE, PATIENCE, POOL_BYTES, Worker, copy};
use kernels::memory::{Backing, HostMemory};
use kv_transfer::faulty::{FaultPlan, Faulty};
use kv_transfer::{
    Batch, KvTransport, Limits, RegionId, Serving, Setup, TransferError, TransferEvent, TransportKind, in_process,
};

#[test]
fn faults_on_purpose_keep_the_contract() {
    let fail = [2, 5].into();
    let plan = FaultPlan { seed: 7, fail, delay_max: Duration::from_millis(20) };
    let owner = Worker::owner(TransportKind::InProcess, 1);
    let (notify, woken) = harness::notify();
    let setup = Setup {
        instance: sched::InstanceId(99),
        notify: notify.clone(),
        access: owner.leases.clone(),
        limits: Limits::default(),
        serving: Serving::Readers,
    };
    let mut faulty = Faulty::new(in_process::open(&setup).unwrap(), plan, notify).unwrap();
    let pool = Arc::new(HostMemory::new(POOL_BYTES, Backing::Anonymous).unwrap());
    let local = faulty.register(pool.into()).unwrap();
    let peer = faulty.connect(&owner.transport.endpoint()).unwrap();
    let next = |faulty: &mut Faulty<_>| loop {
        if let Some(event) = faulty.poll() {
            return event;
        }
        woken.recv_timeout(PATIENCE).unwrap();
    };
    assert!(matches!(next(&mut faulty), TransferEvent::PeerUp { .. }));
    let copies = vec![copy(0, 0, 4096)];
    let batch = Batch { lease: LEASE, remote: RegionId(0), local, copies, deadline: PATIENCE, reading: PATIENCE };
    let tickets: Vec<_> = (0..30).map(|_| faulty.start(peer, batch.clone()).unwrap()).collect();
    faulty.disconnect(peer);
    let mut ended = Vec::new();
    let mut failed = Vec::new();
    loop {
        match next(&mut faulty) {
            TransferEvent::PeerDown { .. } => break,
            TransferEvent::Failed { ticket, error } => {
                assert_eq!(error, TransferError::Injected);
                failed.push(ticket);
                ended.push(ticket);
            }
            other => ended.extend(other.ended()),
        }
    }
    assert_ne!(ended, tickets, "ends were to overtake each other");
    ended.sort();
    failed.sort();
    assert_eq!((ended, failed), (tickets.clone(), vec![tickets[2], tickets[5]]));
}
