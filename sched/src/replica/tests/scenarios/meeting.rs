//! Offers whose giver is not met: they wait apart, delay no others, and hear of everything that is said about them.

use super::super::script::check;
use expect_test::expect;

#[test]
fn an_offer_waits_for_its_giver_and_nobody_waits_for_it() {
    check(
        "config role=decode
         offer r1 prompt=20 max=3 giver=12 lease=7
         submit r2 prompt=10 max=1
         step
         load
         wait 6s
         commit r1 5
         giver-up giver=12
         pull r1 complete
         answer r1 ok
         step",
        expect![[r#"
            > offer r1 prompt=20 max=3 giver=12 lease=7
              meet inst12 at peer:1
            > submit r2 prompt=10 max=1
              run step1: +slot0 | 0..10 @b0 → slot0
            > step
              token r2 choice0#0=t45 Length (queue 0us prefill 10000us)
              over r2
            > load
              running 0 waiting 1 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
            > wait 6s
            > commit r1 5
            > giver-up giver=12
              pull r1 lease7 0..20 from inst12 b100,b101 to b0,b1 in 593990000us
            > pull r1 complete
              release r1 lease7
            > answer r1 ok
              run step2: +slot0 | 20 @b0,b1 → slot0
            > step
              token r1 choice0#1=t27 (wait 0us transfer 0us queue 0us step 10000us)
              run step3: 21 @b0,b1 → slot0
        "#]],
    );
}

#[test]
fn a_giver_that_cannot_be_met_fails_its_offers_and_no_others() {
    check(
        "config role=decode
         offer r1 prompt=20 max=3 giver=12 lease=7
         offer r2 prompt=20 max=3 giver=13 lease=8
         offer r3 prompt=20 max=3 giver=1 lease=9
         giver-unmet giver=12 at=other:1
         giver-unmet giver=12
         giver-down giver=1
         commit r3 5
         offer r4 prompt=20 max=3 giver=1 lease=10
         giver-lost giver=13
         giver-up giver=13
         giver-up giver=1",
        expect![[r#"
            > offer r1 prompt=20 max=3 giver=12 lease=7
              meet inst12 at peer:1
            > offer r2 prompt=20 max=3 giver=13 lease=8
              meet inst13 at peer:1
            > offer r3 prompt=20 max=3 giver=1 lease=9
            > giver-unmet giver=12 at=other:1
            > giver-unmet giver=12
              failed r1 unavailable: nobody answers
              over r1
            > giver-down giver=1
            > commit r3 5
              pull r3 lease9 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > offer r4 prompt=20 max=3 giver=1 lease=10
              meet inst1 at peer:1
            > giver-lost giver=13
            > giver-up giver=13
            > giver-up giver=1
        "#]],
    );
}

#[test]
fn what_is_said_about_an_offer_that_waits_holds_when_its_giver_is_met() {
    check(
        "config role=decode
         offer r1 prompt=20 n=3 max=3 giver=12 lease=7
         cancel r1 2
         commit r1 5! 6
         offer r2 prompt=20 max=3 giver=12 lease=8
         cancel r2
         giver-up giver=12
         pull r1 complete
         answer r1 ok
         wait 30s",
        expect![[r#"
            > offer r1 prompt=20 n=3 max=3 giver=12 lease=7
              meet inst12 at peer:1
            > cancel r1 2
            > commit r1 5! 6
            > offer r2 prompt=20 max=3 giver=12 lease=8
              meet inst12 at peer:1
            > cancel r2
              over r2
            > giver-up giver=12
              pull r1 lease7 0..20 from inst12 b100,b101 to b0,b1 in 600000000us
            > pull r1 complete
              release r1 lease7
            > answer r1 ok
              run step1: +slot0 | 20 @b0,b1 → slot0
            > wait 30s
        "#]],
    );
}

#[test]
fn offers_that_wait_for_givers_leave_half_of_the_queue_to_others() {
    check(
        "config role=decode queue=4
         offer r1 prompt=20 max=3 giver=12 lease=7
         offer r2 prompt=20 max=3 giver=12 lease=8
         offer r3 prompt=20 max=3 giver=12 lease=9
         offer r4 prompt=20 max=3 giver=1 lease=10
         offer r5 prompt=2000 max=3 giver=12 lease=11",
        expect![[r#"
            > offer r1 prompt=20 max=3 giver=12 lease=7
              meet inst12 at peer:1
            > offer r2 prompt=20 max=3 giver=12 lease=8
              meet inst12 at peer:1
            > offer r3 prompt=20 max=3 giver=12 lease=9
              failed r3 overloaded: 2 offers wait for givers that are not met yet, that is enough
              over r3
            > offer r4 prompt=20 max=3 giver=1 lease=10
            > offer r5 prompt=2000 max=3 giver=12 lease=11
              failed r5 too_long: 2000 tokens leave nothing to generate in a context of 1024
              over r5
        "#]],
    );
}
