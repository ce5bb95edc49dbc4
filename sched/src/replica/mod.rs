//! The one scheduler of a worker: admits legs, forms steps, hands KV caches over; knows no bytes, clock or socket.
//!
//! It has one or two lanes over one pool of blocks and one of slots; a role is a configuration of them. Facts go in
//! through [`Replica::on`]; decisions come out of [`Replica::poll`], which also forms the next step. Feed every fact at
//! hand before polling: what has arrived together runs together.
//!
//! Where to look: `intake` checks and queues legs, `admission` reserves blocks and slots, `order` says who is
//! next, `forecast` whether the KV to come fits, `step` forms a step, `course` takes it through the layers, `room` finds blocks for growing sequences and preempts, `outcome` takes results,
//! `branching` makes one sequence per choice, `giving` and `taking` hand over, `reading` pulls, `ending` ends legs.

mod admission;
mod api;
mod branching;
mod config;
mod course;
mod draft;
mod ending;
mod finish;
mod forecast;
mod giving;
mod intake;
mod invariants;
mod lane;
mod leg;
mod load;
mod order;
mod outcome;
mod places;
mod pulls;
mod reading;
mod room;
mod sequence;
mod slots;
mod step;
mod taking;
mod timers;
mod timing;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

pub use api::{Action, Compute, Event, Progress, Pull, Transfer};
pub use config::{LaneConfig, LaneWork, LeaseConfig, PrefixCache, Reading, ReplicaConfig, STEPS_IN_FLIGHT_MAX};
use lane::Lane;
use leg::LegRun;
use order::DecodeQueue;
use places::Places;
use pulls::Pulls;
use sequence::{Place, Sequence, SequenceKey, Sequences};
use slots::Slots;
use timers::{Timer, Timers};

use crate::block::BlockPool;
use crate::cost::OwnSteps;
use crate::handoff::{LeaseIds, ReleaseAnswers};
use crate::message::{Envelope, FromWorker, ToGiver, ToReader, ToWorker};
use crate::scheduling::OutputLengths;
use crate::{InstanceId, LaneId, LeaseId, Leg, SchedError, StepId, Time};

/// The scheduler of one worker. Deterministic: the same calls give the same decisions.
#[derive(Debug)]
pub struct Replica {
    config: ReplicaConfig,
    now: Time,
    pool: BlockPool,
    slots: Slots,
    lanes: Vec<Lane>,
    /// The lane that computes prompts, and the one in which sequences run on; often the same.
    prefill_lane: LaneId,
    decode_lane: LaneId,
    legs: BTreeMap<Leg, LegRun>,
    sequences: Sequences,
    places: Places,
    decode_queue: DecodeQueue,
    /// Times of the steps that have ended here, if the scheduling needs a model of them.
    own_steps: Option<Box<OwnSteps>>,
    /// Lengths of answers that have ended here.
    output_lengths: Option<OutputLengths>,
    timers: Timers,
    /// Blocks of reservations whose prompt is not complete.
    filling_blocks: u32,
    /// Leases that readers hold here.
    given: BTreeMap<LeaseId, Leg>,
    answers: ReleaseAnswers,
    /// Leases that this worker holds at givers, or will once their giver is up.
    taken: BTreeMap<(LeaseId, InstanceId), Leg>,
    /// Leases at givers that no heartbeat has named yet.
    unrenewed: BTreeSet<(LeaseId, InstanceId)>,
    /// Givers that can be spoken to and read from.
    givers_up: BTreeSet<InstanceId>,
    pulls: Pulls,
    arrivals: u64,
    lease_ids: LeaseIds,
    steps: u64,
    cached_tokens: u64,
    preemptions: u64,
    foreign_claims: u64,
    out: VecDeque<Action>,
    /// True if facts came in since the last decisions.
    stale: bool,
}

impl Replica {
    /// Creates an idle scheduler; the error names the value that is out of range.
    pub fn new(config: ReplicaConfig) -> Result<Replica, SchedError> {
        config.validate()?;
        let lanes: Vec<Lane> = (0..).map(LaneId).zip(&config.lanes).map(|(id, lane)| Lane::new(id, *lane)).collect();
        let lane_that = |does: fn(LaneWork) -> bool| {
            lanes.iter().find(|lane| does(lane.config.work)).map_or(LaneId(0), |lane| lane.id)
        };
        Ok(Replica {
            now: Time(0),
            pool: BlockPool::new(config.blocks_total),
            slots: Slots::new(config.sequences_max),
            prefill_lane: lane_that(LaneWork::prefills),
            decode_lane: lane_that(LaneWork::decodes),
            lanes,
            legs: BTreeMap::new(),
            sequences: Sequences::default(),
            places: Places::default(),
            decode_queue: order::decode_queue(&config.scheduling),
            own_steps: config.scheduling.learns().then(Box::default),
            output_lengths: forecast::output_lengths(&config),
            timers: Timers::default(),
            filling_blocks: 0,
            given: BTreeMap::new(),
            answers: ReleaseAnswers::new(config.lease.span),
            taken: BTreeMap::new(),
            givers_up: BTreeSet::new(),
            unrenewed: BTreeSet::new(),
            pulls: Pulls::default(),
            arrivals: 0,
            lease_ids: LeaseIds::new(&config.lease_key),
            steps: 0,
            cached_tokens: 0,
            preemptions: 0,
            foreign_claims: 0,
            out: VecDeque::new(),
            stale: false,
            config,
        })
    }

    /// Takes in one fact, after everything that is due by `now`.
    pub fn on(&mut self, now: Time, event: Event) {
        self.now = self.now.max(now);
        self.stale = true;
        self.forgive_lateness();
        self.run_due_timers();
        match event {
            Event::Router(word) => self.on_router(word),
            Event::Reader(reader, word) => self.on_reader(reader, word),
            Event::Giver(giver, word) => self.on_giver(giver, word),
            Event::ReleaseUnheard { giver, lease } => self.release_unheard(giver, lease),
            Event::GiverMet(giver) => self.giver_met(giver),
            Event::GiverUp(giver) => self.giver_up(giver),
            Event::GiverDown(giver) => self.giver_down(giver),
            Event::GiverUnmet { giver, address, failure } => self.giver_unmet(giver, &address, &failure),
            Event::GiverLost(giver) => self.giver_lost(giver),
            Event::PullEnded { pull, outcome } => self.pull_ended(pull, outcome),
            Event::StepProgress { lane, step, layers_done } => self.step_progressed(lane, step, layers_done),
            Event::StepDone { lane, step, result } => self.step_done(lane, step, result),
            Event::StepFailed { lane, step, failure } => self.step_failed(lane, step, &failure),
            Event::Tick => {}
        }
    }

    /// Gives out one decision; `None` when there is nothing more to do until the next fact.
    pub fn poll(&mut self) -> Option<Action> {
        if self.out.is_empty() && std::mem::take(&mut self.stale) {
            self.schedule();
        }
        self.out.pop_front()
    }

    /// Time by which `on` must be called, with `Event::Tick` if nothing else has happened.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Time> {
        self.timers.next()
    }

    /// True if no leg lives here and no step or pull may touch a block.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.legs.is_empty() && self.pulls.is_empty() && self.lanes.iter().all(Lane::is_idle)
    }

    fn on_router(&mut self, word: ToWorker) {
        match word {
            ToWorker::Submit(request, work) => self.submit(&request, work),
            ToWorker::Offer(offer) => self.offer(offer),
            ToWorker::Commit(commit) => self.committed(commit),
            ToWorker::Cancel { leg, choice: None } => self.close(leg),
            ToWorker::Cancel { leg, choice: Some(choice) } => self.cancel_choice(leg, choice),
            ToWorker::Renew(legs) => self.renew(&legs),
        }
    }

    fn on_reader(&mut self, reader: InstanceId, word: ToGiver) {
        match word {
            ToGiver::Renew(leases) => self.reader_renewed(reader, &leases),
            ToGiver::Follow(lease) => self.reader_follows(reader, lease),
            ToGiver::Release(lease) => self.reader_released(reader, lease),
            ToGiver::Abort(lease) => self.reader_aborted(reader, lease),
        }
    }

    fn on_giver(&mut self, giver: InstanceId, word: ToReader) {
        match word {
            ToReader::Gone(leases) => self.leases_gone(giver, &leases),
            ToReader::Filled { lease, stored } => self.giver_filled(giver, lease, stored),
            ToReader::Released { lease, answer } => self.release_answered(giver, lease, answer),
        }
    }

    /// Gives leases another beat if this call comes more than a beat after a timer was due: then the worker itself was
    /// held up (its process was stopped, its machine slept), and words of peers and routers still wait to be read.
    fn forgive_lateness(&mut self) {
        let (now, beat) = (self.now, self.config.lease.beat);
        if self.timers.next().is_none_or(|due| due > now || now.since(due) <= beat) {
            return;
        }
        for timer in self.timers.due(now) {
            match timer {
                Timer::ReaderLease(lease) => self.extend_lease(lease, now + beat),
                Timer::RequestLease(_) => self.timers.set(timer, now + beat),
                Timer::Release(leg) => self.extend_release(leg, now + beat),
                // The deadline is the client's and does not move; renewals are sent as soon as possible.
                Timer::Deadline(_) | Timer::Beat | Timer::FirstBeat => {}
            }
        }
    }

    fn run_due_timers(&mut self) {
        while let Some(timer) = self.timers.pop_due(self.now) {
            match timer {
                Timer::Deadline(leg) => self.deadline_passed(leg),
                Timer::RequestLease(leg) => self.router_silent(leg),
                Timer::ReaderLease(lease) => self.reader_silent(lease),
                Timer::Release(leg) => self.release_unanswered(leg),
                Timer::Beat => self.beat(),
                Timer::FirstBeat => self.first_beat(),
            }
        }
    }

    fn tell(&mut self, word: FromWorker) {
        self.say(Envelope::Router(word));
    }

    fn say(&mut self, envelope: Envelope) {
        self.out.push_back(Action::Say(envelope));
    }

    fn transfer(&mut self, transfer: Transfer) {
        self.out.push_back(Action::Transfer(transfer));
    }

    fn lane(&self, id: LaneId) -> &Lane {
        &self.lanes[usize::from(id.0)]
    }

    fn lane_mut(&mut self, id: LaneId) -> &mut Lane {
        &mut self.lanes[usize::from(id.0)]
    }

    /// Moves a sequence to another place. In a place whose reservations are counted its blocks must not change.
    fn move_to(&mut self, key: SequenceKey, place: Place) {
        self.leave_place(key);
        self.sequences.at_mut(key).place = place;
        self.enter_place(key);
    }

    fn enter_place(&mut self, key: SequenceKey) {
        let sequence = self.sequences.at(key);
        self.filling_blocks += unfinished_blocks(sequence);
        self.places.enter(sequence.place, key);
        if sequence.place == Place::Running {
            self.joins_decodes(key);
        }
    }

    fn leave_place(&mut self, key: SequenceKey) {
        let sequence = self.sequences.at(key);
        self.filling_blocks -= unfinished_blocks(sequence);
        self.places.leave(sequence.place, key);
        if sequence.place == Place::Running {
            self.leaves_decodes(key);
        }
    }

    fn next_step(&mut self) -> StepId {
        self.steps += 1;
        StepId(self.steps)
    }
}

fn unfinished_blocks(sequence: &Sequence) -> u32 {
    match sequence.place {
        Place::Filling | Place::Taking => sequence.blocks_held(),
        Place::Unmet | Place::Waiting | Place::Preempted | Place::Ready | Place::Running | Place::Held => 0,
    }
}
