//! Scenarios of the controllers, one per behaviour.

use expect_test::expect;

use super::script::check;

#[test]
fn a_fixed_share_is_rounded_and_stays() {
    check(
        "fixed prefill=62
         after 9s
         first 3000ms x20
         ended missed=20
         after 1s",
        expect![[r#"
            0 s: 60% (for 62%) configured
            10 s: 60% (for 62%) configured, measured 3000/- ms; 0 of 20 met
        "#]],
    );
}

#[test]
fn oversubscribed_is_a_share() {
    check(
        "oversubscribed
         after 10s",
        expect![[r#"
            0 s: all configured
            10 s: all configured; 0 of 0 met
        "#]],
    );
}

#[test]
fn late_first_tokens_give_prefill_more_and_slow_tokens_decode() {
    check(
        "feedback ttft=1000 tpot=100
         after 9s
         first 1300ms x20
         decoded 60ms x20
         ended met=20 missed=30
         after 9s
         first 800ms x20
         decoded 105ms x20
         ended met=20 missed=30
         after 9s
         first 850ms x20
         decoded 90ms x20
         ended met=50",
        expect![[r#"
            0 s: 50% configured
            9 s: 50% -> 65% slo_missed_prefill, measured 1300/60 ms, predicted 813/79 ms; 20 of 50 met
            18 s: 65% -> 60% slo_missed_decode, measured 800/105 ms, for 813/79 ms, predicted 915/89 ms; 20 of 50 met
            27 s: 60% targets_met, measured 850/90 ms, for 915/89 ms, predicted 852/89 ms; 50 of 50 met
        "#]],
    );
}

#[test]
fn when_both_targets_are_missed_nothing_moves() {
    // The second defect of the printed algorithm: its code would give prefill more.
    check(
        "feedback ttft=1000 tpot=100
         after 9s
         first 1300ms x20
         decoded 110ms x20
         ended missed=50
         after 9s
         first 1300ms x20
         decoded 110ms x20
         ended missed=50",
        expect![[r#"
            0 s: 50% configured
            9 s: 50% infeasible, measured 1300/110 ms, predicted 1300/110 ms; 0 of 50 met
            18 s: 50% infeasible, measured 1300/110 ms, for 1300/110 ms, predicted 1300/110 ms; 0 of 50 met
        "#]],
    );
}

#[test]
fn where_either_lane_has_failed_next_to_the_other_no_share_is_left() {
    check(
        "feedback ttft=1000 tpot=100
         after 9s
         first 1050ms x20
         decoded 98ms x20
         after 1s
         after 9s
         first 900ms x20
         decoded 104ms x20
         after 1s
         after 9s
         first 900ms x20
         decoded 104ms x20
         after 1s",
        expect![[r#"
            0 s: 50% configured
            10 s: 50% -> 55% slo_missed_prefill, measured 1050/98 ms, predicted 875/106 ms; 0 of 0 met
            20 s: 55% infeasible, measured 900/104 ms, for 875/106 ms, predicted 900/104 ms; 0 of 0 met
            30 s: 55% infeasible, measured 900/104 ms, for 900/104 ms, predicted 900/104 ms; 0 of 0 met
        "#]],
    );
}

#[test]
fn a_prompt_that_nobody_serves_is_late_and_too_few_requests_are_nothing() {
    check(
        "feedback ttft=1000 tpot=100
         after 9s
         first 3000ms x2
         decoded 300ms x2
         after 1s
         waiting 5s
         after 10s",
        expect![[r#"
            0 s: 50% configured
            10 s: 50% too_few_samples; 0 of 0 met
            20 s: 50% -> 80% slo_missed_prefill; 0 of 0 met
        "#]],
    );
}

#[test]
fn a_pinned_share_stays_until_it_is_released() {
    check(
        "feedback ttft=1000 tpot=100
         pin 62%
         after 9s
         first 3000ms x20
         decoded 10ms x20
         ended missed=50
         pin all
         release
         release
         after 9s
         first 3000ms x20
         decoded 10ms x20
         ended missed=50",
        expect![[r#"
            0 s: 50% configured
            0 s: 50% -> 60% (for 62%) pinned
            9 s: 60% (for 62%) pinned, measured 3000/10 ms; 0 of 50 met
            9 s: 60% -> all pinned
            9 s: all -> 50% released
            18 s: 50% -> 80% slo_missed_prefill, measured 3000/10 ms, predicted 1364/21 ms; 0 of 50 met
        "#]],
    );
}

#[test]
fn predictions_favour_prefill_until_the_pool_is_full() {
    check(
        "predictive
         prefill tokens=500 44ms x10
         decode batch=8 10ms x10
         after 250ms
         prefill tokens=500 44ms x10
         decode batch=8 90ms x10
         after 250ms
         kv 70%
         prefill tokens=500 44ms x10
         decode batch=8 90ms x10
         after 250ms
         kv 66%
         prefill tokens=500 44ms x10
         decode batch=8 90ms x10
         after 250ms
         kv 64%
         prefill tokens=500 44ms x10
         decode batch=8 90ms x10
         after 250ms
         after 250ms",
        expect![[r#"
            0 s: 50% configured
            0.25 s: 50% -> 10% rebalanced, measured 44/10 ms, predicted 220/6 ms by 11 calls
            0.5 s: 10% balanced, measured 44/90 ms, for 220/6 ms, predicted 220/6 ms by 4 calls
            0.75 s: 10% -> 75% kv_pressure, measured 44/90 ms, for 220/6 ms, predicted 29/20 ms by 16 calls
            1 s: 75% balanced, measured 44/90 ms, for 29/20 ms, predicted 29/20 ms by 4 calls
            1.25 s: 75% -> 10% rebalanced, measured 44/90 ms, for 29/20 ms, predicted 220/6 ms by 16 calls
            1.5 s: 10% too_few_samples, for 220/6 ms
        "#]],
    );
}
