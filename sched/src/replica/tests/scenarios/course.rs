//! Steps that run some of the layers: their rows take several of them.

use expect_test::expect;

use crate::replica::tests::script::check;

/// Slots are taken before the first layer and sampled after the last; nothing else comes in between.
#[test]
fn rows_go_through_all_layers_before_others_begin() {
    check(
        "config step-layers=3 rows=16
         submit r1 prompt=10 max=2
         submit r2 prompt=10 max=1
         step
         step 7
         step
         step 8
         load",
        expect![[r#"
            > submit r1 prompt=10 max=2
              run step1: +slot0 | layers 0..3 | 0..10 @b0
            > submit r2 prompt=10 max=1
            > step
              run step2: layers 3..4 | 0..10 @b0 → slot0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 20000us)
              run step3: +slot1 | layers 0..3 | 10 @b0 | 0..10 @b1
            > step
              run step4: layers 3..4 | 10 @b0 → slot0 | 0..10 @b1 → slot1
            > step 8
              token r1 choice0#1=t8 Length
              over r1
              token r2 choice0#0=t45 Length (queue 20000us prefill 20000us)
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn with_two_steps_in_flight_the_next_layers_wait_at_the_backend() {
    check(
        "config step-layers=1 ahead=2
         submit r1 prompt=10 max=2
         step
         step
         step
         step 7
         step
         step
         step 8
         load",
        expect![[r#"
            > submit r1 prompt=10 max=2
              run step1: +slot0 | layers 0..1 | 0..10 @b0
              run step2: layers 1..2 | 0..10 @b0
            > step
              run step3: layers 2..3 | 0..10 @b0
            > step
              run step4: layers 3..4 | 0..10 @b0 → slot0
            > step
              run step5: layers 0..1 | 10 ← slot0 @b0
            > step 7
              token r1 choice0#0=t7 (queue 0us prefill 40000us)
              run step6: layers 1..2 | 10 ← slot0 @b0
            > step
              run step7: layers 2..3 | 10 ← slot0 @b0
            > step
              run step8: layers 3..4 | 10 ← slot0 @b0 → slot0
            > step 8
            > load
              running 1 waiting 0 (0 tokens) held 0; blocks free 15 cached 0 in use 1 quarantined 0
        "#]],
    );
}

/// Blocks of rows that are not wanted any more become free when the last step that has them has ended, not before.
#[test]
fn a_course_that_nobody_waits_for_ends_between_layers() {
    check(
        "config step-layers=1 ahead=2
         submit r1 prompt=40
         step
         cancel r1
         load
         step
         load
         step
         load",
        expect![[r#"
            > submit r1 prompt=40
              run step1: +slot0 | layers 0..1 | 0..40 @b0,b1,b2
              run step2: layers 1..2 | 0..40 @b0,b1,b2
            > step
              run step3: layers 2..3 | 0..40 @b0,b1,b2
            > cancel r1
              cancel step2
              cancel step3
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 13 cached 0 in use 0 quarantined 3
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 13 cached 0 in use 0 quarantined 3
            > step
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

/// One of two sequences has ended between layers: its rows go on, for they are in the backend, and so do its blocks.
#[test]
fn rows_of_who_has_ended_stay_in_the_course_of_the_others() {
    check(
        "config step-layers=2
         submit r1 prompt=20 +
         submit r2 prompt=20 max=1
         cancel r1
         load
         step
         load
         step 9 7
         load",
        expect![[r#"
            > submit r1 prompt=20 +
            > submit r2 prompt=20 max=1
              run step1: +slot0 +slot1 | layers 0..2 | 0..20 @b0,b1 | 0..20 @b2,b3
            > cancel r1
              over r1
            > load
              running 1 waiting 0 (20 tokens) held 0; blocks free 12 cached 0 in use 2 quarantined 2
            > step
              run step2: layers 2..4 | 0..20 @b0,b1 → slot0 | 0..20 @b2,b3 → slot1
            > load
              running 1 waiting 0 (20 tokens) held 0; blocks free 12 cached 0 in use 2 quarantined 2
            > step 9 7
              token r2 choice0#0=t7 Length (queue 0us prefill 20000us)
              over r2
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_step_between_that_fails_ends_everybody_in_the_course() {
    check(
        "config step-layers=2
         submit r1 prompt=20
         fail-step
         load",
        expect![[r#"
            > submit r1 prompt=20
              run step1: +slot0 | layers 0..2 | 0..20 @b0,b1
            > fail-step
              failed r1 internal: no device
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}
