//! When a taker renews the leases that it reads under.

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
