//! Several choices: one prefill, one row of logits, then forked tables.

use expect_test::expect;

use crate::replica::tests::script::check;

#[test]
fn choices_share_full_blocks_and_copy_a_partly_filled_one() {
    check(
        "submit r1 prompt=20 n=3 max=3
         step 1 2 3
         step 4 5 6
         load
         step 7 8 9
         load",
        expect![[r#"
            > submit r1 prompt=20 n=3 max=3
              run step1: +slot0 +slot1 +slot2 | 0..20 @b0,b1 → slot0,slot1,slot2
            > step 1 2 3
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              token r1 choice1#0=t2
              token r1 choice2#0=t3
              run step2: copy b1>b2 copy b1>b3 | 20 @b0,b2 → slot0 | 20 @b0,b3 → slot1 | 20 @b0,b1 → slot2
            > step 4 5 6
              token r1 choice0#1=t4
              token r1 choice1#1=t5
              token r1 choice2#1=t6
              run step3: 21 @b0,b2 → slot0 | 21 @b0,b3 → slot1 | 21 @b0,b1 → slot2
            > load
              running 3 waiting 0 (0 tokens) held 0; blocks free 12 cached 0 in use 4 quarantined 0
            > step 7 8 9
              token r1 choice0#2=t7 Length
              token r1 choice1#2=t8 Length
              token r1 choice2#2=t9 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 15 cached 1 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_choice_may_end_with_its_first_token() {
    check(
        "submit r1 prompt=20 n=2 max=3 stop=7
         step 7 8
         step 7",
        expect![[r#"
            > submit r1 prompt=20 n=2 max=3 stop=7
              run step1: +slot0 +slot1 | 0..20 @b0,b1 → slot0,slot1
            > step 7 8
              token r1 choice0#0=t7 Stop (queue 0us prefill 10000us)
              token r1 choice1#0=t8
              run step2: 20 @b0,b1 → slot1
            > step 7
              token r1 choice1#1=t7 Stop
              over r1
        "#]],
    );
}

#[test]
fn one_choice_is_cancelled_while_the_prompt_runs() {
    check(
        "submit r1 prompt=4 n=2 max=2
         cancel r1 0
         step 1 2
         cancel r1 0
         step 3
         load",
        expect![[r#"
            > submit r1 prompt=4 n=2 max=2
              run step1: +slot0 +slot1 | 0..4 @b0 → slot0,slot1
            > cancel r1 0
            > step 1 2
              token r1 choice1#0=t2 (queue 0us prefill 10000us)
              run step2: 4 @b0 → slot1
            > cancel r1 0
            > step 3
              token r1 choice1#1=t3 Length
              over r1
            > load
              running 0 waiting 0 (0 tokens) held 0; blocks free 16 cached 0 in use 0 quarantined 0
        "#]],
    );
}

#[test]
fn a_block_that_is_being_copied_is_not_reused_when_its_owner_is_cancelled() {
    check(
        "config role=prefill rows=8 seats=4
         submit r1 prompt=4 n=2 max=9 +
         submit r2 prompt=40 max=1
         step 1 2
         load
         cancel r1 1
         load
         step 3
         load",
        expect![[r#"
            > submit r1 prompt=4 n=2 max=9 +
            > submit r2 prompt=40 max=1
              run step1: +slot0 +slot1 | 0..4 @b0 → slot0,slot1 | 0..4 @b1
            > step 1 2
              token r1 choice0#0=t1 (queue 0us prefill 10000us)
              token r1 choice1#0=t2
              run step2: copy b0>b4 | 4..11 @b1 | 4 @b4 → slot0
            > load
              running 3 waiting 0 (36 tokens) held 0; blocks free 11 cached 0 in use 5 quarantined 0
            > cancel r1 1
            > load
              running 2 waiting 0 (36 tokens) held 0; blocks free 11 cached 0 in use 4 quarantined 1
            > step 3
              token r1 choice0#1=t3
              run step3: 11..18 @b1,b2 | 5 @b4 → slot0
            > load
              running 2 waiting 0 (29 tokens) held 0; blocks free 12 cached 0 in use 4 quarantined 0
        "#]],
    );
}
