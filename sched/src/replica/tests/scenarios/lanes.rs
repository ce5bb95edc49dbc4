//! Two lanes over one pool of blocks and slots: one computes prompts, sequences run on in the other.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_prompt_runs_on_in_the_other_lane_while_the_next_is_computed() {
    check(
        "config two-lanes rows=32
         submit r1 prompt=20 max=3
         submit r2 prompt=40 max=1
         step
         step lane=1
         step lane=1
         step
         step",
        expect![[r#"
            > submit r1 prompt=20 max=3
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > submit r2 prompt=40 max=1
            > step
              token r1 choice0#0=t49 (queue 0us prefill 10000us)
              run step2: 0..32 @b3,b4
              run step3 in lane1: 20 @b0,b1 → slot0
            > step lane=1
              token r1 choice0#1=t36
              run step4 in lane1: 21 @b0,b1 → slot0
            > step lane=1
              token r1 choice0#2=t36 Length
              over r1
            > step
              run step5: +slot1 | 32..40 @b3,b4,b5 → slot1
            > step
              token r2 choice0#0=t12 Length (queue 10000us prefill 40000us)
              over r2
        "#]],
    );
}

#[test]
fn choices_go_on_in_the_other_lane_with_a_block_each() {
    check(
        "config two-lanes blocks=6
         submit r1 prompt=20 n=2 max=3
         load
         step
         step lane=1
         step lane=1
         load",
        expect![[r#"
            > submit r1 prompt=20 n=2 max=3
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > load
              running 1 waiting 0 (20 tokens) held 0; blocks free 2 cached 0 in use 4 quarantined 0
            > step
              token r1 choice0#0=t49 (queue 0us prefill 10000us)
              token r1 choice1#0=t28
              run step2 in lane1: copy b1>b2 | 20 @b0,b2 → slot0 | 20 @b0,b1 → slot1
            > step lane=1
              token r1 choice0#1=t36
              token r1 choice1#1=t22
              run step3 in lane1: 21 @b0,b2 → slot0 | 21 @b0,b1 → slot1
            > step lane=1
              token r1 choice0#2=t36 Length
              token r1 choice1#2=t41 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 5 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_slot_that_a_step_still_names_is_not_used_by_the_other_lane() {
    check(
        "config two-lanes seats=1 ahead=2
         submit r1 prompt=5 max=9
         step
         submit r2 prompt=5 max=1
         cancel r1
         step lane=1
         step lane=1
         step",
        expect![[r#"
            > submit r1 prompt=5 max=9
              run step1: +slot0 | 0..5 @b0 → slot0
            > step
              token r1 choice0#0=t28 (queue 0us prefill 10000us)
              run step2 in lane1: 5 @b0 → slot0
              run step3 in lane1: 6 ← slot0 @b0 → slot0
            > submit r2 prompt=5 max=1
            > cancel r1
              cancel step2
              cancel step3
              over r1
            > step lane=1
            > step lane=1
              run step4: +slot0 | 0..5 @b0 → slot0
            > step
              token r2 choice0#0=t31 Length (queue 20000us prefill 10000us)
              over r2
        "#]],
    );
}

#[test]
fn a_running_sequence_takes_the_blocks_of_a_younger_prompt_when_no_step_computes_it() {
    check(
        "config two-lanes blocks=9 rows=16 filling=100 ahead=2 uncached
         submit r1 prompt=31 n=2 max=4
         submit r2 prompt=64 max=1
         step
         step
         step lane=1
         step
         step
         step lane=1
         load
         step lane=1
         step lane=1
         step",
        expect![[r#"
            > submit r1 prompt=31 n=2 max=4
              run step1: 0..16 @b0
              run step2: +slot0 +slot1 | 16..31 @b0,b1 → slot0,slot1
            > submit r2 prompt=64 max=1
            > step
              run step3: 0..16 @b4
            > step
              token r1 choice0#0=t18 (queue 0us prefill 20000us)
              token r1 choice1#0=t36
              run step4: 16..32 @b4,b5
              run step5 in lane1: copy b1>b2 | 31 @b0,b2 → slot0 | 31 @b0,b1 → slot1
            > step lane=1
              token r1 choice0#1=t16
              token r1 choice1#1=t32
              run step6 in lane1: 32 @b0,b1,b3 → slot1
            > step
            > step
            > step lane=1
              token r1 choice1#2=t0
              run step7 in lane1: 32 @b0,b2,b8 → slot0 | 33 @b0,b1,b3 → slot1
              run step8 in lane1: 33 ← slot0 @b0,b2,b8 → slot0
            > load
              running 2 waiting 1 (64 tokens) held 0; blocks free 4 cached 0 in use 5 quarantined 0; ever 0 tokens found, 1 preempted
            > step lane=1
              token r1 choice0#2=t37
              token r1 choice1#3=t41 Length
              run step9: 0..16 @b1
              run step10: 16..32 @b1,b3
            > step lane=1
              token r1 choice0#3=t30 Length
              over r1
            > step
              run step11: 32..48 @b1,b3,b4
        "#]],
    );
}
