//! The giver's side of a hand-off.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_prompt_is_offered_before_its_first_chunk_committed_and_handed_over() {
    check(
        "config role=prefill rows=16
         submit r1 prompt=20 give max=5
         step
         step 7
         load
         reader-renews L1
         reader-releases L1
         reader-releases L1
         load
         wait 31s
         reader-releases L1",
        expect![[r#"
            > submit r1 prompt=20 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: 0..16 @b0
            > step
              run step2: +slot0 | 16..20 @b0,b1 → slot0
            > step 7
              committed r1 choice0=t7 (queue 0us prefill 20000us)
            > load
              running 0 waiting 0 (0 tokens) held 1; blocks free 14 cached 0 in use 2 quarantined 0
            > reader-renews L1
            > reader-releases L1
              answer L1 Ok
              handed over r1
              revoke L1
              over r1
            > reader-releases L1
              answer L1 Ok
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
            > wait 31s
            > reader-releases L1
              answer L1 Expired
        "#]],
    );
}

/// Found by trying: an answer ended after one token if its prompt filled the giver's context, although the decode worker
/// had a longer one.
#[test]
fn the_givers_context_bounds_the_prompt_and_not_the_answer() {
    check(
        "config role=prefill context=20
         submit r1 prompt=19 give max=5
         step 7
         submit r2 prompt=20 give max=5
         step 8
         submit r3 prompt=21 give max=5
         submit r4 prompt=20 give max=1
         step 9",
        expect![[r#"
            > submit r1 prompt=19 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..19 @b0,b1 → slot0
            > step 7
              committed r1 choice0=t7 (queue 0us prefill 10000us)
            > submit r2 prompt=20 give max=5
              grant L2 b2,b3
              offered r2 L2 b2,b3
              run step2: +slot0 | 0..20 @b2,b3 → slot0
            > step 8
              committed r2 choice0=t8 (queue 0us prefill 10000us)
            > submit r3 prompt=21 give max=5
              failed r3 too_long: 21 tokens leave nothing to generate in a context of 20
              over r3
            > submit r4 prompt=20 give max=1
              grant L3 b4,b5
              offered r4 L3 b4,b5
              run step3: +slot0 | 0..20 @b4,b5 → slot0
            > step 9
              committed r4 choice0=t9 Length (queue 0us prefill 10000us)
              revoke L3
              over r4
        "#]],
    );
}

#[test]
fn a_lease_is_the_readers_that_was_heard_of_first() {
    check(
        "config role=prefill
         submit r1 prompt=20 give max=5
         step 7
         reader-renews L1
         wait 20s
         renew r1
         reader-renews L1 by=2
         reader-aborts L1 by=2
         reader-releases L1 by=2
         load
         reader-releases L1
         reader-releases L1 by=2
         reader-releases L1",
        expect![[r#"
            > submit r1 prompt=20 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > step 7
              committed r1 choice0=t7 (queue 0us prefill 10000us)
            > reader-renews L1
            > wait 20s
            > renew r1
            > reader-renews L1 by=2
              answer inst2 gone L1
            > reader-aborts L1 by=2
            > reader-releases L1 by=2
              answer inst2 L1 Expired
            > load
              running 0 waiting 0 (0 tokens) held 1; blocks free 14 cached 0 in use 2 quarantined 0
            > reader-releases L1
              answer L1 Ok
              handed over r1
              revoke L1
              over r1
            > reader-releases L1 by=2
              answer inst2 L1 Expired
            > reader-releases L1
              answer L1 Ok
        "#]],
    );
}

#[test]
fn a_stranger_does_not_keep_a_lease_alive() {
    check(
        "config role=prefill
         submit r1 prompt=20 give max=5
         step 7
         reader-renews L1
         wait 20s
         renew r1
         reader-renews L1 by=2
         wait 10s",
        expect![[r#"
            > submit r1 prompt=20 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > step 7
              committed r1 choice0=t7 (queue 0us prefill 10000us)
            > reader-renews L1
            > wait 20s
            > renew r1
            > reader-renews L1 by=2
              answer inst2 gone L1
            > wait 10s
              reader lost r1
              revoke L1
              over r1
        "#]],
    );
}

#[test]
fn a_reader_that_falls_silent_ends_only_the_attempt() {
    check(
        "config role=prefill
         submit r1 prompt=20 give max=5
         step 7
         wait 29s
         renew r1
         reader-renews L1
         wait 29s
         renew r1
         wait 1s
         reader-releases L1
         load",
        expect![[r#"
            > submit r1 prompt=20 give max=5
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > step 7
              committed r1 choice0=t7 (queue 0us prefill 10000us)
            > wait 29s
            > renew r1
            > reader-renews L1
            > wait 29s
            > renew r1
            > wait 1s
              reader lost r1
              revoke L1
              over r1
            > reader-releases L1
              answer L1 Expired
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn nothing_is_held_when_every_choice_ends_with_its_first_token() {
    check(
        "config role=prefill
         submit r1 prompt=20 n=2 give max=9 stop=7
         step 7 7
         load
         reader-releases L1",
        expect![[r#"
            > submit r1 prompt=20 n=2 give max=9 stop=7
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > step 7 7
              committed r1 choice0=t7 Stop choice1=t7 Stop (queue 0us prefill 10000us)
              revoke L1
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
            > reader-releases L1
              answer L1 Expired
        "#]],
    );
}

#[test]
fn some_choices_end_with_their_first_token() {
    check(
        "config role=prefill
         submit r1 prompt=20 n=2 give max=9 stop=7
         step 7 8
         load",
        expect![[r#"
            > submit r1 prompt=20 n=2 give max=9 stop=7
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > step 7 8
              committed r1 choice0=t7 Stop choice1=t8 (queue 0us prefill 10000us)
            > load
              running 0 waiting 0 (0 tokens) held 1; blocks free 14 cached 0 in use 2 quarantined 0
        "#]],
    );
}

#[test]
fn a_resumed_choice_counts_what_it_has_generated() {
    check(
        "config role=prefill
         submit r1.1 prompt=10 resume=10 give max=11
         step 7",
        expect![[r#"
            > submit r1.1 prompt=10 resume=10 give max=11
              grant L1 b0,b1
              offered r1.1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > step 7
              committed r1.1 choice0=t7 Length (queue 0us prefill 10000us)
              revoke L1
              over r1.1
        "#]],
    );
}

#[test]
fn a_reader_that_releases_too_early_is_not_believed() {
    check(
        "config role=prefill rows=16
         submit r1 prompt=20 give
         step
         reader-releases L1
         step
         load",
        expect![[r#"
            > submit r1 prompt=20 give
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: 0..16 @b0
            > step
              run step2: +slot0 | 16..20 @b0,b1 → slot0
            > reader-releases L1
              answer L1 Expired
              reader lost r1
              revoke L1
              cancel step2
              over r1
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn an_aborting_reader_and_a_cancelling_router_free_the_blocks() {
    check(
        "config role=prefill
         submit r1 prompt=20 give +
         submit r2 prompt=20 give
         step 1 2
         reader-aborts L1
         reader-aborts L1
         cancel r2
         load",
        expect![[r#"
            > submit r1 prompt=20 give +
            > submit r2 prompt=20 give
              grant L1 b0,b1
              offered r1 L1 b0,b1
              grant L2 b2,b3
              offered r2 L2 b2,b3
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0 | 0..20 @b2,b3 → slot1
            > step 1 2
              committed r1 choice0=t1 (queue 0us prefill 10000us)
              committed r2 choice0=t2 (queue 0us prefill 10000us)
            > reader-aborts L1
              reader lost r1
              revoke L1
              over r1
            > reader-aborts L1
            > cancel r2
              revoke L2
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 2 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn reservations_that_fill_have_their_own_bound() {
    check(
        "config role=prefill blocks=16 rows=32
         submit r1 prompt=100 give +
         submit r2 prompt=100 give +
         submit r3 prompt=10 give
         load
         step
         step
         step
         step",
        expect![[r#"
            > submit r1 prompt=100 give +
            > submit r2 prompt=100 give +
            > submit r3 prompt=10 give
              grant L1 b0,b1,b2,b3,b4,b5,b6
              offered r1 L1 b0,b1,b2,b3,b4,b5,b6
              grant L2 b7,b8,b9,b10,b11,b12,b13
              offered r2 L2 b7,b8,b9,b10,b11,b12,b13
              run step1: 0..32 @b0,b1
            > load
              running 1 waiting 2 (210 tokens) held 0; blocks free 2 cached 0 in use 14 quarantined 0
            > step
              run step2: 32..64 @b0,b1,b2,b3
            > step
              run step3: 64..96 @b0,b1,b2,b3,b4,b5
            > step
              run step4: +slot0 | 96..100 @b0,b1,b2,b3,b4,b5,b6 → slot0 | 0..28 @b7,b8
            > step
              committed r1 choice0=t4 (queue 0us prefill 40000us)
              grant L3 b14
              offered r3 L3 b14
              run step5: 28..60 @b7,b8,b9,b10
        "#]],
    );
}

/// The process was stopped for a minute. What readers and routers have said meanwhile is heard after it wakes.
#[test]
fn a_giver_that_was_held_up_itself_waits_a_beat_for_renewals() {
    check(
        "config role=prefill
         submit r1 give prompt=20 max=4
         submit r2 give prompt=20 max=4
         step
         step
         wait 60s
         renew r1 r2
         reader-renews L1
         wait 5s
         wait 20s",
        expect![[r#"
            > submit r1 give prompt=20 max=4
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > submit r2 give prompt=20 max=4
              grant L2 b2,b3
              offered r2 L2 b2,b3
            > step
              committed r1 choice0=t49 (queue 0us prefill 10000us)
              run step2: +slot1 | 0..20 @b2,b3 → slot1
            > step
              committed r2 choice0=t31 (queue 10000us prefill 10000us)
            > wait 60s
            > renew r1 r2
            > reader-renews L1
            > wait 5s
              reader lost r2
              revoke L2
              over r2
            > wait 20s
        "#]],
    );
}
