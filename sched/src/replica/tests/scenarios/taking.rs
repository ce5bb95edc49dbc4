//! The reader's side of a hand-off.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn an_offer_is_pulled_released_and_joined() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5 max=3
         load
         wait 1s
         commit r1 7
         wait 1s
         pull r1 complete
         wait 1s
         answer r1 ok
         step 8
         step 9
         load",
        expect![[r#"
            > offer r1 prompt=20 lease=5 max=3
            > load
              running 0 waiting 1 (0 tokens) held 0; blocks free 13 cached 0 in use 3 quarantined 0
            > wait 1s
              renew inst1 [LeaseId(5)]
            > commit r1 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 599000000us
            > wait 1s
            > pull r1 complete
              release r1 lease5
            > wait 1s
            > answer r1 ok
              run step1: +slot0 | 20 @b0,b1 → slot0
            > step 8
              token r1 choice0#1=t8 (wait 0us transfer 2000000us queue 0us step 10000us)
              run step2: 21 @b0,b1 → slot0
            > step 9
              token r1 choice0#2=t9 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_commit_may_come_before_there_are_blocks() {
    check(
        "config role=decode blocks=4 filling=100
         submit r1 prompt=40 max=2
         offer r2 prompt=20 lease=5 max=3
         commit r2 7
         step 1
         step 2
         pull r2 complete",
        expect![[r#"
            > submit r1 prompt=40 max=2
              run step1: +slot0 | 0..40 @b0,b1,b2 → slot0
            > offer r2 prompt=20 lease=5 max=3
            > commit r2 7
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 40 @b0,b1,b2 → slot0
            > step 2
              token r1 choice0#1=t2 Length
              over r1
              pull r2 lease5 0..20 from inst1 b100,b101 to b2,b3 in 599980000us
            > pull r2 complete
              release r2 lease5
        "#]],
    );
}

#[test]
fn what_is_here_already_is_not_pulled() {
    check(
        "config role=decode
         submit r1 prompt=32 family=1 max=1
         step 1
         offer r2 prompt=40 family=1 lease=5
         commit r2 7
         offer r3 prompt=32 family=1 lease=6
         commit r3 8
         answer r3 ok",
        expect![[r#"
            > submit r1 prompt=32 family=1 max=1
              run step1: +slot0 | 0..32 @b0,b1 → slot0
            > step 1
              token r1 choice0#0=t1 Length (queue 0us prefill 10000us)
              over r1
            > offer r2 prompt=40 family=1 lease=5
            > commit r2 7
              pull r2 lease5 32..40 from inst1 b100,b101,b102 to b0,b1,b2 in 600000000us
            > offer r3 prompt=32 family=1 lease=6
            > commit r3 8
              release r3 lease6
            > answer r3 ok
              run step2: +slot0 | 32 @b0,b1,b4 → slot0
        "#]],
    );
}

#[test]
fn choices_of_an_offer_fork_when_they_join_and_ended_ones_do_not() {
    check(
        "config role=decode
         offer r1 prompt=20 n=3 lease=5 max=3
         load
         commit r1 7 8! 9
         pull r1 complete
         answer r1 ok
         step 1 2
         step 3 4
         load",
        expect![[r#"
            > offer r1 prompt=20 n=3 lease=5 max=3
            > load
              running 0 waiting 1 (0 tokens) held 0; blocks free 11 cached 0 in use 5 quarantined 0
            > commit r1 7 8! 9
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > pull r1 complete
              release r1 lease5
            > answer r1 ok
              run step1: +slot0 +slot1 copy b1>b2 | 20 @b0,b2 → slot0 | 20 @b0,b1 → slot1
            > step 1 2
              token r1 choice0#1=t1 (wait 0us transfer 0us queue 0us step 10000us)
              token r1 choice2#1=t2
              run step2: 21 @b0,b2 → slot0 | 21 @b0,b1 → slot1
            > step 3 4
              token r1 choice0#2=t3 Length
              token r1 choice2#2=t4 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn blocks_stay_quarantined_until_no_byte_can_land() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5
         commit r1 7
         cancel r1
         load
         submit r1 prompt=3
         pull r1 aborted
         load
         pull r1 complete",
        expect![[r#"
            > offer r1 prompt=20 lease=5
            > commit r1 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > cancel r1
              abort pull r1
              abort lease5
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 0 quarantined 2
            > submit r1 prompt=3
              failed r1 invalid_request: an earlier leg of the same name is still ending here
              over r1
            > pull r1 aborted
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
            > pull r1 complete
        "#]],
    );
}

#[test]
fn nothing_but_ok_makes_it_usable() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5 +
         offer r2 prompt=20 lease=6 +
         offer r3 prompt=20 lease=7 +
         commit r1 7 +
         commit r2 7 +
         commit r3 7
         pull r1 reset-by-peer
         pull r2 complete
         answer r2 expired
         pull r3 complete
         answer r3 unheard
         load",
        expect![[r#"
            > offer r1 prompt=20 lease=5 +
            > offer r2 prompt=20 lease=6 +
            > offer r3 prompt=20 lease=7 +
            > commit r1 7 +
            > commit r2 7 +
            > commit r3 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
              pull r2 lease6 0..20 from inst1 b100,b101 to b3,b4 in 600000000us
              pull r3 lease7 0..20 from inst1 b100,b101 to b6,b7 in 600000000us
            > pull r1 reset-by-peer
              abort lease5
              failed r1 kv_lost: the pull of req1/try0 failed: reset-by-peer
              over r1
            > pull r2 complete
              release r2 lease6
            > answer r2 expired
              failed r2 kv_lost: the giver of req2/try0 answered its release with Expired
              over r2
            > pull r3 complete
              release r3 lease7
            > answer r3 unheard
              failed r3 kv_lost: the giver of req3/try0 could not be asked whether its lease held
              over r3
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_lost_lease_or_giver_loses_what_is_not_verified() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5 giver=1 +
         offer r2 prompt=20 lease=6 giver=2 +
         offer r3 prompt=20 lease=7 giver=2
         gone lease=5
         commit r3 7
         pull r3 complete
         gone lease=7
         giver-lost giver=2
         load",
        expect![[r#"
            > offer r1 prompt=20 lease=5 giver=1 +
            > offer r2 prompt=20 lease=6 giver=2 +
            > offer r3 prompt=20 lease=7 giver=2
            > gone lease=5
              failed r1 kv_lost: the giver of req1/try0 has ended its lease
              abort lease5
              over r1
            > commit r3 7
              pull r3 lease7 0..20 from inst2 b100,b101 to b6,b7 in 600000000us
            > pull r3 complete
              release r3 lease7
            > gone lease=7
            > giver-lost giver=2
              failed r2 kv_lost: the giver of req2/try0 is gone
              abort lease6
              over r2
              failed r3 kv_lost: the giver of req3/try0 is gone
              abort lease7
              over r3
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn leases_are_renewed_every_beat_and_a_lost_answer_is_asked_for_again() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5 giver=1 +
         offer r2 prompt=20 lease=6 giver=2
         wait 5s
         commit r1 7
         pull r1 complete
         wait 5s
         answer r1 ok
         cancel r2
         wait 5s",
        expect![[r#"
            > offer r1 prompt=20 lease=5 giver=1 +
            > offer r2 prompt=20 lease=6 giver=2
            > wait 5s
              renew inst1 [LeaseId(5)]
              renew inst2 [LeaseId(6)]
              renew inst1 [LeaseId(5)]
              renew inst2 [LeaseId(6)]
            > commit r1 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 595000000us
            > pull r1 complete
              release r1 lease5
            > wait 5s
              release r1 lease5
              renew inst1 [LeaseId(5)]
              renew inst2 [LeaseId(6)]
            > answer r1 ok
              run step1: +slot0 | 20 @b0,b1 → slot0
            > cancel r2
              abort lease6
              over r2
            > wait 5s
        "#]],
    );
}

#[test]
fn a_release_that_is_never_answered_is_given_up() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5
         commit r1 7
         pull r1 complete
         wait 9s
         wait 9s
         wait 9s
         renew r1
         wait 4s
         load",
        expect![[r#"
            > offer r1 prompt=20 lease=5
            > commit r1 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > pull r1 complete
              release r1 lease5
            > wait 9s
              renew inst1 [LeaseId(5)]
              release r1 lease5
              renew inst1 [LeaseId(5)]
            > wait 9s
              release r1 lease5
              renew inst1 [LeaseId(5)]
            > wait 9s
              release r1 lease5
              renew inst1 [LeaseId(5)]
            > renew r1
            > wait 4s
              failed r1 kv_lost: the giver of req1/try0 did not answer its release in time
              abort lease5
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_commit_that_makes_no_sense_fails_the_leg() {
    check(
        "config role=decode
         offer r1 prompt=20 n=2 lease=5
         offer r2 prompt=20 max=1 lease=6
         commit r1 7
         commit r2 7
         commit r9 7
         load",
        expect![[r#"
            > offer r1 prompt=20 n=2 lease=5
            > offer r2 prompt=20 max=1 lease=6
            > commit r1 7
              failed r1 internal: the commit of req1/try0 does not name choice1 once
              abort lease5
              over r1
            > commit r2 7
              failed r2 internal: the commit of req2/try0 goes on with choice0, which has ended
              abort lease6
              over r2
            > commit r9 7
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn joined_legs_wait_for_a_slot() {
    check(
        "config role=decode seats=1
         submit r1 prompt=3 max=2
         offer r2 prompt=3 lease=5 max=2
         commit r2 7
         pull r2 complete
         answer r2 ok
         load
         step 1
         step 2
         step 3",
        expect![[r#"
            > submit r1 prompt=3 max=2
              run step1: +slot0 | 0..3 @b0 → slot0
            > offer r2 prompt=3 lease=5 max=2
            > commit r2 7
              pull r2 lease5 0..3 from inst1 b100 to b1 in 600000000us
            > pull r2 complete
              release r2 lease5
            > answer r2 ok
            > load
              running 1 waiting 1 (3 tokens) held 0; blocks free 13 cached 0 in use 3 quarantined 0
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 3 @b0 → slot0
            > step 2
              token r1 choice0#1=t2 Length
              over r1
              run step3: +slot0 | 3 @b1 → slot0
            > step 3
              token r2 choice0#1=t3 Length (wait 0us transfer 0us queue 20000us step 10000us)
              over r2
        "#]],
    );
}

#[test]
fn a_giver_is_read_by_a_few_at_a_time_in_order_of_arrival() {
    check(
        "config role=decode pulls=1
         offer r1 prompt=20 lease=5
         offer r2 prompt=20 lease=6
         offer r3 prompt=3 lease=7
         commit r2 7
         commit r3 7
         commit r1 7
         pull r2 complete
         cancel r1
         pull r1 aborted
         pull r3 complete
         answer r2 ok
         answer r3 ok",
        expect![[r#"
            > offer r1 prompt=20 lease=5
            > offer r2 prompt=20 lease=6
            > offer r3 prompt=3 lease=7
            > commit r2 7
              pull r2 lease6 0..20 from inst1 b100,b101 to b3,b4 in 600000000us
            > commit r3 7
            > commit r1 7
            > pull r2 complete
              release r2 lease6
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > cancel r1
              abort pull r1
              abort lease5
              over r1
            > pull r1 aborted
              pull r3 lease7 0..3 from inst1 b100 to b6 in 600000000us
            > pull r3 complete
              release r3 lease7
            > answer r2 ok
              run step1: +slot0 | 20 @b3,b4 → slot0
            > answer r3 ok
        "#]],
    );
}

/// Waiting for a turn takes no time from a pull: the lease is kept alive for as long as it takes.
#[test]
fn a_pull_that_waits_longer_than_a_lease_lasts_arrives_all_the_same() {
    check(
        "config role=decode pulls=1
         offer r1 prompt=20 lease=5
         offer r2 prompt=20 lease=6
         commit r1 7
         commit r2 7
         wait 20s
         renew r1
         renew r2
         wait 20s
         renew r1
         renew r2
         pull r1 complete
         wait 20s
         renew r2
         pull r2 complete
         answer r2 ok",
        expect![[r#"
            > offer r1 prompt=20 lease=5
            > offer r2 prompt=20 lease=6
            > commit r1 7
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > commit r2 7
            > wait 20s
              renew inst1 [LeaseId(5), LeaseId(6)]
              renew inst1 [LeaseId(5), LeaseId(6)]
            > renew r1
            > renew r2
            > wait 20s
              renew inst1 [LeaseId(5), LeaseId(6)]
            > renew r1
            > renew r2
            > pull r1 complete
              release r1 lease5
              pull r2 lease6 0..20 from inst1 b100,b101 to b3,b4 in 560000000us
            > wait 20s
              release r1 lease5
              renew inst1 [LeaseId(5), LeaseId(6)]
            > renew r2
            > pull r2 complete
              release r2 lease6
            > answer r2 ok
              run step1: +slot0 | 20 @b3,b4 → slot0
        "#]],
    );
}
