//! A prompt that is read while it is computed: what givers tell of it, and what readers do then.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_giver_tells_its_follower_of_every_chunk_and_of_the_layers_of_the_last() {
    check(
        "config role=prefill rows=32 step-layers=2
         submit r1 prompt=40 give max=5
         reader-follows L1
         step
         step
         step
         step 7
         reader-releases L1",
        expect![[r#"
            > submit r1 prompt=40 give max=5
              grant L1 b0,b1,b2
              offered r1 L1 b0,b1,b2
              run step1: layers 0..2 | 0..32 @b0,b1
            > reader-follows L1
              answer L1 filled 0
            > step
              answer L1 filled 0 and 2 layers up to 32
              run step2: layers 2..4 | 0..32 @b0,b1
            > step
              answer L1 filled 32
              run step3 (telling): +slot0 | layers 0..2 | 32..40 @b0,b1,b2
            > step
              answer L1 filled 32 and 2 layers up to 40
              run step4 (telling): layers 2..4 | 32..40 @b0,b1,b2 → slot0
            > step 7
              answer L1 filled 40
              committed r1 choice0=t7 (queue 0us prefill 40000us)
            > reader-releases L1
              answer L1 Ok
              handed over r1
              revoke L1
              over r1
        "#]],
    );
}

#[test]
fn the_last_chunk_of_a_followed_prompt_says_how_far_it_is() {
    check(
        "config role=prefill
         submit r1 prompt=20 give max=5
         reader-follows L1
         progress step=1
         step
         submit r2 prompt=20 give max=5 +
         reader-follows L1 by=2
         step 7
         reader-follows L1
         reader-follows L9",
        expect![[r#"
            > submit r1 prompt=20 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > reader-follows L1
              answer L1 filled 0
            > progress step=1
              answer L1 filled 0 and 1 layers up to 20
            > step
              answer L1 filled 20
              committed r1 choice0=t49 (queue 0us prefill 10000us)
            > submit r2 prompt=20 give max=5 +
            > reader-follows L1 by=2
              answer inst2 gone L1
              grant L2 b2,b3
              offered r2 L2 b2,b3
              run step2: +slot0 | 0..20 @b2,b3 → slot0
            > step 7
              committed r2 choice0=t7 (queue 0us prefill 10000us)
            > reader-follows L1
              answer L1 filled 20
            > reader-follows L9
              answer gone lease0
        "#]],
    );
}

#[test]
fn a_reader_pulls_what_is_stored_and_releases_after_commit_and_last_pull() {
    check(
        "config role=decode streamed
         offer r1 prompt=50 max=3
         filled r1 tokens=20
         filled r1 tokens=20 chunk=50 layers=1
         pull r1 complete id=1
         filled r1 tokens=20 chunk=50 layers=3
         commit r1 7
         pull r1 complete id=2
         pull r1 complete id=3
         pull r1 complete id=4
         answer r1 ok
         step 8
         step 9",
        expect![[r#"
            > offer r1 prompt=50 max=3
              follow lease1 at inst1
            > filled r1 tokens=20
              pull r1 lease1 0..16 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > filled r1 tokens=20 chunk=50 layers=1
              pull r1 lease1 16..50 layers 0..1 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > pull r1 complete id=1
            > filled r1 tokens=20 chunk=50 layers=3
              pull r1 lease1 16..50 layers 1..3 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > commit r1 7
              pull r1 lease1 16..50 layers 3..4 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > pull r1 complete id=2
            > pull r1 complete id=3
            > pull r1 complete id=4
              release r1 lease1
            > answer r1 ok
              run step1: +slot0 | 50 @b0,b1,b2,b3 → slot0
            > step 8
              token r1 choice0#1=t8 (wait 0us transfer 0us queue 0us step 10000us)
              run step2: 51 @b0,b1,b2,b3 → slot0
            > step 9
              token r1 choice0#2=t9 Length
              over r1
        "#]],
    );
}

#[test]
fn a_commit_before_any_mark_pulls_all_at_once() {
    check(
        "config role=decode streamed
         offer r1 prompt=50 max=3
         commit r1 7
         filled r1 tokens=20
         pull r1 complete
         answer r1 ok",
        expect![[r#"
            > offer r1 prompt=50 max=3
              follow lease1 at inst1
            > commit r1 7
              pull r1 lease1 0..50 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > filled r1 tokens=20
            > pull r1 complete
              release r1 lease1
            > answer r1 ok
              run step1: +slot0 | 50 @b0,b1,b2,b3 → slot0
        "#]],
    );
}

#[test]
fn early_pulls_take_turns_and_end_with_their_leg() {
    check(
        "config role=decode streamed pulls=1
         offer r1 prompt=50
         offer r2 prompt=50 lease=2
         filled r1 tokens=32
         filled r2 tokens=32
         filled r1 tokens=48
         pull r1 complete id=1
         pull r1 reset id=2
         cancel r2
         pull r2 aborted id=3
         load",
        expect![[r#"
            > offer r1 prompt=50
              follow lease1 at inst1
            > offer r2 prompt=50 lease=2
              follow lease2 at inst1
            > filled r1 tokens=32
              pull r1 lease1 0..32 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > filled r2 tokens=32
            > filled r1 tokens=48
            > pull r1 complete id=1
              pull r1 lease1 32..48 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > pull r1 reset id=2
              abort lease1
              failed r1 kv_lost: the pull of req1/try0 failed: reset
              over r1
              pull r2 lease2 0..32 from inst1 b100,b101,b102,b103 to b5,b6,b7,b8 in 600000000us
            > cancel r2
              abort pull r2
              abort lease2
              over r2
            > pull r2 aborted id=3
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_giver_that_is_met_again_is_followed_again_and_turns_go_to_who_waits_longer() {
    check(
        "config role=decode streamed pulls=1
         offer r1 prompt=50
         offer r2 prompt=50 lease=2
         filled r2 tokens=16
         filled r1 tokens=16
         filled r2 tokens=32
         giver-met giver=1
         pull r2 complete id=1
         pull r1 complete id=2
         pull r2 complete id=3
         load",
        expect![[r#"
            > offer r1 prompt=50
              follow lease1 at inst1
            > offer r2 prompt=50 lease=2
              follow lease2 at inst1
            > filled r2 tokens=16
              pull r2 lease2 0..16 from inst1 b100,b101,b102,b103 to b5,b6,b7,b8 in 600000000us
            > filled r1 tokens=16
            > filled r2 tokens=32
            > giver-met giver=1
              follow lease1 at inst1
              follow lease2 at inst1
            > pull r2 complete id=1
              pull r1 lease1 0..16 from inst1 b100,b101,b102,b103 to b0,b1,b2,b3 in 600000000us
            > pull r1 complete id=2
              pull r2 lease2 16..32 from inst1 b100,b101,b102,b103 to b5,b6,b7,b8 in 600000000us
            > pull r2 complete id=3
            > load
              running 0 waiting 2 (0 tokens) held 0; blocks free 6 cached 0 in use 10 quarantined 0
        "#]],
    );
}
