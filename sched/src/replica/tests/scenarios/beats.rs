//! Times at which a reader renews its leases, and at which it asks again for an answer.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_new_lease_is_renewed_long_before_the_beat_unless_it_is_over_by_then() {
    check(
        "config role=decode
         offer r1 prompt=20 lease=5
         wait 90ms
         offer r2 prompt=20 lease=6
         cancel r2
         wait 10ms
         wait 4s
         offer r3 prompt=20 lease=7
         wait 100ms
         wait 800ms
         wait 2s",
        expect![[r#"
            > offer r1 prompt=20 lease=5
            > wait 90ms
            > offer r2 prompt=20 lease=6
            > cancel r2
              abort lease6
              over r2
            > wait 10ms
              renew inst1 [LeaseId(5)]
            > wait 4s
            > offer r3 prompt=20 lease=7
            > wait 100ms
              renew inst1 [LeaseId(7)]
            > wait 800ms
              renew inst1 [LeaseId(5), LeaseId(7)]
            > wait 2s
        "#]],
    );
}

/// Found by reading: an answer that was lost with a connection was only asked for again at the next beat.
#[test]
fn a_giver_that_is_met_again_is_asked_again() {
    check(
        "config role=decode
         offer r1 prompt=20 max=3
         commit r1 7
         giver-met giver=1
         pull r1 complete
         giver-met giver=2
         giver-met giver=1
         answer r1 ok
         giver-met giver=1",
        expect![[r#"
            > offer r1 prompt=20 max=3
            > commit r1 7
              pull r1 lease1 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > giver-met giver=1
            > pull r1 complete
              release r1 lease1
            > giver-met giver=2
            > giver-met giver=1
              release r1 lease1
            > answer r1 ok
              run step1: +slot0 | 20 @b0,b1 → slot0
            > giver-met giver=1
        "#]],
    );
}
