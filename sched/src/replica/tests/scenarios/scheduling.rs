//! Orders, admission and budgets other than the default ones.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn the_shortest_prompt_is_admitted_and_computed_first() {
    check(
        "config rows=32 prefill=shortest
         submit r1 prompt=60 max=1 +
         submit r2 prompt=40 max=1 +
         submit r3 prompt=10 max=1
         submit r4 prompt=20 max=1
         step
         step",
        expect![[r#"
            > submit r1 prompt=60 max=1 +
            > submit r2 prompt=40 max=1 +
            > submit r3 prompt=10 max=1
              run step1: +slot0 | 0..10 @b0 → slot0 | 0..22 @b1,b2
            > submit r4 prompt=20 max=1
            > step
              token r3 choice0#0=t24 Length (queue 0us prefill 10000us)
              over r3
              run step2: +slot1 | 22..40 @b1,b2,b3 → slot1 | 0..14 @b8
            > step
              token r2 choice0#0=t12 Length (queue 0us prefill 20000us)
              over r2
              run step3: +slot3 | 14..20 @b8,b9 → slot3 | 0..26 @b4,b5
        "#]],
    );
}

#[test]
fn a_prompt_that_has_waited_goes_before_shorter_ones() {
    check(
        "config rows=8 prefill=shortest
         submit r1 prompt=40 max=1
         wait 3s
         submit r2 prompt=20 max=1
         step",
        expect![[r#"
            > submit r1 prompt=40 max=1
              run step1: 0..8 @b0
            > wait 3s
            > submit r2 prompt=20 max=1
            > step
              run step2: 8..16 @b0
        "#]],
    );
}

#[test]
fn the_prompt_with_the_least_slack_is_computed_first() {
    check(
        "config rows=16 prefill=slack
         submit r1 prompt=16 max=1 +
         submit r2 prompt=16 max=1 ttft=900ms +
         submit r3 prompt=16 max=1 ttft=300ms
         step
         step
         step",
        expect![[r#"
            > submit r1 prompt=16 max=1 +
            > submit r2 prompt=16 max=1 ttft=900ms +
            > submit r3 prompt=16 max=1 ttft=300ms
              run step1: +slot0 | 0..16 @b0 → slot0
            > step
              token r3 choice0#0=t13 Length (queue 0us prefill 10000us)
              over r3
              run step2: +slot1 | 0..16 @b1 → slot1
            > step
              token r2 choice0#0=t6 Length (queue 10000us prefill 10000us)
              over r2
              run step3: +slot2 | 0..16 @b2 → slot2
            > step
              token r1 choice0#0=t11 Length (queue 20000us prefill 10000us)
              over r1
        "#]],
    );
}

#[test]
fn a_newcomer_decodes_before_those_that_have_used_up_their_quantum() {
    check(
        "config decode=mlfq batch=1
         submit r1 prompt=4 max=9
         step
         step
         step
         step
         submit r2 prompt=4 max=4
         step
         step
         step
         step",
        expect![[r#"
            > submit r1 prompt=4 max=9
              run step1: +slot0 | 0..4 @b0 → slot0
            > step
              token r1 choice0#0=t27 (queue 0us prefill 10000us)
              run step2: 4 @b0 → slot0
            > step
              token r1 choice0#1=t3
              run step3: 5 @b0 → slot0
            > step
              token r1 choice0#2=t25
              run step4: 6 @b0 → slot0
            > step
              token r1 choice0#3=t4
              run step5: 7 @b0 → slot0
            > submit r2 prompt=4 max=4
            > step
              token r1 choice0#4=t30
              run step6: +slot1 | 8 @b0 → slot0 | 0..4 @b1 → slot1
            > step
              token r1 choice0#5=t39
              token r2 choice0#0=t23 (queue 10000us prefill 10000us)
              run step7: 4 @b1 → slot1
            > step
              token r2 choice0#1=t42
              run step8: 5 @b1 → slot1
            > step
              token r2 choice0#2=t5
              run step9: 6 @b1 → slot1
        "#]],
    );
}

#[test]
fn conservative_admission_waits_for_the_longest_answers() {
    check(
        "config blocks=4 filling=100 admission=conservative
         submit r1 prompt=30 max=4 +
         submit r2 prompt=31 max=3
         step 1
         step 2
         step 3
         step 4
         load",
        expect![[r#"
            > submit r1 prompt=30 max=4 +
            > submit r2 prompt=31 max=3
              run step1: +slot0 | 0..30 @b0,b1 → slot0
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 30 @b0,b1 → slot0
            > step 2
              token r1 choice0#1=t2
              run step3: 31 @b0,b1 → slot0
            > step 3
              token r1 choice0#2=t3
              run step4: 32 @b0,b1,b2 → slot0
            > step 4
              token r1 choice0#3=t4 Length
              over r1
              run step5: +slot0 | 0..31 @b2,b3 → slot0
            > load
              running 1 waiting 0 (31 tokens) held 0; blocks free 0 cached 2 in use 2 quarantined 0
        "#]],
    );
}

/// Nothing is known of answers yet, so they may get as long as they may.
#[test]
fn without_a_past_long_answers_are_expected() {
    check(
        "config blocks=8 filling=100 admission=past-future window=2
         submit r1 prompt=30 max=90 +
         submit r2 prompt=30 max=90
         load",
        expect![[r#"
            > submit r1 prompt=30 max=90 +
            > submit r2 prompt=30 max=90
              run step1: +slot0 | 0..30 @b0,b1 → slot0
            > load
              running 1 waiting 1 (60 tokens) held 0; blocks free 6 cached 0 in use 2 quarantined 0
        "#]],
    );
}

/// Two short answers have ended, so the next ones will be short as well; until the first of them turns out longer.
#[test]
fn after_short_answers_more_are_admitted() {
    check(
        "config blocks=12 filling=100 admission=past-future window=2
         submit r1 prompt=3 max=2 +
         submit r2 prompt=3 max=2
         step
         step
         submit r3 prompt=30 max=90 +
         submit r4 prompt=30 max=90
         load
         step
         step
         step
         submit r5 prompt=30 max=90
         load",
        expect![[r#"
            > submit r1 prompt=3 max=2 +
            > submit r2 prompt=3 max=2
              run step1: +slot0 +slot1 | 0..3 @b0 → slot0 | 0..3 @b1 → slot1
            > step
              token r1 choice0#0=t13 (queue 0us prefill 10000us)
              token r2 choice0#0=t28 (queue 0us prefill 10000us)
              run step2: 3 @b0 → slot0 | 3 @b1 → slot1
            > step
              token r1 choice0#1=t8 Length
              over r1
              token r2 choice0#1=t1 Length
              over r2
            > submit r3 prompt=30 max=90 +
            > submit r4 prompt=30 max=90
              run step3: +slot0 +slot1 | 0..30 @b1,b0 → slot0 | 0..30 @b2,b3 → slot1
            > load
              running 2 waiting 0 (60 tokens) held 0; blocks free 8 cached 0 in use 4 quarantined 0
            > step
              token r3 choice0#0=t34 (queue 0us prefill 10000us)
              token r4 choice0#0=t1 (queue 0us prefill 10000us)
              run step4: 30 @b1,b0 → slot0 | 30 @b2,b3 → slot1
            > step
              token r3 choice0#1=t3
              token r4 choice0#1=t12
              run step5: 31 @b1,b0 → slot0 | 31 @b2,b3 → slot1
            > step
              token r3 choice0#2=t42
              token r4 choice0#2=t26
              run step6: 32 @b1,b0,b4 → slot0 | 32 @b2,b3,b5 → slot1
            > submit r5 prompt=30 max=90
            > load
              running 2 waiting 1 (30 tokens) held 0; blocks free 6 cached 0 in use 6 quarantined 0
        "#]],
    );
}

/// Beside a decode the example takes 4,000 + 100 us and 40 us per prompt token.
#[test]
fn the_budget_of_a_step_keeps_the_target_of_those_that_run() {
    check(
        "config rows=256 budget=auto context=4096 blocks=99
         submit r1 prompt=20 max=9 tpot=10ms
         step
         submit r2 prompt=600 max=1
         step
         step
         cancel r1
         step",
        expect![[r#"
            > submit r1 prompt=20 max=9 tpot=10ms
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > step
              token r1 choice0#0=t49 (queue 0us prefill 10000us)
              run step2: 20 @b0,b1 → slot0
            > submit r2 prompt=600 max=1
            > step
              token r1 choice0#1=t36
              run step3: 21 @b0,b1 → slot0 | 0..144 @b2,b3,b4,b5,b6,b7,b8,b9,b10
            > step
              token r1 choice0#2=t36
              run step4: 22 @b0,b1 → slot0 | 144..283 @b2,b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15,b16,b17,b18,b19
            > cancel r1
              over r1
            > step
              run step5: 283..539 @b2,b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15,b16,b17,b18,b19,b20,b21,b22,b23,b24,b25,b26,b27,b28,b29,b30,b31,b32,b33,b34,b35
        "#]],
    );
}
