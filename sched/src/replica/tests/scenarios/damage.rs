//! Rows that no token can be sampled from: their legs end, and no others.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn a_damaged_row_ends_its_own_leg_and_its_row_in_the_next_step_is_dropped() {
    check(
        "config ahead=2
         submit r1 prompt=20 family=1 max=6 +
         submit r2 prompt=20 family=2 max=4
         step 7 8
         step damaged 9
         step 5 10
         step 11
         load",
        expect![[r#"
            > submit r1 prompt=20 family=1 max=6 +
            > submit r2 prompt=20 family=2 max=4
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0 | 0..20 @b2,b3 → slot1
              run step2: 20 ← slot0 @b0,b1 → slot0 | 20 ← slot1 @b2,b3 → slot1
            > step 7 8
              token r1 choice0#0=t7 (queue 0us prefill 10000us)
              token r2 choice0#0=t8 (queue 0us prefill 10000us)
              run step3: 21 ← slot0 @b0,b1 → slot0 | 21 ← slot1 @b2,b3 → slot1
            > step damaged 9
              failed r1 internal: a damaged row
              over r1
              token r2 choice0#1=t9
              run step4: 22 ← slot1 @b2,b3 → slot1
            > step 5 10
              token r2 choice0#2=t10
            > step 11
              token r2 choice0#3=t11 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn what_a_damaged_row_was_computed_from_is_found_by_nobody() {
    check(
        "config ahead=1
         submit r1 prompt=40 family=1 max=6
         step 7
         load
         step damaged
         load
         submit r2 prompt=40 family=1 max=1
         step 5
         load",
        expect![[r#"
            > submit r1 prompt=40 family=1 max=6
              run step1: +slot0 | 0..40 @b0,b1,b2 → slot0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 10000us)
              run step2: 40 @b0,b1,b2 → slot0
            > load
              running 1 waiting 0 (0 tokens) held 0; blocks free 13 cached 0 in use 3 quarantined 0
            > step damaged
              failed r1 internal: a damaged row
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
            > submit r2 prompt=40 family=1 max=1
              run step3: +slot0 | 0..40 @b0,b1,b2 → slot0
            > step 5
              token r2 choice0#0=t5 Length (queue 0us prefill 10000us)
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 2 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn masks_that_leave_no_token_say_nothing_about_the_cache() {
    check(
        "config ahead=1
         submit r1 prompt=40 family=1 max=6
         step 7
         step masked
         load
         submit r2 prompt=40 family=1 max=1",
        expect![[r#"
            > submit r1 prompt=40 family=1 max=6
              run step1: +slot0 | 0..40 @b0,b1,b2 → slot0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 10000us)
              run step2: 40 @b0,b1,b2 → slot0
            > step masked
              failed r1 invalid_request: every token is masked
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 2 in use 0 quarantined 0
            > submit r2 prompt=40 family=1 max=1
              run step3: +slot0 | 32..40 @b0,b1,b2 → slot0
        "#]],
    );
}

#[test]
fn one_damaged_choice_ends_the_request_with_all_its_choices_and_a_cancelled_one_nothing() {
    check(
        "config ahead=1
         submit r1 prompt=20 family=1 max=6 n=3 +
         submit r2 prompt=20 family=2 max=3
         step 7 8 9 10
         cancel r1 1
         step 11 damaged 12 13
         step 14 damaged 15
         load",
        expect![[r#"
            > submit r1 prompt=20 family=1 max=6 n=3 +
            > submit r2 prompt=20 family=2 max=3
              run step1: +slot0 +slot1 +slot2 +slot3 | 0..20 @b0,b1 → slot0,slot1,slot2 | 0..20 @b2,b3 → slot3
            > step 7 8 9 10
              token r1 choice0#0=t7 (queue 0us prefill 10000us)
              token r1 choice1#0=t8
              token r1 choice2#0=t9
              token r2 choice0#0=t10 (queue 0us prefill 10000us)
              run step2: copy b1>b4 copy b1>b5 | 20 @b0,b4 → slot0 | 20 @b0,b5 → slot1 | 20 @b0,b1 → slot2 | 20 @b2,b3 → slot3
            > cancel r1 1
            > step 11 damaged 12 13
              token r1 choice0#1=t11
              token r1 choice2#1=t12
              token r2 choice0#1=t13
              run step3: 21 @b0,b4 → slot0 | 21 @b0,b1 → slot2 | 21 @b2,b3 → slot3
            > step 14 damaged 15
              token r1 choice0#2=t14
              failed r1 internal: a damaged row
              over r1
              token r2 choice0#2=t15 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_prompt_that_cannot_be_sampled_is_never_committed() {
    check(
        "config role=prefill
         submit r1 give prompt=20 family=1 n=2 max=6
         step damaged damaged
         load",
        expect![[r#"
            > submit r1 give prompt=20 family=1 n=2 max=6
              grant L1 b0,b1
              offered r1 L1 b0,b1
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > step damaged damaged
              failed r1 internal: a damaged row
              revoke L1
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn what_was_taken_over_damaged_is_given_back() {
    check(
        "config role=decode
         offer r1 prompt=33 family=1 max=6 lease=5
         commit r1 7
         pull r1 complete
         answer r1 ok
         step damaged
         load",
        expect![[r#"
            > offer r1 prompt=33 family=1 max=6 lease=5
            > commit r1 7
              pull r1 lease5 0..33 from inst1 b100,b101,b102 to b0,b1,b2 in 600000000us
            > pull r1 complete
              release r1 lease5
            > answer r1 ok
              run step1: +slot0 | 33 @b0,b1,b2 → slot0
            > step damaged
              failed r1 internal: a damaged row
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn parameters_that_no_token_can_be_sampled_with_are_refused() {
    check(
        "submit r1 prompt=20 repetition=0
         submit r2 prompt=20 repetition=inf
         submit r3 prompt=20 temperature=NaN
         submit r4 prompt=20 presence=-inf
         offer r5 prompt=20 lease=5 frequency=NaN
         submit r6 prompt=20 top_p=0
         submit r7 prompt=20 min_p=1.5
         load",
        expect![[r#"
            > submit r1 prompt=20 repetition=0
              failed r1 invalid_request: no token can be sampled with a repetition_penalty of 0
              over r1
            > submit r2 prompt=20 repetition=inf
              failed r2 invalid_request: no token can be sampled with a repetition_penalty of inf
              over r2
            > submit r3 prompt=20 temperature=NaN
              failed r3 invalid_request: no token can be sampled with a temperature of NaN
              over r3
            > submit r4 prompt=20 presence=-inf
              failed r4 invalid_request: no token can be sampled with a presence_penalty of -inf
              over r4
            > offer r5 prompt=20 lease=5 frequency=NaN
              failed r5 invalid_request: no token can be sampled with a frequency_penalty of NaN
              over r5
            > submit r6 prompt=20 top_p=0
              failed r6 invalid_request: no token can be sampled with a top_p of 0
              over r6
            > submit r7 prompt=20 min_p=1.5
              failed r7 invalid_request: no token can be sampled with a min_p of 1.5
              over r7
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}
