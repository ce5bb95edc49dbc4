//! Lives of requests that lose workers or KV on the way.

use expect_test::expect;

use super::script::check;

#[test]
fn prefill_lost_before_the_first_token_goes_elsewhere_and_stale_messages_are_dropped() {
    check(
        "ppd",
        1,
        3,
        "0 offered 1
         lost 0
         0 committed 1 50
         1 offered 2
         1 committed 2 50
         2 failed 1 cancelled
         2 token 1 0 1 99
         2 token 2 0 1 51
         2 token 2 0 1 51
         2 token 2 0 2 52!
         2 token 2 0 2 52!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 2 <- offer 1 0:[] of host100:1
            lost 0                      | 2 <- cancel 1; retry after worker_lost; 1 <- Give 2 0:[]
            0 committed 1 50            |
            1 offered 2                 | 2 <- offer 2 0:[] of host101:1
            1 committed 2 50            | deliver 0#0=50 first; 2 <- commit 2 [50]
            2 failed 1 cancelled        |
            2 token 1 0 1 99            |
            2 token 2 0 1 51            | deliver 0#1=51 joined
            2 token 2 0 1 51            |
            2 token 2 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
            2 token 2 0 2 52!           |
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn attempts_are_bounded() {
    check(
        "pd",
        1,
        3,
        "0 failed 1 worker_lost\n 0 failed 2 worker_lost\n at 13\n 0 failed 3 worker_lost",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 failed 1 worker_lost      | retry after worker_lost; 0 <- Give 2 0:[]
            0 failed 2 worker_lost      | retry after worker_lost
            at 13                       | 0 <- Give 3 0:[]
            0 failed 3 worker_lost      | failed worker_lost: worker says so
            bound [], next timeout never
        "#]],
    );
}

/// Choice 0 has lost too often, choice 1 could be tried again, and one worker had both.
#[test]
fn nothing_follows_when_one_of_several_losses_ends_the_request() {
    check(
        "aa",
        2,
        9,
        "0 token 1 0 0 50
         0 token 1 1 0 60
         lost 0
         1 failed 2 worker_lost
         1 failed 3 worker_lost
         at 20
         1 token 5 1 1 61
         lost 1",
        &expect![[r#"
            start                       | 0 <- Whole 1 0:[] 1:[]
            0 token 1 0 0 50            | deliver 0#0=50
            0 token 1 1 0 60            | deliver 1#0=60
            lost 0                      | retry after worker_lost; 1 <- Whole 2 0:[50]; 1 <- Whole 3 1:[60]
            1 failed 2 worker_lost      | retry after worker_lost
            1 failed 3 worker_lost      | retry after worker_lost
            at 20                       | 1 <- Whole 4 0:[50]; 1 <- Whole 5 1:[60]
            1 token 5 1 1 61            | deliver 1#1=61 joined
            lost 1                      | failed worker_lost: worker1 was lost
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_refused_leg_pauses_and_avoids_who_refused_it() {
    check(
        "ppd",
        1,
        3,
        "0 failed 1 overloaded\n at 5\n at 11\n 1 failed 2 overloaded\n at 32",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 failed 1 overloaded       | retry after overloaded
        at 5                        |
        at 11                       | 1 <- Give 2 0:[]
        1 failed 2 overloaded       | retry after overloaded
        at 32                       | 0 <- Give 3 0:[]
        bound [0 3], next timeout 1000 ms
    "#]],
    );
}

#[test]
fn failures_that_no_other_attempt_can_heal_end_the_request() {
    check(
        "pd",
        1,
        3,
        "0 offered 1\n 0 failed 1 too_long\n 0 committed 1 50",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 failed 1 too_long         | 1 <- cancel 1; failed too_long: worker says so
        0 committed 1 50            |
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn decode_lost_resumes_each_unfinished_choice_with_its_own_tokens() {
    check(
        "pdd",
        3,
        4,
        "0 offered 1
         0 committed 1 50 60 70!
         1 token 1 0 1 51
         lost 1
         0 offered 2
         0 offered 3
         0 committed 3 61
         0 committed 2 52
         2 token 3 1 2 62!
         2 token 2 0 3 53!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[] 1:[] 2:[]
            0 offered 1                 | 1 <- offer 1 0:[] 1:[] 2:[] of host100:1
            0 committed 1 50 60 70!     | deliver 0#0=50 first; deliver 1#0=60; deliver 2#0=70; finish 2 Stop; 1 <- commit 1 [50 60 70!]
            1 token 1 0 1 51            | deliver 0#1=51 joined
            lost 1                      | retry after worker_lost; 0 <- Give 2 0:[50 51]; 0 <- Give 3 1:[60]
            0 offered 2                 | 2 <- offer 2 0:[50 51] of host100:1
            0 offered 3                 | 2 <- offer 3 1:[60] of host100:1
            0 committed 3 61            | deliver 1#1=61 first; 2 <- commit 3 [61]
            0 committed 2 52            | deliver 0#2=52 first; 2 <- commit 2 [52]
            2 token 3 1 2 62!           | deliver 1#2=62; finish 1 Stop
            2 token 2 0 3 53!           | deliver 0#3=53; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn the_last_token_alone_is_generated_where_it_is_prefilled() {
    check(
        "pdd",
        1,
        3,
        "0 offered 1\n 0 committed 1 50\n 1 token 1 0 1 51\n lost 1\n 0 token 2 0 2 52!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 token 1 0 1 51            | deliver 0#1=51 joined
            lost 1                      | retry after worker_lost; 0 <- Whole 2 0:[50 51]
            0 token 2 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn kv_lost_on_its_way_is_a_new_attempt_over_what_was_delivered() {
    check(
        "pd",
        1,
        5,
        "0 offered 1
         0 committed 1 50
         1 failed 1 kv_lost
         0 reader-lost 1
         0 offered 2
         0 committed 2 51
         1 token 2 0 2 52!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
            0 reader-lost 1             |
            0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
            0 committed 2 51            | deliver 0#1=51 first; 1 <- commit 2 [51]
            1 token 2 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_reader_lost_before_it_was_told_is_replaced_within_the_attempt() {
    check(
        "pdd",
        1,
        3,
        "lost 1\n 0 offered 1\n 0 committed 1 50\n 2 token 1 0 1 51!",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        lost 1                      |
        0 offered 1                 | 2 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 2 <- commit 1 [50]
        2 token 1 0 1 51!           | deliver 0#1=51 joined; finish 0 Stop; done
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn offer_and_commit_wait_for_a_reader() {
    check(
        "pd",
        2,
        3,
        "lost 1
         0 offered 1
         0 committed 1 50 60
         stop 1
         join d
         2 token 1 0 1 51!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[] 1:[]
            lost 1                      |
            0 offered 1                 |
            0 committed 1 50 60         | deliver 0#0=50 first; deliver 1#0=60
            stop 1                      | finish 1 Stop
            join d                      | 2 <- offer 1 0:[] 1:[] of host100:1; 2 <- commit 1 [50 60!]
            2 token 1 0 1 51!           | deliver 0#1=51 joined; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_reader_lost_while_prefill_runs_is_a_new_attempt() {
    check(
        "pdd",
        1,
        3,
        "0 offered 1\n lost 1\n 0 committed 1 50\n 0 offered 2",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        lost 1                      | 0 <- cancel 1; retry after worker_lost; 0 <- Give 2 0:[]
        0 committed 1 50            |
        0 offered 2                 | 2 <- offer 2 0:[] of host100:1
        bound [0 2, 2 2], next timeout 1000 ms
    "#]],
    );
}

#[test]
fn a_giver_lost_after_commit_leaves_the_verdict_to_the_reader() {
    check(
        "ppd",
        1,
        3,
        "0 offered 1\n 0 committed 1 50\n lost 0\n 2 token 1 0 1 51!",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 2 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 2 <- commit 1 [50]
        lost 0                      |
        2 token 1 0 1 51!           | deliver 0#1=51 joined; finish 0 Stop; done
        bound [], next timeout never
    "#]],
    );
    check(
        "ppd",
        1,
        3,
        "0 offered 1\n 0 committed 1 50\n lost 0\n 2 failed 1 kv_lost",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 2 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 2 <- commit 1 [50]
        lost 0                      |
        2 failed 1 kv_lost          | retry after kv_lost; 1 <- Give 2 0:[50]
        bound [1 2], next timeout 1000 ms
    "#]],
    );
}

/// Found by trying: such a request had no answer until its deadline, ten minutes later, while new ones were refused.
#[test]
fn after_a_loss_it_waits_for_a_while() {
    check(
        "a",
        1,
        9,
        "0 token 1 0 0 50\n lost 0\n at 501\n at 502",
        &expect![[r#"
            start                       | 0 <- Whole 1 0:[]
            0 token 1 0 0 50            | deliver 0#0=50
            lost 0                      | retry after worker_lost
            at 501                      |
            at 502                      | failed unavailable: no worker could take the request within 0.5 s: it waited for a worker
            bound [], next timeout never
        "#]],
    );
    check(
        "a",
        1,
        9,
        "0 token 1 0 0 50\n at 1000",
        &expect![[r#"
            start                       | 0 <- Whole 1 0:[]
            0 token 1 0 0 50            | deliver 0#0=50
            at 1000                     | 0 <- cancel 1; failed deadline_exceeded: the request did not end within 1 s
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_giver_that_drains_still_has_its_offers_passed_on() {
    check(
        "pd",
        1,
        2,
        "drain 0
         0 offered 1
         0 committed 1 50
         1 token 1 0 1 51!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            drain 0                     |
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 token 1 0 1 51!           | deliver 0#1=51 joined; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

/// Found by reading: one worker with a broken device failed clients' requests although others were well.
#[test]
fn a_leg_that_a_worker_could_not_compute_is_tried_once_elsewhere() {
    check(
        "aa",
        1,
        3,
        "0 token 1 0 0 50\n 0 failed 1 internal\n 1 token 2 0 1 51\n 1 token 2 0 2 52!",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[]
        0 token 1 0 0 50            | deliver 0#0=50
        0 failed 1 internal         | retry after internal; 1 <- Whole 2 0:[50]
        1 token 2 0 1 51            | deliver 0#1=51 joined
        1 token 2 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
        bound [], next timeout never
    "#]],
    );
    check(
        "ppd",
        1,
        3,
        "0 failed 1 internal\n 1 failed 2 internal",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 failed 1 internal         | retry after internal; 1 <- Give 2 0:[]
        1 failed 2 internal         | failed internal: worker says so
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn a_leg_that_only_one_worker_could_compute_fails_at_once() {
    check(
        "pd",
        1,
        3,
        "0 failed 1 internal",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 failed 1 internal         | failed internal: worker says so
        bound [], next timeout never
    "#]],
    );
}

/// Found by reading: such a request got 499 and was booked as one whose client had left.
#[test]
fn a_request_that_workers_cancel_again_and_again_has_lost_its_workers() {
    check(
        "a",
        1,
        3,
        "0 failed 1 cancelled\n 0 failed 2 cancelled\n at 13\n 0 failed 3 cancelled",
        &expect![[r#"
            start                       | 0 <- Whole 1 0:[]
            0 failed 1 cancelled        | retry after cancelled; 0 <- Whole 2 0:[]
            0 failed 2 cancelled        | retry after cancelled
            at 13                       | 0 <- Whole 3 0:[]
            0 failed 3 cancelled        | failed worker_lost: worker says so
            bound [], next timeout never
        "#]],
    );
}
