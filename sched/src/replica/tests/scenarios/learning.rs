//! Orders and budgets by a latency model that the replica learns from its own steps.

use std::fmt::Write as _;

use expect_test::{Expect, expect};

use crate::cost::{CostModel, Fitted, StepWork};
use crate::replica::tests::script::{check, check_after};

/// Ends work that takes so many steps, on the device of the example.
fn took(work: &StepWork, steps: u64) -> String {
    let step = format!("step took={}us", Fitted::example().span_alone(work).us() / steps);
    vec![step; steps as usize].join("\n")
}

/// Prompts of other requests, one after the other.
fn prompts(config: &str, steps: u64) -> String {
    (1..=16).fold(config.to_owned(), |mut script, at: u32| {
        let steps = took(&StepWork::default().with_chunk(0..at), steps);
        write!(script, "\nsubmit r{} prompt={at} max=1\n{steps}", 100 + at).expect("a string takes everything");
        script
    })
}

/// As many decodes of another request.
fn decodes(steps: u64) -> String {
    let prompt = format!("submit r200 prompt=30 max=33\n{}", took(&StepWork::default().with_chunk(0..30), steps));
    let decode = |context| took(&StepWork::default().with_decode(context), steps);
    (31..=62).fold(prompt, |script, context| format!("{script}\n{}", decode(context)))
}

const DUE: &str = "submit r1 prompt=16 max=1 +
     submit r2 prompt=16 max=1 ttft=900ms +
     submit r3 prompt=16 max=1 ttft=300ms
     step
     step
     step";

#[test]
fn before_slack_is_known_prompts_come_as_they_arrived() {
    check(
        &format!("config rows=16 prefill=slack learned\n{DUE}"),
        expect![[r#"
        > submit r1 prompt=16 max=1 +
        > submit r2 prompt=16 max=1 ttft=900ms +
        > submit r3 prompt=16 max=1 ttft=300ms
          run step1: +slot0 | 0..16 @b0 → slot0
        > step
          token r1 choice0#0=t11 Length (queue 0us prefill 10000us)
          over r1
          run step2: +slot1 | 0..16 @b1 → slot1
        > step
          token r2 choice0#0=t6 Length (queue 10000us prefill 10000us)
          over r2
          run step3: +slot2 | 0..16 @b2 → slot2
        > step
          token r3 choice0#0=t13 Length (queue 20000us prefill 10000us)
          over r3
    "#]],
    );
}

#[test]
fn once_steps_have_run_the_prompt_with_the_least_slack_comes_first() {
    check_after(
        &prompts("config rows=16 prefill=slack learned", 1),
        DUE,
        expect![[r#"
        > submit r1 prompt=16 max=1 +
        > submit r2 prompt=16 max=1 ttft=900ms +
        > submit r3 prompt=16 max=1 ttft=300ms
          run step17: +slot0 | 0..16 @b1 → slot0
        > step
          token r3 choice0#0=t13 Length (queue 0us prefill 10000us)
          over r3
          run step18: +slot1 | 0..16 @b2 → slot1
        > step
          token r2 choice0#0=t6 Length (queue 10000us prefill 10000us)
          over r2
          run step19: +slot2 | 0..16 @b3 → slot2
        > step
          token r1 choice0#0=t11 Length (queue 20000us prefill 10000us)
          over r1
    "#]],
    );
}

const BUDGET: &str = "config rows=256 budget=auto learned context=4096 blocks=99";

/// Another prompt comes to a request that has a token every 10 ms. Beside a decode the example takes 4,100 us and 40 us
/// per prompt token, so about 145 of them have room.
fn check_beside_a_decode(before: &str, expected: Expect) {
    let script = "submit r1 prompt=20 max=9 tpot=10ms
         step
         submit r2 prompt=600 max=1
         step
         load";
    check_after(before, script, expected);
}

#[test]
fn before_the_times_of_steps_are_known_a_step_takes_on_what_has_room() {
    check_beside_a_decode(
        BUDGET,
        expect![[r#"
        > submit r1 prompt=20 max=9 tpot=10ms
          run step1: +slot0 | 0..20 @b0,b1 → slot0
        > step
          token r1 choice0#0=t49 (queue 0us prefill 10000us)
          run step2: 20 @b0,b1 → slot0
        > submit r2 prompt=600 max=1
        > step
          token r1 choice0#1=t36
          run step3: 21 @b0,b1 → slot0 | 0..255 @b2,b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15,b16,b17
        > load
          running 2 waiting 0 (600 tokens) held 0; blocks free 59 cached 0 in use 40 quarantined 0
    "#]],
    );
}

#[test]
fn prompts_alone_do_not_tell_what_a_step_beside_decodes_takes() {
    check_beside_a_decode(
        &prompts(BUDGET, 1),
        expect![[r#"
        > submit r1 prompt=20 max=9 tpot=10ms
          run step17: +slot0 | 0..20 @b1,b2 → slot0
        > step
          token r1 choice0#0=t49 (queue 0us prefill 10000us)
          run step18: 20 @b1,b2 → slot0
        > submit r2 prompt=600 max=1
        > step
          token r1 choice0#1=t36
          run step19: 21 @b1,b2 → slot0 | 0..255 @b3,b4,b5,b6,b7,b8,b9,b10,b11,b12,b13,b14,b15,b16,b17,b18
        > load
          running 2 waiting 0 (600 tokens) held 0; blocks free 58 cached 1 in use 40 quarantined 0
    "#]],
    );
}

#[test]
fn once_they_are_known_the_budget_of_a_step_keeps_the_target_of_those_that_run() {
    check_beside_a_decode(
        &format!("{}\n{}", prompts(BUDGET, 1), decodes(1)),
        expect![[r#"
        > submit r1 prompt=20 max=9 tpot=10ms
          run step50: +slot0 | 0..20 @b4,b5 → slot0
        > step
          token r1 choice0#0=t49 (queue 0us prefill 10000us)
          run step51: 20 @b4,b5 → slot0
        > submit r2 prompt=600 max=1
        > step
          token r1 choice0#1=t36
          run step52: 21 @b4,b5 → slot0 | 0..144 @b6,b7,b8,b9,b10,b11,b12,b13,b14
        > load
          running 2 waiting 0 (600 tokens) held 0; blocks free 55 cached 4 in use 40 quarantined 0
    "#]],
    );
}

/// Each step but the first is submitted while another one runs, which is not its own time.
#[test]
fn a_step_that_waits_behind_another_is_not_longer_for_it() {
    let config = format!("{BUDGET} ahead=2");
    check_beside_a_decode(
        &format!("{}\n{}", prompts(&config, 1), decodes(1)),
        expect![[r#"
        > submit r1 prompt=20 max=9 tpot=10ms
          run step50: +slot0 | 0..20 @b4,b5 → slot0
          run step51: 20 ← slot0 @b4,b5 → slot0
        > step
          token r1 choice0#0=t49 (queue 0us prefill 10000us)
          run step52: 21 ← slot0 @b4,b5 → slot0
        > submit r2 prompt=600 max=1
        > step
          token r1 choice0#1=t36
          run step53: 22 ← slot0 @b4,b5 → slot0 | 0..144 @b6,b7,b8,b9,b10,b11,b12,b13,b14
        > load
          running 1 waiting 1 (600 tokens) held 0; blocks free 55 cached 4 in use 40 quarantined 0
    "#]],
    );
}

/// Each step runs half of the layers, in half of the time.
#[test]
fn steps_over_some_of_the_layers_tell_about_steps_over_all() {
    let config = format!("{BUDGET} step-layers=2");
    check_beside_a_decode(
        &format!("{}\n{}", prompts(&config, 2), decodes(2)),
        expect![[r#"
        > submit r1 prompt=20 max=9 tpot=10ms
          run step99: +slot0 | layers 0..2 | 0..20 @b4,b5
        > step
          run step100: layers 2..4 | 0..20 @b4,b5 → slot0
        > submit r2 prompt=600 max=1
        > step
          token r1 choice0#0=t49 (queue 0us prefill 20000us)
          run step101: layers 0..2 | 20 @b4,b5 | 0..144 @b6,b7,b8,b9,b10,b11,b12,b13,b14
        > load
          running 2 waiting 0 (600 tokens) held 0; blocks free 55 cached 4 in use 40 quarantined 0
    "#]],
    );
}
