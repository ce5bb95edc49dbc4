//! Carries out the scheduler's decisions on backend, transport, lease table and outlet; decides nothing.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kv_transfer::{
    Batch, KvTransport, LeaseTable, PeerId, Probe, RangeCopy, RegionId, Ticket, TransferError, TransferEvent,
};
use sched::cost::Phase;
use sched::handoff::PullOutcome;
use sched::layout::{KvLayout, PullBlocks};
use sched::replica::{Action, Compute, Event, Progress, Pull, Transfer};
use sched::share::{Decision, Split};
use sched::{BlockId, Failure, FailureKind, InstanceId, LaneId, PullId, StepId, StepPlan, StepResult};

use super::gaps::Gaps;
use super::peers::{Link, Peer, Peers};
use super::{Outbound, Outlet, PeerInfo, TransferEnd};
use crate::EngineError;
use crate::backend::{Backend, BackendEvent};

/// Time limit of a pull's reading: at least this long, plus this many times what the rate of an idle link implies. The
/// transport notices a peer that sends nothing at all much sooner.
const READING_LEAST: Duration = Duration::from_secs(30);
const READING_SPARE: f64 = 16.0;

/// The pool is the first region that every worker registers.
const POOL_REGION: RegionId = RegionId(0);

/// The lanes of a device that is divided, in the order of `LaneWork::of_role`.
const PREFILL: LaneId = LaneId(0);
const DECODE: LaneId = LaneId(1);

/// Carries out the decisions of the replica thread.
pub(super) struct Performer {
    backend: Box<dyn Backend>,
    transport: Box<dyn KvTransport>,
    leases: Arc<LeaseTable>,
    region: RegionId,
    layout: KvLayout,
    pub(super) outlet: Box<dyn Outlet>,
    peers: Peers,
    pulls: BTreeMap<Ticket, (PullId, InstanceId)>,
    tickets: BTreeMap<PullId, Ticket>,
    gaps: Gaps,
    /// The split whose shares the backend has.
    split: Option<Split>,
    broken: Option<Failure>,
}

impl Performer {
    pub(super) fn new(
        backend: Box<dyn Backend>,
        transport: Box<dyn KvTransport>,
        leases: Arc<LeaseTable>,
        region: RegionId,
        layout: KvLayout,
        outlet: Box<dyn Outlet>,
    ) -> Performer {
        Performer {
            backend,
            transport,
            leases,
            region,
            layout,
            outlet,
            peers: Peers::default(),
            pulls: BTreeMap::new(),
            tickets: BTreeMap::new(),
            gaps: Gaps::default(),
            split: None,
            broken: None,
        }
    }

    /// Takes the failure that makes it impossible to go on.
    pub(super) fn broken(&mut self) -> Option<Failure> {
        self.broken.take()
    }

    /// Carries out one decision; some are answered at once by an event.
    pub(super) fn perform(&mut self, action: Action) -> Option<Event> {
        match action {
            Action::Compute(Compute::Run { lane, step, plan, progress }) => self.run(lane, step, (plan, progress)),
            Action::Compute(Compute::Cancel { lane: _, step }) => {
                self.backend.cancel(step);
                None
            }
            Action::Transfer(transfer) => self.transfer(transfer),
            Action::Say(envelope) => {
                self.outlet.put(Outbound::Say(envelope));
                None
            }
        }
    }

    fn transfer(&mut self, transfer: Transfer) -> Option<Event> {
        match transfer {
            Transfer::Grant { lease, blocks } => {
                let ranges = blocks.iter().map(|block| self.byte_range(*block));
                self.leases.grant(lease, self.region, ranges);
            }
            Transfer::Revoke(lease) => self.leases.revoke(lease),
            Transfer::Meet { giver, address } => self.outlet.put(Outbound::Meet { giver, address }),
            Transfer::Pull(pull) => return self.pull(&pull),
            Transfer::AbortPull(pull) => {
                if let Some(ticket) = self.tickets.get(&pull) {
                    self.transport.abort(*ticket);
                }
            }
        }
        None
    }

    fn run(&mut self, lane: LaneId, step: StepId, (plan, progress): (StepPlan, Progress)) -> Option<Event> {
        let Err(error) = self.backend.submit(lane, step, plan, progress) else {
            self.gaps.submitted(lane);
            return None;
        };
        let failure = Failure::new(FailureKind::Internal, error.to_string());
        if matches!(error, EngineError::Stopped) {
            self.broken = Some(Failure::new(FailureKind::Internal, "the backend has stopped"));
        }
        Some(Event::StepFailed { lane, step, failure })
    }

    /// Sets the shares of a decision, if it changes them or is the first.
    pub(super) fn divide(&mut self, decision: Decision) {
        let began = Instant::now();
        if self.split.replace(decision.split) != Some(decision.split) {
            let share = |phase| decision.split.share_of(phase) as f32;
            self.backend.set_shares(&[(PREFILL, share(Phase::Prefill)), (DECODE, share(Phase::Decode))]);
        }
        if decision.wanted != decision.split {
            let Decision { wanted, split, .. } = &decision;
            tracing::debug!(?wanted, ?split, "a split was rounded to one that the device can express");
        }
        self.outlet.put(Outbound::Divided { decision, took: began.elapsed() });
    }

    pub(super) fn report_used(&mut self) {
        let used = self.backend.used();
        if !used.is_empty() {
            self.outlet.put(Outbound::Used(used));
        }
    }

    /// Returns the next event of a step; its times go to the outlet, for metrics.
    pub(super) fn poll_backend(&mut self) -> Option<Event> {
        loop {
            match self.backend.poll()? {
                BackendEvent::Progress { lane, step, layers_done } => {
                    return Some(Event::StepProgress { lane, step, layers_done });
                }
                BackendEvent::Stopped(failure) => {
                    self.broken.get_or_insert(failure);
                }
                BackendEvent::Done { lane, step, ran, result } => {
                    let gap = self.gaps.ended(lane, ran);
                    self.outlet.put(Outbound::Stepped { lane, took: ran.took(), gap });
                    return Some(step_ended(lane, step, result));
                }
            }
        }
    }

    /// Ends a turn: all events at hand were taken and acted upon.
    pub(super) fn turn_over(&mut self) {
        self.gaps.turn_over();
        self.outlet.flush();
    }

    fn byte_range(&self, block: BlockId) -> Range<u64> {
        let start = self.layout.block_offset(block);
        start..start + self.layout.block_bytes()
    }

    fn pull(&mut self, pull: &Pull) -> Option<Event> {
        match self.start_pull(pull) {
            Ok(ticket) => {
                self.pulls.insert(ticket, (pull.id, pull.giver));
                self.tickets.insert(pull.id, ticket);
                None
            }
            Err(why) => Some(Event::PullEnded { pull: pull.id, outcome: PullOutcome::Failed(why) }),
        }
    }

    fn start_pull(&mut self, pull: &Pull) -> Result<Ticket, String> {
        let (peer, rate) = self.peers.connected(pull.giver)?;
        if let Some(block) = pull.remote.iter().find(|block| block.0 >= peer.blocks) {
            return Err(format!("the offer names {block} of a pool of {} blocks", peer.blocks));
        }
        let blocks = PullBlocks {
            src: &pull.remote,
            dst: &pull.local,
            positions: pull.positions.clone(),
            layers: pull.layers.clone(),
        };
        let copies = peer.resharding.copies(&blocks).map_err(|error| error.to_string())?;
        let copies: Vec<_> = copies.into_iter().map(RangeCopy::from).collect();
        let batch = Batch {
            lease: pull.lease,
            remote: POOL_REGION,
            local: self.region,
            deadline: Duration::from_micros(pull.deadline_in.us()),
            reading: reading_time(copies.iter().map(|copy| copy.bytes).sum(), rate),
            copies,
        };
        self.transport.start(peer.id, batch).map_err(|error| error.to_string())
    }

    /// Connects to a peer; closes an earlier connection to the same instance.
    pub(super) fn add_peer(&mut self, info: PeerInfo) {
        let PeerInfo { instance, resharding, blocks, endpoint } = info;
        if let Some(former) = self.peers.remove(instance) {
            self.transport.disconnect(former.id);
        }
        match self.transport.connect(&endpoint) {
            Ok(id) => self.peers.insert(instance, Peer { id, resharding, blocks, link: Link::Connecting }),
            Err(error) => self.outlet.put(Outbound::PeerDown { instance, reason: error.to_string() }),
        }
    }

    pub(super) fn remove_peer(&mut self, instance: InstanceId) {
        if let Some(peer) = self.peers.remove(instance) {
            self.transport.disconnect(peer.id);
        }
    }

    /// Returns the next event of a pull; events of peers go to the outlet.
    pub(super) fn poll_transport(&mut self) -> Option<Event> {
        loop {
            let event = match self.transport.poll()? {
                TransferEvent::PeerUp { peer, probe } => self.peer_up(peer, probe),
                TransferEvent::PeerDown { peer, error } => self.peer_down(peer, &error),
                TransferEvent::Done { ticket, bytes, elapsed_us } => {
                    self.ended(ticket, bytes, elapsed_us, TransferEnd::Done, PullOutcome::Complete)
                }
                TransferEvent::Failed { ticket, error } => {
                    let end = match error {
                        TransferError::Denied { .. } => TransferEnd::Refused,
                        _ => TransferEnd::Failed,
                    };
                    self.ended(ticket, 0, 0, end, PullOutcome::Failed(error.to_string()))
                }
                TransferEvent::Stopped { part } => self.transport_stopped(part),
                TransferEvent::Aborted { ticket } => {
                    self.ended(ticket, 0, 0, TransferEnd::Aborted, PullOutcome::Aborted)
                }
            };
            if event.is_some() {
                return event;
            }
        }
    }

    fn peer_up(&mut self, peer: PeerId, probe: Probe) -> Option<Event> {
        let (transport, bytes_per_second) = (self.transport.kind(), probe.bytes_per_second());
        let instance = self.peers.up(peer, bytes_per_second)?;
        self.outlet.put(Outbound::PeerUp { instance, transport, bytes_per_second });
        None
    }

    fn peer_down(&mut self, peer: PeerId, error: &TransferError) -> Option<Event> {
        let instance = self.peers.down(peer)?;
        self.outlet.put(Outbound::PeerDown { instance, reason: error.to_string() });
        None
    }

    /// After this nothing can be given or taken, and running pulls never end, so the process must.
    fn transport_stopped(&mut self, part: &'static str) -> Option<Event> {
        let detail = format!("the transport {} has stopped: {part} has ended", self.transport.kind());
        self.broken.get_or_insert(Failure::new(FailureKind::Internal, detail));
        self.pulls.clear();
        self.tickets.clear();
        None
    }

    fn ended(
        &mut self,
        ticket: Ticket,
        bytes: u64,
        elapsed_us: u64,
        end: TransferEnd,
        outcome: PullOutcome,
    ) -> Option<Event> {
        let (pull, giver) = self.pulls.remove(&ticket)?;
        self.tickets.remove(&pull);
        let transport = self.transport.kind();
        self.outlet.put(Outbound::Transferred { giver, transport, bytes, elapsed_us, end });
        Some(Event::PullEnded { pull, outcome })
    }

    pub(super) fn abort_all(&mut self) {
        for ticket in self.pulls.keys() {
            self.transport.abort(*ticket);
        }
    }

    /// True if a byte may still arrive.
    pub(super) fn has_transfers(&self) -> bool {
        !self.pulls.is_empty()
    }
}

fn reading_time(bytes: u64, bytes_per_second: f64) -> Duration {
    let measured = Duration::try_from_secs_f64(READING_SPARE * bytes as f64 / bytes_per_second);
    measured.map_or(Duration::MAX, |measured| READING_LEAST.saturating_add(measured))
}

fn step_ended(lane: LaneId, step: StepId, result: Result<StepResult, Failure>) -> Event {
    match result {
        Ok(result) => Event::StepDone { lane, step, result },
        Err(failure) => {
            tracing::error!(%lane, %step, %failure, "step failed");
            Event::StepFailed { lane, step, failure }
        }
    }
}
