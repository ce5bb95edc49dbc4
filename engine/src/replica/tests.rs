//! How the replica thread ends after its transport has, and how much of its inbox peers and routers may fill.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded, unbounded};
use crossbeam_utils::sync::Parker;
use kernels::memory::Region;
use kv_transfer::{
    Batch, KvTransport, LeaseTable, PeerId, RegionId, Ticket, TransferError, TransferEvent, TransportKind,
};
use sched::layout::{KvDtype, KvLayout, Shape, TileOrder};
use sched::message::ToGiver;
use sched::replica::{
    Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Progress, Reading, Replica, ReplicaConfig,
};
use sched::scheduling::Scheduling;
use sched::{FailureKind, InstanceId, LaneId, Role, StepId, StepPlan};

use super::{NotTaken, Outbound, Outlet, Parts, ReplicaHandle, spawn};
use crate::EngineError;
use crate::backend::{Backend, BackendEvent, BackendInfo};

/// A backend that computes nothing.
struct Idle(BackendInfo);

impl Backend for Idle {
    fn describe(&self) -> &BackendInfo {
        &self.0
    }

    fn submit(&mut self, _: LaneId, _: StepId, _: StepPlan, _: Progress) -> Result<(), EngineError> {
        Err(EngineError::Stopped)
    }

    fn poll(&mut self) -> Option<BackendEvent> {
        None
    }

    fn cancel(&mut self, _: StepId) {}

    fn set_shares(&mut self, _: &[(LaneId, f32)]) {}
}

/// A transport whose thread has ended.
struct Ended {
    event: Option<TransferEvent>,
}

impl KvTransport for Ended {
    fn kind(&self) -> TransportKind {
        TransportKind::Tcp
    }

    fn register(&mut self, _: Region) -> Result<RegionId, TransferError> {
        Err(TransferError::Stopped)
    }

    fn endpoint(&self) -> Vec<u8> {
        Vec::new()
    }

    fn connect(&mut self, _: &[u8]) -> Result<PeerId, TransferError> {
        Err(TransferError::Stopped)
    }

    fn start(&mut self, _: PeerId, _: Batch) -> Result<Ticket, TransferError> {
        Err(TransferError::Stopped)
    }

    fn poll(&mut self) -> Option<TransferEvent> {
        self.event.take()
    }

    fn abort(&mut self, _: Ticket) {}

    fn disconnect(&mut self, _: PeerId) {}
}

struct ToChannel(Sender<Outbound>);

impl Outlet for ToChannel {
    fn put(&mut self, out: Outbound) {
        let _test_has_ended = self.0.send(out);
    }

    fn flush(&mut self) {}
}

fn scheduler(role: Role) -> Replica {
    let lane =
        LaneConfig { work: LaneWork::of_role(role), step_tokens_max: 16, step_layers_max: 1, steps_in_flight: 1 };
    let config = ReplicaConfig {
        lanes: vec![lane],
        blocks_total: 4,
        block_tokens: 16,
        layers: 1,
        vocab: 8,
        context_max: 64,
        sequences_max: 1,
        queue_legs_max: 1,
        pulls_per_giver_max: 1,
        pull_tokens_max: 1 << 20,
        reading: Reading::WhenComplete,
        prefix_cache: PrefixCache::Off,
        filling_share: 1.0,
        scheduling: Scheduling::default(),
        lease: LeaseConfig::default(),
        hash_salt: 0,
        lease_key: sched::handoff::LeaseKey::new([0; 32]),
    };
    Replica::new(config).unwrap()
}

fn layout() -> KvLayout {
    let shape = Shape {
        layers_total: 1,
        kv_heads_total: 1,
        head_dim: 16,
        block_tokens: 16,
        dtype: KvDtype::F32,
        tile_order: TileOrder("any".into()),
        tile_bytes: 1024,
    };
    KvLayout::whole(shape).unwrap()
}

/// Both givers and readers stop, whether peers are connected or not.
#[test]
fn a_transport_that_has_stopped_ends_the_worker_with_its_reason() {
    for role in Role::ALL {
        let (sender, said) = unbounded();
        let info = BackendInfo {
            backend: "none",
            kernel_set: String::new(),
            numerics_id: String::new(),
            weights_dtype: String::new(),
            threads: 0,
            exact: true,
        };
        let parts = Parts {
            scheduler: scheduler(role),
            backend: Box::new(Idle(info)),
            transport: Box::new(Ended { event: Some(TransferEvent::Stopped { part: "the tcp thread" }) }),
            leases: Arc::new(LeaseTable::new()),
            region: RegionId(0),
            layout: layout(),
            structures: crate::structure::Structures::new("no such folder".into()),
            outlet: Box::new(ToChannel(sender)),
            inbox_events_max: 4,
        };
        let (handle, join) = spawn(parts, Parker::new()).unwrap();
        let failure = loop {
            if let Outbound::Stopped(failure) = said.recv_timeout(Duration::from_secs(30)).unwrap() {
                break failure.expect("it did not end as asked");
            }
        };
        assert_eq!(failure.kind, FailureKind::Internal);
        assert_eq!(failure.detail, "the transport tcp has stopped: the tcp thread has ended");
        join.join().unwrap();
        drop(handle);
    }
}

/// Found by reading: one reader with many leases could fill the inbox and keep every router out.
#[test]
fn peers_fill_half_of_the_inbox_and_routers_the_rest() {
    let parker = Parker::new();
    for (places, of_peers) in [(8, 4), (5, 3), (1, 1)] {
        let (inbox, _commands) = bounded(places);
        let handle = ReplicaHandle::new(inbox, parker.unparker().clone(), Arc::new(AtomicBool::new(false)));
        let event = || Event::Reader(InstanceId(1), ToGiver::Renew(vec![]));
        let taken = (0..places + 1).take_while(|_| handle.send_of_peer(event()).is_ok()).count();
        assert_eq!(taken, of_peers, "of {places}");
        let taken = (0..places + 1).take_while(|_| handle.send(event()).is_ok()).count();
        assert_eq!(taken, places - of_peers, "of {places}");
        let full = handle.send_of_peer(event());
        assert!(
            matches!(&full, Err(NotTaken { why: EngineError::InboxFull { events_max }, .. }) if *events_max == of_peers),
            "{full:?}"
        );
    }
}
