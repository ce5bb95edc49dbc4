//! A desk over many workers that say what workers say; and the consequences of silence and turns.

mod conduct;
mod deadlines;
mod freeze;

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::cluster::{Link, WorkerInfo};
use crate::journey::{JourneyConfig, Parts};
use crate::message::{Commit, FirstTiming, FirstToken, FromWorker, Load, Work};
use crate::route::{Avoided, Lack, LeastLoaded, Output, Pick, RoundRobin, RouteAsk, RouteConfig, RoutePolicy};
use crate::{
    Choice, CompatKey, FinishReason, LeaseId, ModelId, Request, Role, SampledToken, SamplingParams, Slo, Span, TokenId,
};

const BEAT: Span = Span::from_secs(1);

fn desk_config() -> DeskConfig {
    DeskConfig {
        journey: JourneyConfig::default(),
        renew_every: Span::from_secs(5),
        status_every: BEAT,
        wide_choices_max: 4,
    }
}

fn desk() -> Desk {
    Desk::new(Time(0), desk_config(), Routing::new(Box::new(LeastLoaded), RouteConfig::default()))
}

fn info(id: u32, role: Role) -> WorkerInfo {
    WorkerInfo {
        name: format!("{}-{id}", role.label()).into(),
        instance: InstanceId(u128::from(id) + 100),
        role,
        model: ModelId(0),
        weights: 1,
        peer_address: "host:1".into(),
        compat: CompatKey(1),
        context_max: 4_096,
        capacity_tokens: 100_000,
        sequences_max: 64,
    }
}

fn status(links: Option<Vec<Link>>) -> WorkerStatus {
    WorkerStatus { load: Load::default(), phase: Phase::Accepting, links, problems: Vec::new() }
}

fn link(giver: u32) -> Link {
    Link { giver: InstanceId(u128::from(giver) + 100), transport: "tcp".into(), bytes_per_second: 1_000_000_000 }
}

fn submission(id: u64, choices: u32, width: Width) -> DeskEvent {
    let parts = Parts {
        id: RequestId(id),
        model: ModelId(0),
        prompt: vec![TokenId(1); 100].into(),
        choices,
        params: Arc::new(SamplingParams { max_tokens: 3, ..SamplingParams::default() }),
        slo: Slo::default(),
    };
    DeskEvent::Submit(Box::new(Submission { parts, width }))
}

fn all(desk: &mut Desk) -> Vec<DeskAction> {
    std::iter::from_fn(|| desk.poll()).collect()
}

/// Joins givers 0..givers and readers behind them, each linked to all; then takes out all decisions.
fn cluster(desk: &mut Desk, now: Time, givers: u32, readers: u32) {
    for id in 0..givers + readers {
        let role = if id < givers { Role::Prefill } else { Role::Decode };
        desk.on(now, DeskEvent::Joined(WorkerId(id), info(id, role)));
    }
    for reader in givers..givers + readers {
        desk.on(now, DeskEvent::Status(WorkerId(reader), status(Some((0..givers).map(link).collect()))));
    }
    all(desk);
}

fn token() -> SampledToken {
    SampledToken { token: TokenId(5), logprob: None, top: vec![] }
}

/// Plays the workers of one request from its submission to its end; returns how many decisions that took.
fn play(desk: &mut Desk, now: Time, mut actions: Vec<DeskAction>) -> usize {
    let mut decisions = 0;
    while !actions.is_empty() {
        decisions += actions.len();
        for action in std::mem::take(&mut actions) {
            let DeskAction::Tell(worker, word) = action else { continue };
            match word {
                ToWorker::Submit(request, Work::Give) => {
                    let leg = request.leg;
                    let offered = FromWorker::Offered { leg, lease: LeaseId(leg.request.0), blocks: vec![] };
                    let firsts = vec![FirstToken { choice: Choice(0), token: token(), ended: None }];
                    let (commit, timing) = (Commit { leg, firsts }, FirstTiming::default());
                    desk.on(now, DeskEvent::Said(worker, offered));
                    desk.on(now, DeskEvent::Said(worker, FromWorker::Committed { commit, timing }));
                }
                ToWorker::Commit(commit) => {
                    for index in 1..3 {
                        let ended = (index == 2).then_some(FinishReason::Length);
                        let (leg, choice, timing) = (commit.leg, Choice(0), None);
                        let said = FromWorker::Token { leg, choice, index, token: token(), ended, timing };
                        desk.on(now, DeskEvent::Said(worker, said));
                    }
                }
                ToWorker::Offer(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) | ToWorker::Submit(..) => {}
            }
        }
        actions = all(desk);
    }
    decisions
}

#[test]
fn a_request_goes_from_its_submission_to_its_end_and_leaves_nothing_behind() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 2, 2);
    desk.on(Time(5), submission(1, 1, Width::Narrow));
    let first = all(&mut desk);
    assert!(matches!(first[0], DeskAction::Placed { chosen, .. } if chosen.reason == "shortest queue"), "{first:?}");
    assert!(matches!(&first[1], DeskAction::Tell(WorkerId(0), ToWorker::Submit(_, Work::Give))), "{first:?}");
    assert!(play(&mut desk, Time(6), first) > 6);
    assert_eq!((desk.running(), desk.timers.len(), desk.touched.len()), (0, 0, 0));
}

#[test]
fn what_can_be_served_is_told_when_it_changes() {
    let mut desk = desk();
    desk.on(Time(0), DeskEvent::Joined(WorkerId(0), info(0, Role::Prefill)));
    let views = |desk: &mut Desk| {
        let views = all(desk).into_iter().filter_map(|action| match action {
            DeskAction::View(view) => Some((view.sequence_tokens_max.into_values().next(), view.lack)),
            _ => None,
        });
        views.collect::<Vec<_>>()
    };
    assert_eq!(views(&mut desk), [(None, Some(Lack::Decode))]);
    desk.on(Time(0), DeskEvent::Joined(WorkerId(1), info(1, Role::Decode)));
    assert_eq!(views(&mut desk), [(None, Some(Lack::Connection))]);
    desk.on(Time(0), DeskEvent::Status(WorkerId(1), status(Some(vec![link(0)]))));
    desk.on(Time(0), DeskEvent::Status(WorkerId(1), status(None)));
    assert_eq!(views(&mut desk), [(Some(4_096), None)]);
    desk.on(Time(0), DeskEvent::Joined(WorkerId(7), other(info(7, Role::Decode))));
    let [DeskAction::Unused { worker: WorkerId(7), reason }] = &all(&mut desk)[..] else { panic!("it is used") };
    assert_eq!(&**reason, "it has other weights of the model than prefill-0, which serves");
    desk.on(Time(0), DeskEvent::Left(WorkerId(1)));
    assert_eq!(views(&mut desk), [(None, Some(Lack::Compatible))]);
}

fn other(info: WorkerInfo) -> WorkerInfo {
    WorkerInfo { weights: 2, compat: CompatKey(99), ..info }
}

/// Workers that were given legs to prefill.
fn submitted(actions: &[DeskAction]) -> Vec<WorkerId> {
    let told = actions.iter().filter_map(|action| match action {
        DeskAction::Tell(worker, ToWorker::Submit(..)) => Some(*worker),
        _ => None,
    });
    told.collect()
}

/// Found by an attacker: a choice could go on at workers that give other bits than those it began at.
#[test]
fn what_has_begun_goes_on_at_workers_of_its_kind() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    desk.on(Time(0), submission(1, 1, Width::Narrow));
    let actions = all(&mut desk);
    let DeskAction::Tell(WorkerId(0), ToWorker::Submit(Request { leg, .. }, _)) = actions[1] else {
        panic!("{actions:?}")
    };
    let firsts = vec![FirstToken { choice: Choice(0), token: token(), ended: None }];
    let (commit, timing) = (Commit { leg, firsts }, FirstTiming::default());
    let offered = FromWorker::Offered { leg, lease: LeaseId(1), blocks: vec![] };
    desk.on(Time(1), DeskEvent::Said(WorkerId(0), offered));
    desk.on(Time(1), DeskEvent::Said(WorkerId(0), FromWorker::Committed { commit, timing }));
    assert!(all(&mut desk).iter().any(|action| matches!(action, DeskAction::Deliver { .. })), "the client has a token");
    for (worker, role) in [(8, Role::Prefill), (9, Role::Decode)] {
        desk.on(Time(2), DeskEvent::Joined(WorkerId(worker), other(info(worker, role))));
    }
    desk.on(Time(2), DeskEvent::Status(WorkerId(9), status(Some(vec![link(8)]))));
    [0, 1].into_iter().for_each(|lost| desk.on(Time(3), DeskEvent::Left(WorkerId(lost))));
    desk.on(Time(1_000_000), submission(2, 1, Width::Narrow));
    assert_eq!(submitted(&all(&mut desk)), [WorkerId(8)], "a new request begins where it can, the other waits");
    for (worker, role) in [(2, Role::Prefill), (3, Role::Decode)] {
        desk.on(Time(1_000_001), DeskEvent::Joined(WorkerId(worker), info(worker, role)));
    }
    desk.on(Time(1_000_001), DeskEvent::Status(WorkerId(3), status(Some(vec![link(2)]))));
    assert_eq!(submitted(&all(&mut desk)), [WorkerId(2)], "it goes on, although another kind serves");
}

/// Found by an attacker: whoever came first with other weights kept a whole deployment out.
#[test]
fn workers_that_can_serve_do_whoever_came_first() {
    let mut desk = desk();
    desk.on(Time(0), DeskEvent::Joined(WorkerId(8), other(info(8, Role::Prefill))));
    cluster(&mut desk, Time(0), 1, 1);
    all(&mut desk);
    desk.on(Time(0), submission(1, 1, Width::Narrow));
    assert_eq!(submitted(&all(&mut desk)), [WorkerId(0)], "the worker that can serve with others");
    // The other kind gets its pair, and the one that serves goes on; without its reader it does not.
    desk.on(Time(0), DeskEvent::Joined(WorkerId(9), other(info(9, Role::Decode))));
    desk.on(Time(0), DeskEvent::Status(WorkerId(9), status(Some(vec![link(8)]))));
    assert_eq!(desk.routing.cluster.serving(ModelId(0)), Some(info(0, Role::Prefill).kind()));
    all(&mut desk);
    desk.on(Time(0), DeskEvent::Left(WorkerId(1)));
    assert_eq!(desk.routing.cluster.serving(ModelId(0)), Some(other(info(8, Role::Prefill)).kind()));
    let unused = |action| if let DeskAction::Unused { worker, .. } = action { Some(worker) } else { None };
    let unused: Vec<WorkerId> = all(&mut desk).into_iter().filter_map(unused).collect();
    assert_eq!(unused, [WorkerId(0)], "who is left of those that served is told of");
    assert_eq!(desk.generators, 1);
}

#[test]
fn a_silent_worker_gets_nothing_new_is_given_up_and_has_to_prove_that_it_lives() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    let at = |beats: u64| Time(beats * BEAT.us());
    let mut told = Vec::new();
    for beat in 1..=6 {
        desk.on(at(beat), DeskEvent::Status(WorkerId(0), status(None)));
        told.extend(all(&mut desk));
    }
    assert!(told.contains(&DeskAction::Quiet(WorkerId(1))) && told.contains(&DeskAction::GiveUp(WorkerId(1))));
    desk.on(at(6), DeskEvent::Joined(WorkerId(2), info(1, Role::Decode)));
    desk.on(at(6), DeskEvent::Status(WorkerId(2), status(Some(vec![link(0)]))));
    desk.on(at(6), submission(1, 1, Width::Narrow));
    let first = all(&mut desk);
    assert!(!first.iter().any(|action| matches!(action, DeskAction::Tell(..))), "{first:?}");
    desk.on(at(6), DeskEvent::Status(WorkerId(2), status(None)));
    let second = all(&mut desk);
    assert!(second.contains(&DeskAction::Returned(WorkerId(2))));
    assert!(second.iter().any(|action| matches!(action, DeskAction::Tell(WorkerId(0), ToWorker::Submit(..)))));
}

#[test]
fn wide_requests_take_turns_and_a_shut_down_ends_everything_once() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    for id in 1..=4 {
        desk.on(Time(0), submission(id, 2, Width::Wide(Group(id))));
    }
    all(&mut desk);
    assert_eq!(desk.running(), 2, "four choices of those that take turns run");
    desk.on(Time(0), DeskEvent::ClientGone(RequestId(4)));
    desk.on(Time(0), DeskEvent::ClientGone(RequestId(1)));
    all(&mut desk);
    assert_eq!(desk.running(), 2, "the third has begun");
    desk.on(Time(0), submission(5, 2, Width::Wide(Group(5))));
    desk.on(Time(0), DeskEvent::ShutDown);
    desk.on(Time(0), submission(6, 1, Width::Narrow));
    let mut ended: Vec<u64> = all(&mut desk)
        .into_iter()
        .filter_map(|action| match action {
            DeskAction::End { request, ending: Ending::Failed(failure) } => {
                assert_eq!(failure.kind, FailureKind::Unavailable);
                Some(request.0)
            }
            _ => None,
        })
        .collect();
    ended.sort_unstable();
    assert_eq!(ended, [2, 3, 5, 6], "the first and the fourth had ended with their clients");
    assert_eq!((desk.running(), desk.timers.len()), (0, 0));
}

#[test]
fn leases_are_renewed_at_every_worker_that_has_some() {
    let mut desk = desk();
    cluster(&mut desk, Time(0), 1, 1);
    desk.on(Time(0), submission(1, 1, Width::Narrow));
    all(&mut desk);
    desk.on(Time(1), DeskEvent::Tick);
    assert_eq!(all(&mut desk), []);
    let due = Time(Span::from_secs(5).us());
    for worker in 0..2 {
        desk.on(due, DeskEvent::Status(WorkerId(worker), status(None)));
    }
    let renewed = all(&mut desk).into_iter().filter(|action| matches!(action, DeskAction::Tell(_, ToWorker::Renew(_))));
    assert_eq!(renewed.count(), 1, "the reader has heard of nothing yet");
    assert!(desk.next_timeout() > due);
}

/// Not a test of speed on a busy machine: what it bounds is the work of a decision, which a look at all pairs would
/// multiply by thousands and one at all workers by hundreds. It prints what it measured.
#[expect(clippy::disallowed_methods, reason = "what is measured is the time that deciding takes")]
#[test]
fn a_decision_among_a_thousand_workers_looks_at_few() {
    // The fastest of many rounds: what else the machine does is not in it.
    const ROUNDS: u32 = 50;
    const ROUTES: u32 = 100;
    let policies: [fn() -> Box<dyn RoutePolicy>; 2] = [|| Box::new(LeastLoaded), || Box::<RoundRobin>::default()];
    for policy in policies {
        let took = |givers: u32, readers: u32| {
            let mut desk = Desk::new(Time(0), desk_config(), Routing::new(policy(), RouteConfig::default()));
            cluster(&mut desk, Time(0), givers, readers);
            let (avoid, prompt) = (BTreeSet::new(), vec![TokenId(1); 100]);
            let ask = RouteAsk {
                now: Time(0),
                model: ModelId(0),
                begun: None,
                prompt: &prompt,
                prefill_tokens: 100,
                sequence_tokens: 103,
                choices: 1,
                output: Output::Sequence,
                slo: Slo::default(),
                ttft_slack: None,
                avoid: &avoid,
                avoided: Avoided::LastResort,
            };
            let rounds = (0..ROUNDS).map(|_| {
                let began = std::time::Instant::now();
                for _ in 0..ROUTES {
                    assert!(desk.routing.route(&ask).is_some());
                }
                began.elapsed().as_secs_f64() * 1e6 / f64::from(ROUTES)
            });
            rounds.fold(f64::MAX, f64::min)
        };
        let (few, many) = (took(1, 1), took(500, 500));
        println!("{}: {few:.2} us per route among 2 workers, {many:.2} us among 1000", policy().name());
        assert!(many < 20.0 * few.max(1.0), "{few} us and {many} us");
    }
}

#[derive(Debug, Clone, Copy)]
enum Op {
    Submit(u32),
    Join(Role),
    Leave(u8),
    Status(u8, u8, bool),
    Answer(u8, u8),
    Gone(u8),
    Stop(u8, u32),
    Wait(u64),
}

fn op() -> impl Strategy<Value = Op> {
    let role = prop_oneof![Just(Role::Prefill), Just(Role::Decode), Just(Role::Aggregated)];
    prop_oneof![
        4 => (1_u32..4).prop_map(Op::Submit),
        2 => role.prop_map(Op::Join),
        1 => any::<u8>().prop_map(Op::Leave),
        4 => (any::<u8>(), any::<u8>(), any::<bool>()).prop_map(|(who, links, draining)| Op::Status(who, links, draining)),
        12 => (any::<u8>(), any::<u8>()).prop_map(|(which, how)| Op::Answer(which, how)),
        1 => any::<u8>().prop_map(Op::Gone),
        1 => (any::<u8>(), 0_u32..3).prop_map(|(which, choice)| Op::Stop(which, choice)),
        3 => (1_u64..3_000).prop_map(Op::Wait),
    ]
}

struct World {
    desk: Desk,
    now: Time,
    submitted: u64,
    ended: BTreeSet<RequestId>,
    joined: u32,
    up: Vec<WorkerId>,
    /// Words that workers were told and may answer.
    told: Vec<(WorkerId, ToWorker)>,
}

impl World {
    fn apply(&mut self, op: Op) {
        let picked = |from: usize, pick: u8| usize::from(pick).checked_rem(from);
        match op {
            Op::Submit(choices) => {
                self.submitted += 1;
                let width = if choices > 1 { Width::Wide(Group(self.submitted / 2)) } else { Width::Narrow };
                self.on(submission(self.submitted, choices, width));
            }
            Op::Join(role) => {
                // Sometimes a second session with a process that is up already.
                let info =
                    WorkerInfo { instance: InstanceId(u128::from(self.joined % 5) + 100), ..info(self.joined, role) };
                self.up.push(WorkerId(self.joined));
                self.on(DeskEvent::Joined(WorkerId(self.joined), info));
                self.joined += 1;
            }
            Op::Leave(pick) => {
                if let Some(at) = picked(self.up.len(), pick) {
                    let worker = self.up.swap_remove(at);
                    self.on(DeskEvent::Left(worker));
                }
            }
            Op::Status(pick, links, draining) => {
                let Some(at) = picked(self.up.len(), pick) else { return };
                let links = (0..5).filter(|giver| links >> giver & 1 == 1).map(link).collect();
                let phase = if draining { Phase::Draining } else { Phase::Accepting };
                self.on(DeskEvent::Status(self.up[at], WorkerStatus { phase, ..status(Some(links)) }));
            }
            Op::Answer(pick, how) => {
                if let Some(at) = picked(self.told.len(), pick) {
                    let (worker, word) = self.told[at].clone();
                    for said in answers(word, how) {
                        self.on(DeskEvent::Said(worker, said));
                    }
                }
            }
            Op::Gone(pick) => {
                let request = RequestId(u64::from(pick) % self.submitted.max(1) + 1);
                self.on(DeskEvent::ClientGone(request));
            }
            Op::Stop(pick, choice) => {
                let request = RequestId(u64::from(pick) % self.submitted.max(1) + 1);
                self.on(DeskEvent::StopChoice { request, choice: Choice(choice) });
            }
            Op::Wait(ms) => {
                self.now = self.now + Span::from_ms(ms);
                self.on(DeskEvent::Tick);
            }
        }
    }

    fn on(&mut self, event: DeskEvent) {
        self.desk.on(self.now, event);
        while let Some(action) = self.desk.poll() {
            match action {
                DeskAction::Tell(worker, word) => self.told.push((worker, word)),
                DeskAction::End { request, .. } => assert!(self.ended.insert(request), "{request} ends twice"),
                DeskAction::Deliver { request, .. }
                | DeskAction::DeliverScores { request, .. }
                | DeskAction::FinishChoice { request, .. } => {
                    assert!(!self.ended.contains(&request), "news of {request} after its end");
                }
                DeskAction::GiveUp(worker) => self.up.retain(|up| *up != worker),
                _ => {}
            }
        }
        assert!(self.desk.next_timeout() > self.now, "something is due and does not happen");
    }
}

/// Answers of a worker to a word, also those that no sound worker gives.
fn answers(word: ToWorker, how: u8) -> Vec<FromWorker> {
    let failed = |leg| {
        let kind = FailureKind::ALL[usize::from(how) % FailureKind::ALL.len()];
        FromWorker::Failed { leg, failure: Failure::new(kind, "as it happens") }
    };
    let all_tokens = |leg, choices: Vec<Choice>, from: u32| {
        let said = move |choice| {
            (from..3).map(move |index| {
                let ended = (index == 2).then_some(FinishReason::Length);
                FromWorker::Token { leg, choice, index, token: token(), ended, timing: None }
            })
        };
        choices.into_iter().flat_map(said).collect::<Vec<_>>()
    };
    match word {
        ToWorker::Submit(request, _) | ToWorker::Offer(crate::message::Offer { request, .. })
            if how.is_multiple_of(5) =>
        {
            vec![failed(request.leg)]
        }
        ToWorker::Submit(request, Work::Give) => {
            let leg = request.leg;
            let firsts =
                request.choices.iter().map(|state| FirstToken { choice: state.choice, token: token(), ended: None });
            let (commit, timing) = (Commit { leg, firsts: firsts.collect() }, FirstTiming::default());
            let offered = FromWorker::Offered { leg, lease: LeaseId(leg.request.0), blocks: vec![] };
            let last =
                if how.is_multiple_of(2) { FromWorker::ReaderLost { leg } } else { FromWorker::HandedOver { leg } };
            let said = vec![offered, FromWorker::Committed { commit, timing }, last];
            said.into_iter().take(usize::from(how) % 3 + 1).collect()
        }
        ToWorker::Submit(request, Work::Whole) => {
            all_tokens(request.leg, request.choices.iter().map(|state| state.choice).collect(), 0)
        }
        ToWorker::Commit(commit) => all_tokens(commit.leg, commit.firsts.iter().map(|first| first.choice).collect(), 1),
        ToWorker::Offer(_) | ToWorker::Cancel { .. } | ToWorker::Renew(_) => Vec::new(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_request_ends_once_whatever_workers_and_clients_do(ops in proptest::collection::vec(op(), 50..200)) {
        let (desk, told) = (desk(), Vec::new());
        let mut world =
            World { desk, now: Time(0), submitted: 0, ended: BTreeSet::new(), joined: 0, up: Vec::new(), told };
        for op in ops {
            world.apply(op);
        }
        world.on(DeskEvent::ShutDown);
        prop_assert_eq!(world.ended.len() as u64, world.submitted);
        let desk = &world.desk;
        prop_assert_eq!((desk.running(), desk.timers.len(), desk.touched.len()), (0, 0, 0));
    }
}
