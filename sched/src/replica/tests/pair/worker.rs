//! One simulated worker: scheduler, backend, lease table; and a watch over what it says about its legs.

use std::collections::{BTreeMap, BTreeSet};

use crate::handoff::LeaseKey;
use crate::message::{Envelope, FromWorker, ToWorker};
use crate::replica::tests::backend::FakeBackend;
use crate::replica::{
    Action, Event, LaneConfig, LaneWork, LeaseConfig, PrefixCache, Reading, Replica, ReplicaConfig, Transfer,
};
use crate::scheduling::Scheduling;
use crate::{BlockId, Choice, InstanceId, LaneId, LeaseId, Leg, Role, Time};

const POOL_TOKENS: u32 = 224;
pub(super) const CONTEXT: u32 = 112;
pub(super) const LAYERS: u32 = 3;

pub(super) struct Worker {
    pub(super) role: Role,
    pub(super) instance: InstanceId,
    pub(super) replica: Replica,
    pub(super) backend: FakeBackend,
    pub(super) granted: BTreeMap<LeaseId, Vec<BlockId>>,
    pub(super) frozen_until: Time,
    pub(super) next_tick: Option<Time>,
    pub(super) busy_until: BTreeMap<LaneId, Time>,
    watch: BTreeMap<Leg, Watch>,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Manner {
    pub(super) steps_in_flight: u32,
    pub(super) step_layers_max: u32,
    pub(super) reading: Reading,
    pub(super) pull_tokens_max: u32,
    pub(super) giver_block_tokens: u32,
    pub(super) reader_block_tokens: u32,
    pub(super) lanes: Lanes,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Lanes {
    One,
    Two,
}

/// Words to and from a worker about one leg.
struct Watch {
    choices: BTreeSet<Choice>,
    over: bool,
    said_over: bool,
}

impl Worker {
    pub(super) fn new(role: Role, instance: u128, manner: Manner) -> Worker {
        let Manner { steps_in_flight, step_layers_max, reading, pull_tokens_max, .. } = manner;
        let block_tokens = match role {
            Role::Prefill => manner.giver_block_tokens,
            Role::Decode | Role::Aggregated | Role::Colocated => manner.reader_block_tokens,
        };
        let (blocks_total, rows) = (POOL_TOKENS / block_tokens, 24);
        let lane = |work| LaneConfig { work, step_tokens_max: rows, step_layers_max, steps_in_flight };
        let lanes = match manner.lanes {
            Lanes::One => LaneWork::of_role(role),
            Lanes::Two => LaneWork::of_role(Role::Colocated),
        };
        let config = ReplicaConfig {
            lanes: lanes.iter().map(|work| lane(*work)).collect(),
            blocks_total,
            block_tokens,
            layers: LAYERS,
            vocab: 1000,
            context_max: CONTEXT,
            sequences_max: 5,
            queue_legs_max: 16,
            pulls_per_giver_max: 2,
            pull_tokens_max,
            reading,
            prefix_cache: PrefixCache::On,
            filling_share: 0.5,
            scheduling: Scheduling::default(),
            lease: LeaseConfig::default(),
            hash_salt: 1,
            lease_key: LeaseKey::new([instance as u8; 32]),
        };
        Worker {
            role,
            instance: InstanceId(instance),
            backend: FakeBackend::new(&config),
            replica: Replica::new(config).expect("a valid configuration"),
            granted: BTreeMap::new(),
            frozen_until: Time(0),
            next_tick: None,
            busy_until: BTreeMap::new(),
            watch: BTreeMap::new(),
        }
    }

    pub(super) fn feed(&mut self, now: Time, event: Event) -> Vec<Action> {
        self.watch_event(&event);
        self.replica.on(now, event);
        let actions: Vec<_> = std::iter::from_fn(|| self.replica.poll()).collect();
        if let Err(why) = self.replica.check_invariants() {
            panic!("{:?} at {now}: {why}", self.role);
        }
        actions.iter().for_each(|action| self.watch_action(action));
        actions
    }

    fn watch_event(&mut self, event: &Event) {
        match event {
            Event::Router(ToWorker::Submit(request, _)) => self.expect(request),
            Event::Router(ToWorker::Offer(offer)) => self.expect(&offer.request),
            Event::Router(ToWorker::Commit(commit)) => {
                for first in commit.firsts.iter().filter(|first| first.ended.is_some()) {
                    self.choice_over(commit.leg, first.choice);
                }
            }
            Event::Router(ToWorker::Cancel { leg, choice: None }) => {
                if let Some(watch) = self.watch.get_mut(leg) {
                    watch.over = true;
                }
            }
            _ => {}
        }
    }

    fn expect(&mut self, request: &crate::Request) {
        let choices = request.choices.iter().map(|state| state.choice).collect();
        self.watch.insert(request.leg, Watch { choices, over: false, said_over: false });
    }

    fn choice_over(&mut self, leg: Leg, choice: Choice) {
        if let Some(watch) = self.watch.get_mut(&leg) {
            watch.choices.remove(&choice);
            watch.over |= watch.choices.is_empty();
        }
    }

    fn watch_action(&mut self, action: &Action) {
        match action {
            Action::Transfer(Transfer::Grant { lease, blocks }) => drop(self.granted.insert(*lease, blocks.clone())),
            Action::Transfer(Transfer::Revoke(lease)) => {
                assert!(self.granted.remove(lease).is_some(), "{lease} was not granted");
            }
            Action::Say(Envelope::Router(message)) => {
                let watch = self.watch.get_mut(&message.leg()).expect("a leg is named that was never sent");
                assert!(!watch.over, "after its end: {message:?}");
                self.watch_message(message);
            }
            Action::Say(Envelope::Over(leg)) => {
                let watch = self.watch.get_mut(leg).expect("a leg is named that was never sent");
                assert!(watch.over && !watch.said_over, "{leg} is over before its end, or twice");
                watch.said_over = true;
            }
            _ => {}
        }
    }

    fn watch_message(&mut self, message: &FromWorker) {
        let leg = message.leg();
        match message {
            FromWorker::Offered { .. } | FromWorker::Scored { .. } => {}
            FromWorker::Committed { commit, .. } => {
                let watch = self.watch.get_mut(&leg).expect("a leg that was sent");
                watch.over = commit.firsts.iter().all(|first| first.ended.is_some());
            }
            FromWorker::Token { choice, ended: Some(_), .. } => self.choice_over(leg, *choice),
            FromWorker::Token { ended: None, .. } => {}
            FromWorker::HandedOver { .. } | FromWorker::ReaderLost { .. } | FromWorker::Failed { .. } => {
                self.watch.get_mut(&leg).expect("a leg that was sent").over = true;
            }
        }
    }

    /// True while the worker owes something for the leg.
    pub(super) fn is_open(&self, leg: Leg) -> bool {
        self.watch.get(&leg).is_some_and(|watch| !watch.over)
    }

    pub(super) fn assert_at_rest(&self) {
        let load = self.replica.load();
        assert!(self.replica.is_idle() && self.replica.next_timeout().is_none(), "{:?}: {load:?}", self.role);
        assert_eq!((load.blocks_in_use, load.blocks_quarantined, load.running, load.waiting), (0, 0, 0, 0));
        assert!(self.granted.is_empty());
        let open: Vec<_> =
            self.watch.iter().filter(|(_, watch)| !watch.over || !watch.said_over).map(|(leg, _)| *leg).collect();
        assert!(open.is_empty(), "{:?} never ended {open:?}", self.role);
    }
}
