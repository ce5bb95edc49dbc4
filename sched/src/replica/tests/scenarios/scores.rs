//! Log-probabilities of prompt tokens.

use expect_test::expect;

use crate::replica::tests::script::check;

/// Each row of the prompt wants logits, of which a step has eight here, less one for each other sequence.
#[test]
fn a_scored_prompt_is_computed_in_full_in_as_many_rows_as_have_logits() {
    check(
        "submit r1 prompt=32 family=1 max=1
         step
         submit r2 prompt=20 family=1 max=1 scored
         submit r3 prompt=20 family=3 max=1
         step
         step
         step",
        expect![[r#"
            > submit r1 prompt=32 family=1 max=1
              run step1: +slot0 | 0..32 @b0,b1 → slot0
            > step
              token r1 choice0#0=t26 Length (queue 0us prefill 10000us)
              over r1
            > submit r2 prompt=20 family=1 max=1 scored
              run step2: 0..8 @b2
            > submit r3 prompt=20 family=3 max=1
            > step
              scored r2 1..9
              run step3: +slot1 | 8..15 @b2 | 0..20 @b4,b5 → slot1
            > step
              scored r2 9..16
              token r3 choice0#0=t33 Length (queue 10000us prefill 10000us)
              over r3
              run step4: +slot0 | 15..20 @b2,b3 → slot0
            > step
              scored r2 16..20
              token r2 choice0#0=t49 Length (queue 0us prefill 30000us)
              over r2
        "#]],
    );
}

#[test]
fn a_resumed_choice_is_not_scored_again_and_reuses_blocks() {
    check(
        "submit r1 prompt=32 family=1 max=1
         step
         submit r2.1 prompt=32 family=1 resume=2 max=5 scored
         step",
        expect![[r#"
            > submit r1 prompt=32 family=1 max=1
              run step1: +slot0 | 0..32 @b0,b1 → slot0
            > step
              token r1 choice0#0=t26 Length (queue 0us prefill 10000us)
              over r1
            > submit r2.1 prompt=32 family=1 resume=2 max=5 scored
              run step2: +slot0 | 32..34 @b0,b1,b2 → slot0
            > step
              token r2.1 choice0#2=t33 (queue 0us prefill 10000us cached 32)
              run step3: 34 @b0,b1,b2 → slot0
        "#]],
    );
}

#[test]
fn a_prompt_of_one_token_has_no_score() {
    check(
        "submit r1 prompt=1 max=1 scored
           step",
        expect![[r#"
            > submit r1 prompt=1 max=1 scored
              run step1: +slot0 | 0 @b0 → slot0
            > step
              token r1 choice0#0=t24 Length (queue 0us prefill 10000us)
              over r1
        "#]],
    );
}

#[test]
fn a_giver_scores_before_it_commits() {
    check(
        "submit r1 prompt=8 give max=4 scored
         step",
        expect![[r#"
            > submit r1 prompt=8 give max=4 scored
              grant L1 b0
              offered r1 L1 b0
              run step1: +slot0 | 0..8 @b0 → slot0
            > step
              scored r1 1..8
              committed r1 choice0=t33 (queue 0us prefill 10000us)
        "#]],
    );
}
