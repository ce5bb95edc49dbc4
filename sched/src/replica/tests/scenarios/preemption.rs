//! When blocks run out.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn the_youngest_loses_its_blocks_and_comes_back_before_newcomers() {
    check(
        "config blocks=4 filling=100
         submit r1 prompt=30 max=4 +
         submit r2 prompt=31 max=3
         step 1 2
         submit r3 prompt=5 max=1
         step 3 4
         step 5 6
         load
         step 7
         step 8",
        expect![[r#"
            > submit r1 prompt=30 max=4 +
            > submit r2 prompt=31 max=3
              run step1: +slot0 +slot1 | 0..30 @b0,b1 → slot0 | 0..31 @b2,b3 → slot1
            > step 1 2
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              token r2 choice0#0=t2 (queue 0us prefill 10000us)
              run step2: 30 @b0,b1 → slot0 | 31 @b2,b3 → slot1
            > submit r3 prompt=5 max=1
            > step 3 4
              token r1 choice0#1=t3
              token r2 choice0#1=t4
              run step3: 31 @b0,b1 → slot0
            > step 5 6
              token r1 choice0#2=t5
              run step4: 32 @b0,b1,b3 → slot0
            > load
              running 1 waiting 2 (38 tokens) held 0; blocks free 0 cached 1 in use 3 quarantined 0; ever 0 tokens found, 1 preempted
            > step 7
              token r1 choice0#3=t7 Length
              over r1
              run step5: +slot0 +slot1 | 16..33 @b2,b3,b1 → slot0 | 0..5 @b0 → slot1
            > step 8
              token r2 choice0#2=t8 Length
              over r2
              token r3 choice0#0=t0 Length (queue 30000us prefill 10000us)
              over r3
        "#]],
    );
}

#[test]
fn a_leg_that_fits_an_idle_pool_finishes_beside_a_held_prompt_only_when_that_is_gone() {
    check(
        "config blocks=3 filling=100 rows=32
         submit r1 prompt=30 give
         step 1
         submit r2 prompt=15 max=8
         step 1
         step 2
         load
         reader-releases L1
         step 3",
        expect![[r#"
            > submit r1 prompt=30 give
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..30 @b0,b1 → slot0
            > step 1
              committed r1 choice0=t1 (queue 0us prefill 10000us)
            > submit r2 prompt=15 max=8
              run step2: +slot0 | 0..15 @b2 → slot0
            > step 1
              token r2 choice0#0=t1 (queue 0us prefill 10000us)
              run step3: 15 @b2 → slot0
            > step 2
              token r2 choice0#1=t2
            > load
              running 0 waiting 1 (17 tokens) held 1; blocks free 0 cached 1 in use 2 quarantined 0; ever 0 tokens found, 1 preempted
            > reader-releases L1
              answer L1 Ok
              handed over r1
              revoke L1
              over r1
              run step4: +slot0 | 16 @b2,b1 → slot0
            > step 3
              token r2 choice0#2=t3
              run step5: 17 @b2,b1 → slot0
        "#]],
    );
}

#[test]
fn a_seat_that_preemption_frees_is_given_to_who_waits_with_its_blocks() {
    check(
        "config role=decode seats=1 blocks=5 filling=100
         offer r1 prompt=40 lease=5 max=3
         submit r2 prompt=14 max=9
         commit r1 7
         pull r1 complete
         answer r1 ok
         load
         step 1
         step 2
         step 3
         load
         step 4
         step 5",
        expect![[r#"
            > offer r1 prompt=40 lease=5 max=3
            > submit r2 prompt=14 max=9
              run step1: +slot0 | 0..14 @b4 → slot0
            > commit r1 7
              pull r1 lease5 0..40 from inst1 b100,b101,b102 to b0,b1,b2 in 600000000us
            > pull r1 complete
              release r1 lease5
            > answer r1 ok
            > load
              running 1 waiting 1 (14 tokens) held 0; blocks free 0 cached 0 in use 5 quarantined 0
            > step 1
              token r2 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 14 @b4 → slot0
            > step 2
              token r2 choice0#1=t2
              run step3: 15 @b4 → slot0
            > step 3
              token r2 choice0#2=t3
              run step4: +slot0 | 40 @b0,b1,b2 → slot0
            > load
              running 1 waiting 1 (17 tokens) held 0; blocks free 0 cached 1 in use 4 quarantined 0; ever 0 tokens found, 1 preempted
            > step 4
              token r1 choice0#1=t4 (wait 0us transfer 0us queue 30000us step 10000us)
              run step5: 41 @b0,b1,b2 → slot0
            > step 5
              token r1 choice0#2=t5 Length
              over r1
              run step6: +slot0 | 16 @b4,b3 → slot0
        "#]],
    );
}
