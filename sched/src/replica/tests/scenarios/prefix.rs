//! Reuse of blocks by content.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_second_prompt_reuses_full_blocks_of_an_ended_one() {
    check(
        "submit r1 prompt=40 family=1 max=1
         step
         load
         submit r2 prompt=50 family=1 max=1
         step
         load",
        expect![[r#"
            > submit r1 prompt=40 family=1 max=1
              run step1: +slot0 | 0..40 @b0,b1,b2 → slot0
            > step
              token r1 choice0#0=t25 Length (queue 0us prefill 10000us)
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 2 in use 0 quarantined 0
            > submit r2 prompt=50 family=1 max=1
              run step2: +slot0 | 32..50 @b0,b1,b2,b3 → slot0
            > step
              token r2 choice0#0=t34 Length (queue 0us prefill 10000us cached 32)
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 13 cached 3 in use 0 quarantined 0; ever 32 tokens found, 0 preempted
        "#]],
    );
}

#[test]
fn a_prompt_that_is_here_in_full_still_computes_its_last_block() {
    check(
        "submit r1 prompt=32 family=1 max=1
         step
         submit r2 prompt=32 family=1 max=1
         step",
        expect![[r#"
            > submit r1 prompt=32 family=1 max=1
              run step1: +slot0 | 0..32 @b0,b1 → slot0
            > step
              token r1 choice0#0=t26 Length (queue 0us prefill 10000us)
              over r1
            > submit r2 prompt=32 family=1 max=1
              run step2: +slot0 | 16..32 @b0,b2 → slot0
            > step
              token r2 choice0#0=t26 Length (queue 0us prefill 10000us cached 16)
              over r2
        "#]],
    );
}

#[test]
fn blocks_are_found_only_after_the_step_that_fills_them() {
    check(
        "config rows=16 seats=4
         submit r1 prompt=33 family=1 max=1
         submit r2 prompt=33 family=1 max=1
         step
         step
         submit r3 prompt=33 family=1 max=1
         load",
        expect![[r#"
            > submit r1 prompt=33 family=1 max=1
              run step1: 0..16 @b0
            > submit r2 prompt=33 family=1 max=1
            > step
              run step2: 16..32 @b0,b1
            > step
              run step3: +slot0 | 32 @b0,b1,b2 → slot0 | 0..15 @b3
            > submit r3 prompt=33 family=1 max=1
            > load
              running 2 waiting 1 (35 tokens) held 0; blocks free 9 cached 0 in use 7 quarantined 0; ever 32 tokens found, 0 preempted
        "#]],
    );
}

#[test]
fn generated_tokens_become_findable_too() {
    check(
        "submit r1 prompt=15 family=1 max=3
         step 1015
         step 1016
         step 1017
         submit r2 prompt=18 family=1 max=1",
        expect![[r#"
            > submit r1 prompt=15 family=1 max=3
              run step1: +slot0 | 0..15 @b0 → slot0
            > step 1015
              token r1 choice0#0=t1015 (queue 0us prefill 10000us)
              run step2: 15 @b0 → slot0
            > step 1016
              token r1 choice0#1=t1016
              run step3: 16 @b0,b1 → slot0
            > step 1017
              token r1 choice0#2=t1017 Length
              over r1
            > submit r2 prompt=18 family=1 max=1
              run step4: +slot0 | 16..18 @b0,b1 → slot0
        "#]],
    );
}

#[test]
fn without_the_cache_everything_is_computed() {
    check(
        "config uncached
         submit r1 prompt=32 family=1 max=1
         step
         load
         submit r2 prompt=40 family=1 max=1",
        expect![[r#"
            > submit r1 prompt=32 family=1 max=1
              run step1: +slot0 | 0..32 @b0,b1 → slot0
            > step
              token r1 choice0#0=t26 Length (queue 0us prefill 10000us)
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
            > submit r2 prompt=40 family=1 max=1
              run step2: +slot0 | 0..40 @b0,b1,b2 → slot0
        "#]],
    );
}
