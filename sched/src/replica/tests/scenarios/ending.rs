//! Every way a leg can end.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_cancelled_step_keeps_its_blocks_in_quarantine_until_it_ends() {
    check(
        "submit r1 prompt=20
         cancel r1
         load
         step
         load",
        expect![[r#"
            > submit r1 prompt=20
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > cancel r1
              cancel step1
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 0 quarantined 2
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_step_goes_on_while_one_of_its_legs_lives() {
    check(
        "submit r1 prompt=20 max=1 +
         submit r2 prompt=20 max=1
         cancel r1
         step",
        expect![[r#"
            > submit r1 prompt=20 max=1 +
            > submit r2 prompt=20 max=1
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0 | 0..20 @b2,b3 → slot1
            > cancel r1
              over r1
            > step
              token r2 choice0#0=t31 Length (queue 0us prefill 10000us)
              over r2
        "#]],
    );
}

#[test]
fn a_failed_step_fails_its_legs_and_no_others() {
    check(
        "config rows=16
         submit r1 prompt=16 n=2 +
         submit r2 prompt=16
         fail-step
         step 3
         load",
        expect![[r#"
            > submit r1 prompt=16 n=2 +
            > submit r2 prompt=16
              run step1: +slot0 +slot1 | 0..16 @b0 → slot0,slot1
            > fail-step
              failed r1 internal: no device
              over r1
              run step2: +slot2 | 0..16 @b1 → slot2
            > step 3
              token r2 choice0#0=t3 (queue 0us prefill 10000us)
              run step3: 16 @b1,b0 → slot2
            > load
              running 1 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 2 quarantined 0
        "#]],
    );
}

#[test]
fn deadline_and_request_lease_end_a_leg_wherever_it_is() {
    check(
        "config seats=1
         submit r1 prompt=20 deadline=10s +
         submit r2 prompt=20
         wait 10s
         step
         wait 19s
         renew r2
         wait 29s
         wait 1s
         step
         load",
        expect![[r#"
            > submit r1 prompt=20 deadline=10s +
            > submit r2 prompt=20
              run step1: +slot0 | 0..20 @b0,b1 → slot0
            > wait 10s
              failed r1 deadline_exceeded: the request's deadline has passed
              cancel step1
              over r1
            > step
              run step2: +slot0 | 0..20 @b2,b3 → slot0
            > wait 19s
            > renew r2
            > wait 29s
            > wait 1s
              failed r2 cancelled: no router has renewed the request for 30 s
              cancel step2
              over r2
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn stop_tokens_obey_the_minimum_and_limits_end_with_length() {
    check(
        "config context=24
         submit r1 prompt=3 max=9 min=1 stop=7 +
         submit r2 prompt=21 max=9
         step 7 1
         step 7 2
         step 3",
        expect![[r#"
            > submit r1 prompt=3 max=9 min=1 stop=7 +
            > submit r2 prompt=21 max=9
              run step1: +slot0 +slot1 | 0..3 @b0 → slot0 | 0..21 @b1,b2 → slot1
            > step 7 1
              token r1 choice0#0=t7 (queue 0us prefill 10000us)
              token r2 choice0#0=t1 (queue 0us prefill 10000us)
              run step2: 3 @b0 → slot0 | 21 @b1,b2 → slot1
            > step 7 2
              token r1 choice0#1=t7 Stop
              over r1
              token r2 choice0#1=t2
              run step3: 22 @b1,b2 → slot1
            > step 3
              token r2 choice0#2=t3 Length
              over r2
        "#]],
    );
}

#[test]
fn what_nobody_knows_is_ignored() {
    check(
        "cancel r9
         cancel r9 0
         renew r9
         pull r9 complete
         answer r9 ok
         gone lease=9
         giver-lost giver=9
         reader-renews L9
         reader-aborts L9
         load",
        expect![[r#"
            > cancel r9
            > cancel r9 0
            > renew r9
            > pull r9 complete
            > answer r9 ok
            > gone lease=9
            > giver-lost giver=9
            > reader-renews L9
              answer gone lease0
            > reader-aborts L9
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}
