//! Two steps in flight: the next is formed before the result of the one that runs is known.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn chunks_follow_each_other_and_decodes_continue_from_their_slot() {
    check(
        "config ahead=2 rows=16 seats=4
         submit r1 prompt=20 max=4
         step
         step 7
         load
         step 8
         step 9
         step 10
         load",
        expect![[r#"
            > submit r1 prompt=20 max=4
              run step1: 0..16 @b0
              run step2: +slot0 | 16..20 @b0,b1 → slot0
            > step
              run step3: 20 ← slot0 @b0,b1 → slot0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 20000us)
              run step4: 21 ← slot0 @b0,b1 → slot0
            > load
              running 1 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 2 quarantined 0
            > step 8
              token r1 choice0#1=t8
              run step5: 22 ← slot0 @b0,b1 → slot0
            > step 9
              token r1 choice0#2=t9
            > step 10
              token r1 choice0#3=t10 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_stop_token_is_noticed_a_step_late_and_the_row_after_it_is_dropped() {
    check(
        "config ahead=2 seats=1
         submit r1 prompt=15 max=9 stop=7
         step 1
         submit r2 prompt=3 max=2
         step 7
         load
         step 99
         load
         step 5
         step 6
         load",
        expect![[r#"
            > submit r1 prompt=15 max=9 stop=7
              run step1: +slot0 | 0..15 @b0 → slot0
              run step2: 15 ← slot0 @b0 → slot0
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step3: 16 ← slot0 @b0,b1 → slot0
            > submit r2 prompt=3 max=2
            > step 7
              token r1 choice0#1=t7 Stop
              cancel step3
              over r1
              run step4: +slot0 | 0..3 @b2 → slot0
            > load
              running 1 waiting 0 (3 tokens) held 0; blocks free 13 cached 0 in use 1 quarantined 2
            > step 99
              run step5: 3 ← slot0 @b2 → slot0
            > load
              running 1 waiting 0 (3 tokens) held 0; blocks free 14 cached 1 in use 1 quarantined 0
            > step 5
              token r2 choice0#0=t5 (queue 20000us prefill 10000us)
            > step 6
              token r2 choice0#1=t6 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_block_grows_for_a_token_that_nobody_knows_and_comes_back_unnamed() {
    check(
        "config ahead=2 blocks=4
         submit r1 prompt=31 family=1 max=9 stop=7
         step 1031
         step 7
         load
         step
         load
         submit r2 prompt=40 family=1 max=1",
        expect![[r#"
            > submit r1 prompt=31 family=1 max=9 stop=7
              run step1: +slot0 | 0..31 @b0,b1 → slot0
              run step2: 31 ← slot0 @b0,b1 → slot0
            > step 1031
              token r1 choice0#0=t1031 (queue 0us prefill 10000us)
              run step3: 32 ← slot0 @b0,b1,b2 → slot0
            > step 7
              token r1 choice0#1=t7 Stop
              cancel step3
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 1 cached 0 in use 0 quarantined 3
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 2 cached 2 in use 0 quarantined 0
            > submit r2 prompt=40 family=1 max=1
              run step4: +slot0 | 32..40 @b0,b1,b2 → slot0
        "#]],
    );
}

#[test]
fn a_cancel_ends_both_steps_and_blocks_wait_for_the_last() {
    check(
        "config ahead=2
         submit r1 prompt=20 max=9
         cancel r1
         load
         step
         load
         step
         load",
        expect![[r#"
            > submit r1 prompt=20 max=9
              run step1: +slot0 | 0..20 @b0,b1 → slot0
              run step2: 20 ← slot0 @b0,b1 → slot0
            > cancel r1
              cancel step1
              cancel step2
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 0 quarantined 2
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 0 in use 0 quarantined 2
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn the_step_behind_a_cancelled_one_goes_on_for_the_others() {
    check(
        "config ahead=2 rows=20
         submit r1 prompt=20 max=9 +
         submit r2 prompt=10 max=2
         cancel r1
         step
         step 98 3
         step 4
         load",
        expect![[r#"
            > submit r1 prompt=20 max=9 +
            > submit r2 prompt=10 max=2
              run step1: +slot0 | 0..20 @b0,b1 → slot0
              run step2: +slot1 | 20 ← slot0 @b0,b1 → slot0 | 0..10 @b2 → slot1
            > cancel r1
              cancel step1
              over r1
            > step
              run step3: 10 ← slot1 @b2 → slot1
            > step 98 3
              token r2 choice0#0=t3 (queue 10000us prefill 10000us)
            > step 4
              token r2 choice0#1=t4 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_failed_step_fails_its_legs_and_the_one_behind_it_goes_on_for_the_others() {
    check(
        "config ahead=2 rows=20
         submit r1 prompt=20 max=9 +
         submit r2 prompt=10 max=2
         fail-step
         step 98 3
         step 4
         load",
        expect![[r#"
            > submit r1 prompt=20 max=9 +
            > submit r2 prompt=10 max=2
              run step1: +slot0 | 0..20 @b0,b1 → slot0
              run step2: +slot1 | 20 ← slot0 @b0,b1 → slot0 | 0..10 @b2 → slot1
            > fail-step
              failed r1 internal: no device
              over r1
              run step3: 10 ← slot1 @b2 → slot1
            > step 98 3
              token r2 choice0#0=t3 (queue 0us prefill 10000us)
            > step 4
              token r2 choice0#1=t4 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_step_that_cannot_be_handed_over_leaves_the_one_before_it_alone() {
    check(
        "config ahead=2 rows=24
         submit r3 prompt=4 max=1 +
         submit r1 prompt=20 max=9 +
         submit r2 prompt=10 max=2
         refuse-step
         step 5
         load",
        expect![[r#"
            > submit r3 prompt=4 max=1 +
            > submit r1 prompt=20 max=9 +
            > submit r2 prompt=10 max=2
              run step1: +slot0 +slot1 | 0..4 @b0 → slot0 | 0..20 @b1,b2 → slot1
              run step2: +slot2 | 20 ← slot1 @b1,b2 → slot1 | 0..10 @b3 → slot2
            > refuse-step
              failed r1 internal: no device
              over r1
              failed r2 internal: no device
              over r2
            > step 5
              token r3 choice0#0=t5 Length (queue 0us prefill 10000us)
              over r3
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_step_that_overtakes_is_a_defect_of_the_backend() {
    check(
        "config ahead=2 rows=8
         submit r1 prompt=12 max=9 +
         submit r2 prompt=2 max=9
         overtake
         step
         load",
        expect![[r#"
            > submit r1 prompt=12 max=9 +
            > submit r2 prompt=2 max=9
              run step1: 0..8 @b0
              run step2: +slot0 +slot1 | 8..12 @b0 → slot0 | 0..2 @b1 → slot1
            > overtake
              failed r1 internal: the backend ended step2 before the step that it follows
              cancel step1
              over r1
              failed r2 internal: the backend ended step2 before the step that it follows
              over r2
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn nobody_is_preempted_while_a_step_computes_it() {
    check(
        "config ahead=2 blocks=4 filling=100
         submit r1 prompt=31 max=4 +
         submit r2 prompt=31 max=4
         load
         step 1 2
         step 3 4
         load
         step 5
         step 6
         step 7",
        expect![[r#"
            > submit r1 prompt=31 max=4 +
            > submit r2 prompt=31 max=4
              run step1: +slot0 +slot1 | 0..31 @b0,b1 → slot0 | 0..31 @b2,b3 → slot1
              run step2: 31 ← slot0 @b0,b1 → slot0 | 31 ← slot1 @b2,b3 → slot1
            > load
              running 2 waiting 0 (62 tokens) held 0; blocks free 0 cached 0 in use 4 quarantined 0
            > step 1 2
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              token r2 choice0#0=t2 (queue 0us prefill 10000us)
            > step 3 4
              token r1 choice0#1=t3
              token r2 choice0#1=t4
              run step3: 32 @b0,b1,b3 → slot0
              run step4: 33 ← slot0 @b0,b1,b3 → slot0
            > load
              running 1 waiting 1 (33 tokens) held 0; blocks free 0 cached 1 in use 3 quarantined 0; ever 0 tokens found, 1 preempted
            > step 5
              token r1 choice0#2=t5
            > step 6
              token r1 choice0#3=t6 Length
              over r1
              run step5: +slot0 | 16..33 @b2,b3,b1 → slot0
              run step6: 33 ← slot0 @b2,b3,b1 → slot0
            > step 7
              token r2 choice0#2=t7
        "#]],
    );
}

#[test]
fn choices_branch_when_their_first_tokens_are_known() {
    check(
        "config ahead=2 seats=4
         submit r1 prompt=20 n=2 max=4 stop=7
         step 1 2
         step 3 7
         step 4 98
         step 5
         load",
        expect![[r#"
            > submit r1 prompt=20 n=2 max=4 stop=7
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > step 1 2
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              token r1 choice1#0=t2
              run step2: copy b1>b2 | 20 @b0,b2 → slot0 | 20 @b0,b1 → slot1
              run step3: 21 ← slot0 @b0,b2 → slot0 | 21 ← slot1 @b0,b1 → slot1
            > step 3 7
              token r1 choice0#1=t3
              token r1 choice1#1=t7 Stop
              run step4: 22 ← slot0 @b0,b2 → slot0
            > step 4 98
              token r1 choice0#2=t4
            > step 5
              token r1 choice0#3=t5 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_given_prompt_is_committed_by_its_last_chunk_and_never_decoded_here() {
    check(
        "config role=prefill ahead=2 rows=16
         submit r1 prompt=40 give max=5 +
         submit r2 prompt=5 give max=5
         step
         step
         step 7 8
         load
         reader-releases L1
         reader-releases L2
         load",
        expect![[r#"
            > submit r1 prompt=40 give max=5 +
            > submit r2 prompt=5 give max=5
              grant L1 b0,b1,b2
              offered r1 L1 b0,b1,b2
              grant L2 b3
              offered r2 L2 b3
              run step1: 0..16 @b0
              run step2: 16..32 @b0,b1
            > step
              run step3: +slot0 +slot1 | 32..40 @b0,b1,b2 → slot0 | 0..5 @b3 → slot1
            > step
            > step 7 8
              committed r1 choice0=t7 (queue 0us prefill 30000us)
              committed r2 choice0=t8 (queue 20000us prefill 10000us)
            > load
              running 0 waiting 0 (0 tokens) held 2; blocks free 12 cached 0 in use 4 quarantined 0
            > reader-releases L1
              answer L1 Ok
              handed over r1
              revoke L1
              over r1
            > reader-releases L2
              answer L2 Ok
              handed over r2
              revoke L2
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 14 cached 2 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_joined_leg_decodes_two_steps_ahead() {
    check(
        "config role=decode ahead=2
         offer r1 prompt=20 n=2 lease=5 max=4
         commit r1 7 8
         pull r1 complete
         answer r1 ok
         step 1 2
         step 3 4
         step 5 6
         load",
        expect![[r#"
            > offer r1 prompt=20 n=2 lease=5 max=4
            > commit r1 7 8
              pull r1 lease5 0..20 from inst1 b100,b101 to b0,b1 in 600000000us
            > pull r1 complete
              release r1 lease5
            > answer r1 ok
              run step1: +slot0 +slot1 copy b1>b2 | 20 @b0,b2 → slot0 | 20 @b0,b1 → slot1
              run step2: 21 ← slot0 @b0,b2 → slot0 | 21 ← slot1 @b0,b1 → slot1
            > step 1 2
              token r1 choice0#1=t1 (wait 0us transfer 0us queue 0us step 10000us)
              token r1 choice1#1=t2
              run step3: 22 ← slot0 @b0,b2 → slot0 | 22 ← slot1 @b0,b1 → slot1
            > step 3 4
              token r1 choice0#2=t3
              token r1 choice1#2=t4
            > step 5 6
              token r1 choice0#3=t5 Length
              token r1 choice1#3=t6 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_step_that_waited_behind_another_starts_when_that_one_ends() {
    check(
        "config ahead=2 seats=4
         submit r1 prompt=4 max=9
         submit r2 prompt=4 max=1
         step 1
         step 2
         step 3 4",
        expect![[r#"
            > submit r1 prompt=4 max=9
              run step1: +slot0 | 0..4 @b0 → slot0
              run step2: 4 ← slot0 @b0 → slot0
            > submit r2 prompt=4 max=1
            > step 1
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              run step3: +slot1 | 5 ← slot0 @b0 → slot0 | 0..4 @b1 → slot1
            > step 2
              token r1 choice0#1=t2
              run step4: 6 ← slot0 @b0 → slot0
            > step 3 4
              token r1 choice0#2=t3
              token r2 choice0#0=t4 Length (queue 20000us prefill 10000us)
              over r2
              run step5: 7 ← slot0 @b0 → slot0
        "#]],
    );
}

#[test]
fn a_deadline_that_passes_when_a_step_ends_cancels_it_too_late() {
    check(
        "config ahead=2 rows=20
         submit r1 prompt=20 max=9 deadline=10ms +
         submit r2 prompt=10 max=2
         step
         step 98 3
         step 4
         load",
        expect![[r#"
            > submit r1 prompt=20 max=9 deadline=10ms +
            > submit r2 prompt=10 max=2
              run step1: +slot0 | 0..20 @b0,b1 → slot0
              run step2: +slot1 | 20 ← slot0 @b0,b1 → slot0 | 0..10 @b2 → slot1
            > step
              failed r1 deadline_exceeded: the request's deadline has passed
              cancel step1
              over r1
              run step3: 10 ← slot1 @b2 → slot1
            > step 98 3
              token r2 choice0#0=t3 (queue 10000us prefill 10000us)
            > step 4
              token r2 choice0#1=t4 Length
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}
