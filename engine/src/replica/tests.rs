//! How the replica thread ends after its transport has, how requests wait there for their grammars, and how much of its inbox peers and routers may fill.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use crossbeam_utils::sync::Parker;
use kernels::memory::Region;
use kv_transfer::{
    Batch, KvTransport, LeaseTable, PeerId, RegionId, Ticket, TransferError, TransferEvent, TransportKind,
};
use sched::layout::{KvDtype, KvLayout, Shape, TileOrder};
use sched::message::{Envelope, FromWorker, ToGiver, ToWorker, Work};
use sched::replica::{
    Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Progress, Reading, Replica, ReplicaConfig,
};
use sched::scheduling::Scheduling;
use sched::{
    Attempt, Choice, ChoiceState, Failure, FailureKind, InstanceId, LaneId, Leg, Request, RequestId, Role,
    SamplingParams, Slo, Span, StepId, StepPlan, Structure, TokenId,
};

use super::{NotTaken, Outbound, Outlet, Parts, ReplicaHandle, spawn};
use crate::EngineError;
use crate::backend::{Backend, BackendEvent, BackendInfo};
use crate::structure::Structures;

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
        |work: &LaneWork| LaneConfig { work: *work, step_tokens_max: 16, step_layers_max: 1, steps_in_flight: 1 };
    let config = ReplicaConfig {
        lanes: LaneWork::of_role(role).iter().map(lane).collect(),
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

fn parts(role: Role, structures: Structures, transport: Option<TransferEvent>) -> (Parts, Receiver<Outbound>) {
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
        transport: Box::new(Ended { event: transport }),
        leases: Arc::new(LeaseTable::new()),
        region: RegionId(0),
        layout: layout(),
        partition: None,
        structures,
        outlet: Box::new(ToChannel(sender)),
        inbox_events_max: 4,
    };
    (parts, said)
}

/// Returns the first message for which `wanted` finds something.
fn heard<T>(said: &Receiver<Outbound>, wanted: impl Fn(Outbound) -> Option<T>) -> T {
    loop {
        if let Some(found) = wanted(said.recv_timeout(Duration::from_secs(30)).unwrap()) {
            return found;
        }
    }
}

fn stopped(out: Outbound) -> Option<Failure> {
    if let Outbound::Stopped(failure) = out { failure } else { None }
}

/// Both givers and readers stop, whether peers are connected or not.
#[test]
fn a_transport_that_has_stopped_ends_the_worker_with_its_reason() {
    for role in Role::ALL {
        let structures = Structures::new("no such folder".into());
        let (parts, said) = parts(role, structures, Some(TransferEvent::Stopped { part: "the tcp thread" }));
        let (handle, join) = spawn(parts, Parker::new()).unwrap();
        let failure = heard(&said, stopped);
        assert_eq!(failure.kind, FailureKind::Internal);
        assert_eq!(failure.detail, "the transport tcp has stopped: the tcp thread has ended");
        join.join().unwrap();
        drop(handle);
    }
}

#[test]
fn a_worker_that_ends_lets_no_grammar_be_compiled_any_more() {
    let structures = Structures::new("no such folder".into());
    let (parts, _said) = parts(Role::Aggregated, structures.clone(), None);
    let (handle, join) = spawn(parts, Parker::new()).unwrap();
    handle.shutdown();
    join.join().unwrap();
    let structure = Structure { grammar: "start: \"a\"".into(), ends: vec![] };
    let refused = structures.follow(&Arc::new(structure), &[]).allowed(|_| ()).unwrap_err();
    assert_eq!(refused.to_string(), "this worker stops");
}

/// A request of one choice that follows a grammar.
fn structured(deadline_in: Span) -> Event {
    let structure = Structure { grammar: "start: \"a\"".into(), ends: vec![] };
    let request = Request {
        leg: Leg { request: RequestId(1), attempt: Attempt(0) },
        prompt: vec![TokenId(0); 3].into(),
        choices: vec![ChoiceState { choice: Choice(0), generated: vec![] }],
        params: Arc::new(SamplingParams { structure: Some(Arc::new(structure)), ..SamplingParams::default() }),
        slo: Slo::default(),
        deadline_in,
    };
    Event::Router(ToWorker::Submit(request, Work::Whole))
}

#[expect(clippy::needless_pass_by_value, reason = "`heard` gives it away")]
fn waiting(out: Outbound) -> Option<(u32, u64)> {
    match out {
        Outbound::Load(load) if load.waiting > 0 => Some((load.waiting, load.waiting_tokens)),
        _ => None,
    }
}

/// The backend here stops at its first step, so a worker that still lives has run none.
#[test]
fn a_request_whose_grammar_is_being_compiled_waits_and_counts_as_load() {
    let (structures, resume) = Structures::paused();
    let (parts, said) = parts(Role::Aggregated, structures, None);
    let (handle, join) = spawn(parts, Parker::new()).unwrap();
    handle.send(structured(Span::from_secs(60))).unwrap();
    assert_eq!(heard(&said, waiting), (1, 3));
    resume.send(()).unwrap();
    assert_eq!(heard(&said, stopped).detail, "the backend has stopped");
    join.join().unwrap();
}

#[test]
fn a_request_whose_grammar_takes_longer_than_its_deadline_fails_for_that() {
    let (structures, _resume) = Structures::paused();
    let (parts, said) = parts(Role::Aggregated, structures, None);
    let (handle, join) = spawn(parts, Parker::new()).unwrap();
    handle.send(structured(Span::from_ms(50))).unwrap();
    let failure = heard(&said, |out| match out {
        Outbound::Say(Envelope::Router(FromWorker::Failed { failure, .. })) => Some(failure),
        _ => None,
    });
    assert_eq!(failure.kind, FailureKind::DeadlineExceeded);
    handle.shutdown();
    join.join().unwrap();
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
