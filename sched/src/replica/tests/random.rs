//! One scheduler under random events of every kind, checked against the oracle and recounted after each.

mod model;

use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;

use self::model::{LAYERS, Model, Op, Shape};
use crate::cost::{Fitted, Latency, StepBudget};
use crate::handoff::PullOutcome;
use crate::message::ReleaseAnswer;
use crate::replica::tests::backend::Effects;
use crate::replica::{LaneWork, Reading, STEPS_IN_FLIGHT_MAX};
use crate::scheduling::{Admission, DecodeOrder, MlfqConfig, PastFuture, PrefillOrder, Scheduling};

fn shape() -> impl Strategy<Value = Shape> {
    let damaged = prop_oneof![9 => Just(u32::MAX), 1 => 0_u32..9];
    (0_u32..4, 1_u32..70, 1_u32..4, 1_u32..14, 0_u32..3, 0_u32..5, damaged).prop_map(
        |(family, prompt, choices, max_tokens, min_tokens, resumed, damaged)| Shape {
            family,
            prompt,
            choices,
            max_tokens,
            min_tokens,
            resumed,
            damaged,
        },
    )
}

fn op() -> impl Strategy<Value = Op> {
    let pick = any::<u16>;
    let outcome = prop_oneof![
        5 => Just(PullOutcome::Complete),
        1 => Just(PullOutcome::Failed("reset".to_owned())),
        1 => Just(PullOutcome::Aborted),
    ];
    let answer = prop_oneof![
        5 => Just(Some(ReleaseAnswer::Ok)),
        1 => Just(Some(ReleaseAnswer::Expired)),
        1 => Just(None),
    ];
    prop_oneof![
        6 => shape().prop_map(Op::Whole),
        5 => shape().prop_map(Op::Give),
        5 => shape().prop_map(Op::Offer),
        24 => (pick(), prop_oneof![Just(Effects::Early), Just(Effects::Late)]).prop_map(|(pick, then)| Op::FinishStep(pick, then)),
        1 => pick().prop_map(Op::FailStep),
        6 => pick().prop_map(Op::Commit),
        6 => (pick(), outcome).prop_map(|(pick, outcome)| Op::EndPull(pick, outcome)),
        6 => (pick(), answer).prop_map(|(pick, answer)| Op::AnswerRelease(pick, answer)),
        3 => (pick(), 0_u32..80, 1_u32..LAYERS).prop_map(|(pick, tokens, layers)| Op::Filled(pick, tokens, layers)),
        2 => Just(Op::Progress),
        3 => pick().prop_map(Op::ReaderFollows),
        4 => pick().prop_map(Op::ReaderReleases),
        1 => pick().prop_map(Op::ReaderAborts),
        2 => pick().prop_map(Op::ReaderRenews),
        2 => pick().prop_map(Op::Stranger),
        2 => pick().prop_map(Op::Cancel),
        2 => (pick(), 0_u32..3).prop_map(|(pick, choice)| Op::CancelChoice(pick, choice)),
        1 => pick().prop_map(Op::LeaseGone),
        1 => (1_u128..4).prop_map(Op::GiverLost),
        3 => (1_u128..4).prop_map(Op::GiverMet),
        1 => (1_u128..4).prop_map(Op::GiverUnmet),
        1 => (1_u128..4).prop_map(Op::GiverDown),
        4 => Just(Op::RenewAll),
        4 => (0_u64..9_000).prop_map(Op::Wait),
        1 => pick().prop_map(Op::Nonsense),
    ]
}

fn reading() -> impl Strategy<Value = Reading> {
    prop_oneof![Just(Reading::WhenComplete), Just(Reading::WhileFilling)]
}

fn scheduling() -> impl Strategy<Value = Scheduling> {
    let (given, learned) = (Latency::Given(Fitted::example()), Latency::Learned);
    let prefill = [
        PrefillOrder::Fcfs,
        PrefillOrder::ShortestFirst { ageing_tokens_per_s: 15.0 },
        PrefillOrder::SlackFirst(given),
        PrefillOrder::SlackFirst(learned),
    ];
    let decode = [given, learned].map(|latency| DecodeOrder::Mlfq(MlfqConfig::published(2, latency)));
    let past_future = PastFuture { window: 8, ..PastFuture::default() };
    let admission = [Admission::Aggressive, Admission::Conservative, Admission::PastFuture(past_future)];
    let budget = [StepBudget::Constant, StepBudget::Auto(given), StepBudget::Auto(learned)];
    let each = (
        proptest::sample::select(prefill.to_vec()),
        proptest::sample::select([&[DecodeOrder::Fcfs], &decode[..]].concat()),
        proptest::sample::select(admission.to_vec()),
        proptest::sample::select(budget.to_vec()),
    );
    each.prop_map(|(prefill, decode, admission, budget)| Scheduling { prefill, decode, admission, budget })
}

const LANES: [&[LaneWork]; 4] = [
    &[LaneWork::PrefillFirst],
    &[LaneWork::DecodeFirst],
    &[LaneWork::Prefill, LaneWork::Decode],
    &[LaneWork::Decode, LaneWork::Prefill],
];

proptest! {
    // Each run has up to 300 events.
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn every_leg_ends_once_with_the_right_tokens_and_every_block_comes_back(
        works in proptest::sample::select(LANES.to_vec()),
        blocks in 6_u32..20,
        steps_in_flight in 1..=STEPS_IN_FLIGHT_MAX,
        manner in (prop_oneof![2 => Just(LAYERS), 1 => 1..LAYERS], reading()),
        scheduling in scheduling(),
        ops in proptest::collection::vec(op(), 100..300),
    ) {
        let mut model = Model::new(works, blocks, steps_in_flight, manner, scheduling);
        for op in ops {
            model.apply(op);
        }
        model.bring_to_rest();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_same_events_give_the_same_decisions(
        works in proptest::sample::select(LANES.to_vec()),
        scheduling in scheduling(),
        ops in proptest::collection::vec(op(), 50..150)) {
        let decisions = || {
            let mut model = Model::new(works, 12, STEPS_IN_FLIGHT_MAX, (2, Reading::WhileFilling), scheduling);
            ops.iter().for_each(|op| model.apply(op.clone()));
            model.decisions
        };
        prop_assert_eq!(decisions(), decisions());
    }
}

/// Leaks and counters that drift show only after many legs have lived in one scheduler.
#[test]
fn ten_thousand_events_in_one_life_leave_nothing_behind() {
    let manners = [(LAYERS, Reading::WhenComplete), (1, Reading::WhileFilling)];
    for (works, manner) in LANES.into_iter().flat_map(|works| manners.map(|manner| (works, manner))) {
        let mut runner = TestRunner::deterministic();
        let ops = proptest::collection::vec(op(), 10_000).new_tree(&mut runner).expect("events").current();
        let mut model = Model::new(works, 16, STEPS_IN_FLIGHT_MAX, manner, Scheduling::default());
        for op in ops {
            model.apply(op);
        }
        model.bring_to_rest();
    }
}
