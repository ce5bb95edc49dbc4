//! Legs that are refused on arrival.

use expect_test::expect;

use crate::replica::tests::script::check;
use crate::replica::{LaneConfig, LaneWork, LeaseConfig, PrefixCache, Replica, ReplicaConfig};
use crate::scheduling::{PrefillOrder, Scheduling};
use crate::{SchedError, Span};

#[test]
fn bad_and_oversized_legs_are_refused_with_a_reason() {
    check(
        "config context=100 blocks=4
         submit r1 prompt=0
         submit r2 prompt=5 n=0
         submit r3 prompt=5 n=2 resume=1
         submit r4 prompt=5 resume=4 max=4
         submit r5 prompt=100
         submit r6 prompt=60 max=7
         submit r7 prompt=60 max=7 give
         submit r8 prompt=5 n=9
         offer r9 prompt=60 max=7",
        expect![[r#"
            > submit r1 prompt=0
              failed r1 invalid_request: the prompt has no tokens
              over r1
            > submit r2 prompt=5 n=0
              failed r2 invalid_request: the choices of a leg must be at least one and distinct
              over r2
            > submit r3 prompt=5 n=2 resume=1
              failed r3 invalid_request: a leg of several choices cannot resume any of them
              over r3
            > submit r4 prompt=5 resume=4 max=4
              failed r4 invalid_request: nothing is left to generate
              over r4
            > submit r5 prompt=100
              failed r5 too_long: 100 tokens leave nothing to generate in a context of 100
              over r5
            > submit r6 prompt=60 max=7
              failed r6 too_long: 66 tokens need 5 KV blocks, the worker has 4
              over r6
            > submit r7 prompt=60 max=7 give
              grant L1 b0,b1,b2,b3
              offered r7 L1 b0,b1,b2,b3
              run step1: +slot0 | 0..60 @b0,b1,b2,b3 → slot0
            > submit r8 prompt=5 n=9
              failed r8 invalid_request: 9 choices are asked for, 8 can run at once
              over r8
            > offer r9 prompt=60 max=7
              failed r9 too_long: 66 tokens need 5 KV blocks, the worker has 4
              over r9
        "#]],
    );
}

#[test]
fn tokens_beyond_the_vocabulary_are_refused_wherever_they_stand() {
    check(
        "config vocab=2005
         submit r1 family=2 prompt=6
         submit r2 family=2 prompt=4 resume=2
         submit r3 family=1 prompt=2 stop=2005
         submit r4 family=1 prompt=2 bias=2006
         offer r5 family=2 prompt=6 lease=5
         submit r6 family=2 prompt=5 stop=2004 bias=2004 max=1",
        expect![[r#"
            > submit r1 family=2 prompt=6
              failed r1 invalid_request: the prompt names token 2005, the vocabulary has 2005 entries
              over r1
            > submit r2 family=2 prompt=4 resume=2
              failed r2 invalid_request: what was generated names token 2005, the vocabulary has 2005 entries
              over r2
            > submit r3 family=1 prompt=2 stop=2005
              failed r3 invalid_request: stop_token_ids names token 2005, the vocabulary has 2005 entries
              over r3
            > submit r4 family=1 prompt=2 bias=2006
              failed r4 invalid_request: logit_bias names token 2006, the vocabulary has 2005 entries
              over r4
            > offer r5 family=2 prompt=6 lease=5
              failed r5 invalid_request: the prompt names token 2005, the vocabulary has 2005 entries
              over r5
            > submit r6 family=2 prompt=5 stop=2004 bias=2004 max=1
              run step1: +slot0 | 0..5 @b0 → slot0
        "#]],
    );
}

#[test]
fn a_commit_beyond_the_vocabulary_fails_its_leg_only() {
    check(
        "config role=decode vocab=2005
         offer r1 family=1 prompt=5 lease=5
         commit r1 2005",
        expect![[r#"
            > offer r1 family=1 prompt=5 lease=5
            > commit r1 2005
              failed r1 invalid_request: the commit of req1/try0 names token 2005, the vocabulary has 2005 entries
              abort lease5
              over r1
        "#]],
    );
}

#[test]
fn a_full_queue_answers_overload() {
    check(
        "config seats=1 queue=1
         submit r1 prompt=5
         submit r2 prompt=5
         submit r3 prompt=5",
        expect![[r#"
            > submit r1 prompt=5
              run step1: +slot0 | 0..5 @b0 → slot0
            > submit r2 prompt=5
            > submit r3 prompt=5
              failed r3 overloaded: all 1 places in the queue are taken
              over r3
        "#]],
    );
}

#[test]
fn a_repeated_leg_is_ignored_and_a_lease_is_taken_once() {
    check(
        "config role=decode
         submit r1 prompt=5 max=1
         submit r1 prompt=5 max=1
         offer r2 prompt=5 lease=5
         offer r3 prompt=5 lease=5
         step 1",
        expect![[r#"
            > submit r1 prompt=5 max=1
              run step1: +slot0 | 0..5 @b0 → slot0
            > submit r1 prompt=5 max=1
            > offer r2 prompt=5 lease=5
            > offer r3 prompt=5 lease=5
              failed r3 invalid_request: lease5 of inst1 is already being taken over
              over r3
            > step 1
              token r1 choice0#0=t1 Length (queue 0us prefill 10000us)
              over r1
        "#]],
    );
}

#[test]
fn a_configuration_out_of_range_is_named() {
    let lane = LaneConfig { work: LaneWork::DecodeFirst, step_tokens_max: 4, step_layers_max: 1, steps_in_flight: 2 };
    let good = ReplicaConfig {
        lanes: vec![lane],
        blocks_total: 4,
        block_tokens: 16,
        layers: 1,
        vocab: 50,
        context_max: 64,
        sequences_max: 4,
        queue_legs_max: 1,
        pulls_per_giver_max: 4,
        pull_tokens_max: 1 << 20,
        reading: crate::replica::Reading::WhenComplete,
        prefix_cache: PrefixCache::On,
        filling_share: 0.5,
        scheduling: Scheduling::default(),
        lease: LeaseConfig::default(),
        hash_salt: 0,
        lease_key: crate::handoff::LeaseKey::new([0; 32]),
    };
    let with = |lanes: &[LaneConfig]| ReplicaConfig { lanes: lanes.to_vec(), ..good.clone() };
    let (prefills, decodes) =
        (LaneConfig { work: LaneWork::Prefill, ..lane }, LaneConfig { work: LaneWork::Decode, ..lane });
    for lanes in [&[lane][..], &[LaneConfig { step_tokens_max: 1, ..prefills }, decodes]] {
        assert!(Replica::new(with(lanes)).is_ok());
    }
    let lease = LeaseConfig { span: Span(5), beat: Span(5) };
    let prefill = PrefillOrder::ShortestFirst { ageing_tokens_per_s: -1.0 };
    let ageless = Scheduling { prefill, ..good.scheduling };
    let bad = [
        (ReplicaConfig { blocks_total: 0, ..good.clone() }, "blocks_total"),
        (ReplicaConfig { vocab: 0, ..good.clone() }, "vocab"),
        (ReplicaConfig { block_tokens: 24, ..good.clone() }, "block_tokens"),
        (with(&[LaneConfig { step_tokens_max: 3, ..lane }]), "step_tokens_max"),
        (with(&[LaneConfig { step_layers_max: 0, ..lane }]), "step_layers_max"),
        (with(&[LaneConfig { steps_in_flight: 3, ..lane }]), "steps_in_flight"),
        (with(&[LaneConfig { step_tokens_max: 0, ..prefills }, decodes]), "step_tokens_max"),
        (with(&[]), "lanes"),
        (with(&[prefills]), "lanes"),
        (with(&[lane, prefills]), "lanes"),
        (with(&[decodes, decodes]), "lanes"),
        (ReplicaConfig { filling_share: f32::NAN, ..good.clone() }, "filling_share"),
        (ReplicaConfig { lease, ..good.clone() }, "lease.beat"),
        (ReplicaConfig { scheduling: ageless, ..good.clone() }, "ageing_tokens_per_s"),
    ];
    for (config, name) in bad {
        let Err(SchedError::ReplicaConfig { field, .. }) = Replica::new(config) else { panic!("{name} is accepted") };
        assert_eq!(field, name);
    }
}
