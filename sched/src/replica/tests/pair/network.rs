//! Deliveries in order of time, and what goes wrong with them.

use std::collections::{BTreeMap, BTreeSet};

use super::dice::Dice;
use super::router::Router;
use super::seen::Seen;
use super::worker::{LAYERS, Lanes, Manner, Worker};
use crate::handoff::PullOutcome;
use crate::layout::TILE_TOKENS;
use crate::message::{Envelope, FromWorker, ReleaseAnswer, ToGiver, ToReader, ToWorker};
use crate::replica::tests::backend::Effects;
use crate::replica::{Action, Compute, Event, Progress, Pull, Reading, STEPS_IN_FLIGHT_MAX, Transfer};
use crate::{Failure, FailureKind, InstanceId, LaneId, LeaseId, Leg, PullId, Request, Role, Span, StepId, Time};

const REQUESTS: u64 = 14;

pub(super) struct Network {
    dice: Dice,
    manner: Manner,
    now: Time,
    sent: u64,
    deliveries: BTreeMap<(Time, u64), Delivery>,
    /// Time of the last delivery on each session: sessions are ordered, so nothing overtakes it.
    session_busy_until: BTreeMap<(Role, Direction), Time>,
    router: Router,
    giver: Worker,
    reader: Worker,
    /// Pulls that run, by the reader's incarnation.
    pulls: BTreeMap<(InstanceId, PullId), RunningPull>,
    /// Requests that the reader was sent, to know what it must hold.
    offered: BTreeMap<Leg, Request>,
    taken: BTreeMap<(InstanceId, LeaseId), Leg>,
    /// Finished pull of the last positions of a leg, which says where they lie.
    pulled: BTreeMap<Leg, Pull>,
    committed: BTreeSet<Leg>,
    asked: BTreeSet<LeaseId>,
    vouched: BTreeSet<Leg>,
    seen: Seen,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Direction {
    ToWorker,
    FromWorker,
}

struct RunningPull {
    pull: Pull,
    aborted: bool,
}

#[derive(Debug, Clone, Copy)]
struct Ends {
    giver: InstanceId,
    reader: InstanceId,
}

/// Something that arrives; the instance is the one it was meant for.
enum Delivery {
    Arrival(u64),
    HangUp(u64),
    RouterBeat,
    ToWorker(Role, InstanceId, ToWorker),
    FromWorker(InstanceId, FromWorker),
    StepEnds(Role, InstanceId, LaneId, StepId),
    Tick(Role, InstanceId),
    /// One block's bytes land at the reader.
    Lands(InstanceId, PullId, u32),
    PullEnds(InstanceId, PullId, PullOutcome),
    Progress(Role, InstanceId, LaneId, StepId),
    ToGiver(Ends, ToGiver),
    /// Another reader that has got hold of a lease's id does what readers may do.
    Stranger(InstanceId, LeaseId),
    ToReader(Ends, ToReader),
    GiverLost(InstanceId, InstanceId),
    /// The reader has looked for a giver.
    Meets(InstanceId, InstanceId),
    Freeze(Role),
    Crash(Role),
    WorkerLost(Role),
}

impl Network {
    pub(super) fn new(seed: u64) -> Network {
        let mut dice = Dice::new(seed);
        let mut deliveries = Vec::new();
        for id in 0..REQUESTS {
            let at = dice.ms(0, 3_000);
            deliveries.push((at, Delivery::Arrival(id)));
            if dice.percent(20) {
                deliveries.push((at + dice.ms(1, 500), Delivery::HangUp(id)));
            }
        }
        for role in [Role::Prefill, Role::Decode] {
            if dice.percent(30) {
                deliveries.push((dice.ms(0, 4_000), Delivery::Freeze(role)));
            }
            if dice.percent(25) {
                deliveries.push((dice.ms(0, 4_000), Delivery::Crash(role)));
            }
        }
        deliveries.push((Span::from_secs(5), Delivery::RouterBeat));
        // Most histories run as Baton serves; the rest wait for every step.
        let manner = Manner {
            steps_in_flight: if seed.is_multiple_of(4) { 1 } else { STEPS_IN_FLIGHT_MAX },
            step_layers_max: if seed.is_multiple_of(3) { 1 } else { LAYERS },
            reading: if seed % 5 < 2 { Reading::WhileFilling } else { Reading::WhenComplete },
            pull_tokens_max: if seed % 7 < 2 { TILE_TOKENS } else { 1 << 20 },
            giver_block_tokens: TILE_TOKENS * [1, 2, 1, 4][(seed / 2 % 4) as usize],
            reader_block_tokens: TILE_TOKENS * [1, 1, 2][(seed / 8 % 3) as usize],
            lanes: if seed % 11 < 3 { Lanes::Two } else { Lanes::One },
        };
        let mut network = Network {
            dice,
            manner,
            now: Time(0),
            sent: 0,
            deliveries: BTreeMap::new(),
            session_busy_until: BTreeMap::new(),
            router: Router::default(),
            giver: Worker::new(Role::Prefill, u128::from(seed) * 100 + 1, manner),
            reader: Worker::new(Role::Decode, u128::from(seed) * 100 + 2, manner),
            pulls: BTreeMap::new(),
            offered: BTreeMap::new(),
            taken: BTreeMap::new(),
            pulled: BTreeMap::new(),
            committed: BTreeSet::new(),
            asked: BTreeSet::new(),
            vouched: BTreeSet::new(),
            seen: Seen::default(),
        };
        deliveries.into_iter().for_each(|(at, delivery)| network.send(at, delivery));
        network
    }

    /// Runs the whole history; the panic of a broken promise says which history.
    pub(super) fn run(mut self) -> Seen {
        let mut steps = 0;
        while let Some(((at, order), delivery)) = self.deliveries.pop_first() {
            steps += 1;
            assert!(steps < 100_000, "the history does not end");
            self.now = at;
            match self.frozen_until(&delivery) {
                Some(until) => drop(self.deliveries.insert((until, order), delivery)),
                None => self.deliver(delivery),
            }
            for (role, message) in std::mem::take(&mut self.router.out) {
                let delivery = Delivery::ToWorker(role, self.worker(role).instance, message);
                self.send_in_order(role, Direction::ToWorker, delivery);
            }
        }
        self.giver.assert_at_rest();
        self.reader.assert_at_rest();
        assert!(self.router.is_at_rest());
        let continued = self.giver.backend.continued + self.reader.backend.continued;
        Seen { retries: self.router.retries, finished: self.router.finished, continued, ..self.seen }
    }

    fn send(&mut self, after: Span, delivery: Delivery) {
        self.sent += 1;
        self.deliveries.insert((self.now + after, self.sent), delivery);
    }

    fn send_in_order(&mut self, role: Role, direction: Direction, delivery: Delivery) {
        let arrives = self.now + self.dice.ms(1, 20);
        let busy = self.session_busy_until.entry((role, direction)).or_default();
        *busy = (*busy).max(arrives);
        let after = busy.since(self.now);
        self.send(after, delivery);
    }

    fn worker(&mut self, role: Role) -> &mut Worker {
        match role {
            Role::Prefill => &mut self.giver,
            Role::Decode | Role::Aggregated | Role::Colocated => &mut self.reader,
        }
    }

    /// End of the freeze that a delivery meets: a frozen process takes nothing in, but its memory can still be read.
    fn frozen_until(&self, delivery: &Delivery) -> Option<Time> {
        let worker = match delivery {
            Delivery::ToWorker(Role::Prefill, ..)
            | Delivery::StepEnds(Role::Prefill, ..)
            | Delivery::Progress(Role::Prefill, ..)
            | Delivery::Tick(Role::Prefill, _)
            | Delivery::ToGiver(..)
            | Delivery::Stranger(..) => &self.giver,
            Delivery::ToWorker(..)
            | Delivery::StepEnds(..)
            | Delivery::Progress(..)
            | Delivery::Tick(..)
            | Delivery::PullEnds(..)
            | Delivery::ToReader(..)
            | Delivery::GiverLost(..)
            | Delivery::Meets(..) => &self.reader,
            Delivery::Arrival(_)
            | Delivery::HangUp(_)
            | Delivery::RouterBeat
            | Delivery::FromWorker(..)
            | Delivery::Lands(..)
            | Delivery::Freeze(_)
            | Delivery::Crash(_)
            | Delivery::WorkerLost(_) => return None,
        };
        (worker.frozen_until > self.now).then_some(worker.frozen_until)
    }

    fn deliver(&mut self, delivery: Delivery) {
        match delivery {
            Delivery::Arrival(id) => self.router.arrive(id, &mut self.dice),
            Delivery::HangUp(id) => self.router.cancel(id),
            Delivery::RouterBeat => {
                self.router.renew();
                if !self.router.is_at_rest() {
                    self.send(Span::from_secs(5), Delivery::RouterBeat);
                }
            }
            Delivery::ToWorker(role, instance, message) => {
                if let ToWorker::Offer(offer) = &message {
                    self.offered.insert(offer.request.leg, offer.request.clone());
                    self.taken.insert((offer.giver, offer.lease), offer.request.leg);
                }
                if let ToWorker::Commit(commit) = &message {
                    self.committed.insert(commit.leg);
                }
                self.feed(role, instance, Event::Router(message));
            }
            Delivery::FromWorker(from, message) => self.router.told(from, message),
            Delivery::StepEnds(role, instance, lane, step) => self.step_ends(role, instance, lane, step),
            Delivery::Tick(role, instance) => self.feed(role, instance, Event::Tick),
            Delivery::Progress(role, instance, lane, step) => {
                let event = Event::StepProgress { lane, step, layers_done: 1 };
                self.feed(role, instance, event);
            }
            Delivery::Lands(reader, pull, first) => self.land((reader, pull), first),
            Delivery::PullEnds(reader, pull, outcome) => self.pull_ends((reader, pull), outcome),
            Delivery::ToGiver(ends, word) => self.giver_hears(ends, word),
            Delivery::Stranger(giver, lease) => self.stranger(giver, lease),
            Delivery::ToReader(ends, word) => self.reader_hears(ends, word),
            Delivery::GiverLost(instance, giver) => self.feed(Role::Decode, instance, Event::GiverLost(giver)),
            Delivery::Meets(instance, giver) => self.meets(instance, giver),
            Delivery::Freeze(role) => {
                let until = self.now + self.dice.ms(100, 45_000);
                self.worker(role).frozen_until = until;
            }
            Delivery::Crash(role) => self.crash(role),
            Delivery::WorkerLost(role) => self.router.worker_lost(role),
        }
    }

    /// Meets a giver if it still lives, mostly; and a path that is up may go down again.
    fn meets(&mut self, reader: InstanceId, giver: InstanceId) {
        let lives = self.giver.instance == giver;
        if lives && self.dice.percent(90) {
            self.feed(Role::Decode, reader, Event::GiverMet(giver));
            self.feed(Role::Decode, reader, Event::GiverUp(giver));
        } else {
            self.seen.not_met += 1;
            let failure = Failure::new(FailureKind::Unavailable, "nobody answers");
            let unmet = Event::GiverUnmet { giver, address: super::router::GIVER_ADDRESS.into(), failure };
            self.feed(Role::Decode, reader, Event::GiverDown(giver));
            self.feed(Role::Decode, reader, unmet);
        }
        if lives && self.dice.percent(20) {
            let after = self.dice.ms(1, 1_000);
            self.send(after, Delivery::Meets(reader, giver));
        }
    }

    fn feed(&mut self, role: Role, instance: InstanceId, event: Event) {
        let now = self.now;
        let worker = self.worker(role);
        if worker.instance != instance {
            return;
        }
        for action in worker.feed(now, event) {
            self.perform(role, action);
        }
        let worker = self.worker(role);
        if let Some(at) = worker.replica.next_timeout() {
            assert!(at > now, "a timer is due and does not fire");
            if worker.next_tick.is_none_or(|tick| tick <= now || at < tick) {
                worker.next_tick = Some(at);
                self.send(at.since(now), Delivery::Tick(role, instance));
            }
        }
    }

    fn perform(&mut self, role: Role, action: Action) {
        let instance = self.worker(role).instance;
        match action {
            Action::Compute(Compute::Run { lane, step, plan, progress }) => {
                let layers = plan.layers.len();
                let effects = if self.dice.percent(50) { Effects::Early } else { Effects::Late };
                self.worker(role).backend.submit(lane, step, plan, effects);
                let (now, takes) = (self.now, self.dice.ms(3, 15));
                let busy_until = self.worker(role).busy_until.entry(lane).or_default();
                *busy_until = now.max(*busy_until) + takes;
                let ends_in = busy_until.since(now);
                if progress == Progress::ByLayer && layers > 1 {
                    self.send(Span(ends_in.us() - takes.us() / 2), Delivery::Progress(role, instance, lane, step));
                }
                self.send(ends_in, Delivery::StepEnds(role, instance, lane, step));
            }
            Action::Compute(Compute::Cancel { lane, step }) => self.worker(role).backend.cancel(lane, step),
            Action::Say(envelope) => self.say(role, envelope),
            Action::Transfer(Transfer::Grant { .. } | Transfer::Revoke(_)) => {}
            Action::Transfer(Transfer::Meet { giver, .. }) => {
                let after = self.dice.ms(1, 400);
                self.send(after, Delivery::Meets(instance, giver));
            }
            Action::Transfer(Transfer::Pull(pull)) => self.start_pull(pull),
            Action::Transfer(Transfer::AbortPull(pull)) => {
                // What was due when the pull ended may abort it before it is told so.
                let Some(running) = self.pulls.get_mut(&(instance, pull)) else { return };
                running.aborted = true;
                let after = self.dice.ms(1, 60);
                self.send(after, Delivery::PullEnds(instance, pull, PullOutcome::Aborted));
            }
        }
    }

    fn say(&mut self, role: Role, envelope: Envelope) {
        let speaker = self.worker(role).instance;
        match envelope {
            Envelope::Router(word) => {
                self.send_in_order(role, Direction::FromWorker, Delivery::FromWorker(speaker, word));
            }
            // The carrier of words to the router is no part of this network.
            Envelope::Over(_) => {}
            Envelope::Giver(giver, word) => {
                let ends = Ends { giver, reader: speaker };
                match &word {
                    ToGiver::Release(lease) => {
                        let lease = *lease;
                        self.seen.repeated_releases += u64::from(!self.asked.insert(lease));
                        self.send_lossy(25, Delivery::ToGiver(ends, word));
                        self.send_lossy(80, Delivery::Stranger(giver, lease));
                    }
                    ToGiver::Renew(_) | ToGiver::Follow(_) | ToGiver::Abort(_) => {
                        self.send_lossy(30, Delivery::ToGiver(ends, word));
                    }
                }
            }
            Envelope::Reader(reader, word) => {
                self.send_lossy(25, Delivery::ToReader(Ends { giver: speaker, reader }, word));
            }
        }
    }

    fn send_lossy(&mut self, percent: u64, delivery: Delivery) {
        let after = self.dice.ms(1, 30);
        if !self.dice.percent(percent) {
            self.send(after, delivery);
        }
    }

    fn step_ends(&mut self, role: Role, instance: InstanceId, lane: LaneId, step: StepId) {
        let worker = self.worker(role);
        if worker.instance != instance {
            return;
        }
        let (done, result) = worker.backend.finish(lane).expect("the step that was submitted");
        assert_eq!(done, step);
        self.feed(role, instance, Event::StepDone { lane, step, result });
    }

    /// Starts a pull whose tiles land one by one at their own times; slow pulls outlive their lease.
    fn start_pull(&mut self, pull: Pull) {
        let (id, reader) = (pull.id, self.reader.instance);
        let committed = self.committed.contains(&pull.leg);
        self.seen.early_pulls += u64::from(!committed);
        self.seen.layer_pulls += u64::from(pull.layers != (0..LAYERS));
        let takes = if self.dice.percent(6) { self.dice.ms(20_000, 50_000) } else { self.dice.ms(5, 200) };
        let (takes, outcome) = match takes > pull.deadline_in {
            true => (pull.deadline_in, PullOutcome::Failed("its deadline passed".to_owned())),
            false if self.dice.percent(8) => (takes, PullOutcome::Failed("reset by peer".to_owned())),
            false => (takes, PullOutcome::Complete),
        };
        for first in pull.positions.clone().step_by(TILE_TOKENS as usize) {
            let at = Span(self.dice.below(takes.us().max(1)));
            self.send(at, Delivery::Lands(reader, id, first));
        }
        self.send(takes, Delivery::PullEnds(reader, id, outcome));
        assert!(self.pulls.insert((reader, id), RunningPull { pull, aborted: false }).is_none());
    }

    /// Lets the reader's transport read the giver's memory and write its own, whatever both schedulers think of it. A
    /// value stands for all layers of a position: it moves with the last one.
    fn land(&mut self, pull: (InstanceId, PullId), first: u32) {
        let Some(RunningPull { pull, .. }) = self.pulls.get(&pull).filter(|running| running.pull.layers.end == LAYERS)
        else {
            return;
        };
        let end = pull.positions.end.min(first + TILE_TOKENS);
        let alive = pull.giver == self.giver.instance;
        let read = self.giver.backend.stored(&pull.remote, end);
        for position in first..end {
            let value = if alive { read[position as usize] } else { 77 };
            self.reader.backend.write_at(&pull.local, position, value);
        }
    }

    fn pull_ends(&mut self, pull: (InstanceId, PullId), outcome: PullOutcome) {
        let Some(running) = self.pulls.remove(&pull) else {
            return; // it has ended the other way before
        };
        let alive = running.pull.giver == self.giver.instance;
        let outcome = match outcome {
            PullOutcome::Complete if !alive => PullOutcome::Failed("the peer is gone".to_owned()),
            other => other,
        };
        self.seen.lost_pulls += u64::from(running.aborted || outcome != PullOutcome::Complete);
        let ((instance, id), pull) = (pull, running.pull);
        if self.pulled.get(&pull.leg).is_none_or(|last| last.positions.end <= pull.positions.end) {
            self.pulled.insert(pull.leg, pull);
        }
        self.feed(Role::Decode, instance, Event::PullEnded { pull: id, outcome });
    }

    fn giver_hears(&mut self, Ends { giver, reader }: Ends, word: ToGiver) {
        if self.giver.instance != giver {
            return;
        }
        self.feed(Role::Prefill, giver, Event::Reader(reader, word));
    }

    fn reader_hears(&mut self, Ends { giver, reader }: Ends, word: ToReader) {
        if let ToReader::Released { lease, answer } = word {
            let leg = self.taken.get(&(giver, lease)).copied();
            if answer == ReleaseAnswer::Ok
                && self.reader.instance == reader
                && let Some(leg) = leg.filter(|leg| self.reader.is_open(*leg))
            {
                self.assert_pulled(leg);
            }
            self.seen.expired_answers += u64::from(answer == ReleaseAnswer::Expired);
        }
        self.feed(Role::Decode, reader, Event::Giver(giver, word));
    }

    /// Lets a stranger use the lease. The offer's reader must not get a wrong `Ok` by it (see `assert_pulled`).
    fn stranger(&mut self, giver: InstanceId, lease: LeaseId) {
        let reader = InstanceId(u128::MAX);
        self.seen.strangers += u64::from(self.giver.instance == giver);
        let word = match self.dice.below(3) {
            0 => ToGiver::Renew(vec![lease]),
            1 => ToGiver::Abort(lease),
            _ => ToGiver::Release(lease),
        };
        self.feed(Role::Prefill, giver, Event::Reader(reader, word));
    }

    /// Checks what the reader has read and the giver has vouched for: it must be the prompt's KV cache.
    fn assert_pulled(&mut self, leg: Leg) {
        if !self.vouched.insert(leg) {
            return; // a repeated answer: the reader uses its blocks already
        }
        self.seen.joined += 1;
        let Some(pull) = self.pulled.get(&leg) else {
            return; // everything was at the reader before
        };
        let wanted = Router::prefill_values(&self.offered[&leg]);
        let stored = self.reader.backend.stored(&pull.local, pull.positions.end);
        assert_eq!(stored, wanted, "{leg}: the giver vouches for other bytes");
    }

    /// Kills a process with its memory, and puts another in its place.
    fn crash(&mut self, role: Role) {
        self.seen.crashes += 1;
        let old = self.worker(role).instance;
        *self.worker(role) = Worker::new(role, old.0 + 10, self.manner);
        if role == Role::Prefill {
            let (reader, after) = (self.reader.instance, self.dice.ms(1, 2_000));
            self.send(after, Delivery::GiverLost(reader, old));
        } else {
            self.pulls.clear();
        }
        let after = self.dice.ms(1, 300);
        self.send(after, Delivery::WorkerLost(role));
    }
}
