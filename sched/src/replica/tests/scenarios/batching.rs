//! Chunked prefill and continuous batching under one row budget.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_whole_leg_is_prefilled_in_chunks_and_decoded_to_its_end() {
    check(
        "config rows=16 seats=4
         submit r1 prompt=20 max=3
         step
         step 7
         step 8
         step 9
         load",
        expect![[r#"
            > submit r1 prompt=20 max=3
              run step1: 0..16 @b0
            > step
              run step2: +slot0 | 16..20 @b0,b1 → slot0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 20000us)
              run step3: 20 @b0,b1 → slot0
            > step 8
              token r1 choice0#1=t8
              run step4: 21 @b0,b1 → slot0
            > step 9
              token r1 choice0#2=t9 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn decodes_come_first_and_chunks_fill_the_budget() {
    check(
        "config rows=8 seats=4
         submit r1 prompt=4 max=9
         step 1
         submit r2 prompt=10 max=9 +
         submit r3 prompt=3 max=9
         step 1
         step 1 2
         step 1 2 3",
        expect![[r#"
            > submit r1 prompt=4 max=9
              run step1: +slot0 | 0..4 @b0 → slot0
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 4 @b0 → slot0
            > submit r2 prompt=10 max=9 +
            > submit r3 prompt=3 max=9
            > step 1
              token r1 choice0#1=t1
              run step3: 5 @b0 → slot0 | 0..7 @b1
            > step 1 2
              token r1 choice0#2=t1
              run step4: +slot1 +slot2 | 6 @b0 → slot0 | 7..10 @b1 → slot1 | 0..3 @b2 → slot2
            > step 1 2 3
              token r1 choice0#3=t1
              token r2 choice0#0=t2 (queue 10000us prefill 20000us)
              token r3 choice0#0=t3 (queue 20000us prefill 10000us)
              run step5: 7 @b0 → slot0 | 10 @b1 → slot1 | 3 @b2 → slot2
        "#]],
    );
}

#[test]
fn a_prefill_lane_prefers_chunks_and_gives_decodes_turns() {
    check(
        "config role=prefill rows=16 seats=4
         submit r1 prompt=2 max=9 +
         submit r2 prompt=2 max=9 +
         submit r3 prompt=2 max=9
         step
         submit r4 prompt=40 max=1
         step
         step
         step
         step",
        expect![[r#"
            > submit r1 prompt=2 max=9 +
            > submit r2 prompt=2 max=9 +
            > submit r3 prompt=2 max=9
              run step1: +slot0 +slot1 +slot2 | 0..2 @b0 → slot0 | 0..2 @b1 → slot1 | 0..2 @b2 → slot2
            > step
              token r1 choice0#0=t45 (queue 0us prefill 10000us)
              token r2 choice0#0=t2 (queue 0us prefill 10000us)
              token r3 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 2 @b0 → slot0 | 2 @b1 → slot1 | 2 @b2 → slot2
            > submit r4 prompt=40 max=1
            > step
              token r1 choice0#1=t8
              token r2 choice0#1=t9
              token r3 choice0#1=t19
              run step3: 0..14 @b3 | 3 @b0 → slot0 | 3 @b1 → slot1
            > step
              token r1 choice0#2=t32
              token r2 choice0#2=t17
              run step4: 14..28 @b3,b4 | 4 @b0 → slot0 | 3 @b2 → slot2
            > step
              token r1 choice0#3=t46
              token r3 choice0#2=t25
              run step5: +slot3 | 28..40 @b3,b4,b5 → slot3 | 4 @b1 → slot1 | 4 @b2 → slot2
            > step
              token r4 choice0#0=t11 Length (queue 10000us prefill 30000us)
              over r4
              token r2 choice0#3=t8
              token r3 choice0#3=t42
              run step6: 5 @b0 → slot0 | 5 @b1 → slot1 | 5 @b2 → slot2
        "#]],
    );
}

#[test]
fn what_arrives_together_runs_together() {
    check(
        "submit r1 prompt=3 max=1 +
         submit r2 prompt=3 max=1
         step",
        expect![[r#"
            > submit r1 prompt=3 max=1 +
            > submit r2 prompt=3 max=1
              run step1: +slot0 +slot1 | 0..3 @b0 → slot0 | 0..3 @b1 → slot1
            > step
              token r1 choice0#0=t13 Length (queue 0us prefill 10000us)
              over r1
              token r2 choice0#0=t28 Length (queue 0us prefill 10000us)
              over r2
        "#]],
    );
}
