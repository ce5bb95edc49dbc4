//! Lives of requests whose hand-offs fail: refused offers, pairs that lose what they carry, and how that ends.

use expect_test::expect;

use super::script::{check, check_local};

/// The first tokens come from givers: however many of them arrive, the hand-offs behind them are lost.
#[test]
fn hand_offs_that_are_lost_in_a_row_end_the_request_although_each_brought_a_token() {
    check(
        "pd",
        1,
        9,
        "0 offered 1
         0 committed 1 50
         1 failed 1 kv_lost
         0 offered 2
         0 committed 2 51
         1 failed 2 kv_lost
         at 20
         0 offered 3
         0 committed 3 52
         1 failed 3 kv_lost",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
            0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
            0 committed 2 51            | deliver 0#1=51 first; 1 <- commit 2 [51]
            1 failed 2 kv_lost          | 0 <- cancel 2; retry after kv_lost
            at 20                       | 0 <- Give 3 0:[50 51]
            0 offered 3                 | 1 <- offer 3 0:[50 51] of host100:1
            0 committed 3 52            | deliver 0#2=52 first; 1 <- commit 3 [52]
            1 failed 3 kv_lost          | 0 <- cancel 3; no hand-off after kv_lost: failed; failed kv_lost: 3 attempts in a row were lost, the last one on its way to decode: worker says so
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_token_of_the_reader_begins_the_count_anew() {
    check(
        "pd",
        1,
        9,
        "0 offered 1
         0 committed 1 50
         1 failed 1 kv_lost
         0 offered 2
         0 committed 2 51
         1 token 2 0 2 52
         1 failed 2 kv_lost
         0 offered 3
         0 committed 3 53
         1 failed 3 kv_lost
         at 30
         0 offered 4",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
            0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
            0 committed 2 51            | deliver 0#1=51 first; 1 <- commit 2 [51]
            1 token 2 0 2 52            | deliver 0#2=52
            1 failed 2 kv_lost          | retry after kv_lost; 0 <- Give 3 0:[50 51 52]
            0 offered 3                 | 1 <- offer 3 0:[50 51 52] of host100:1
            0 committed 3 53            | deliver 0#3=53 first; 1 <- commit 3 [53]
            1 failed 3 kv_lost          | 0 <- cancel 3; retry after kv_lost
            at 30                       | 0 <- Give 4 0:[50 51 52 53]
            0 offered 4                 | 1 <- offer 4 0:[50 51 52 53] of host100:1
            bound [0 4, 1 4], next timeout 1000 ms
        "#]],
    );
}

#[test]
fn a_pair_that_lost_a_hand_off_is_avoided() {
    check(
        "ppdd",
        1,
        9,
        "0 offered 1
         0 committed 1 50
         2 failed 1 kv_lost
         1 offered 2
         1 committed 2 51
         3 failed 2 kv_lost
         at 20
         0 offered 3
         0 committed 3 52
         3 token 3 0 3 53!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 2 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 2 <- commit 1 [50]
            2 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 1 <- Give 2 0:[50]
            1 offered 2                 | 3 <- offer 2 0:[50] of host101:1
            1 committed 2 51            | deliver 0#1=51 first; 3 <- commit 2 [51]
            3 failed 2 kv_lost          | 1 <- cancel 2; retry after kv_lost
            at 20                       | 0 <- Give 3 0:[50 51]
            0 offered 3                 | 3 <- offer 3 0:[50 51] of host100:1
            0 committed 3 52            | deliver 0#2=52 first; 3 <- commit 3 [52]
            3 token 3 0 3 53!           | deliver 0#3=53; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn a_reader_that_refuses_costs_no_prefill() {
    check(
        "pdd",
        1,
        9,
        "0 offered 1
         1 failed 1 overloaded
         0 committed 1 50
         at 12
         1 failed 1 overloaded
         2 token 1 0 1 51!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            1 failed 1 overloaded       | retry after overloaded
            0 committed 1 50            | deliver 0#0=50 first
            at 12                       | 2 <- offer 1 0:[] of host100:1; 2 <- commit 1 [50]
            1 failed 1 overloaded       |
            2 token 1 0 1 51!           | deliver 0#1=51 joined; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
    check(
        "pd",
        2,
        9,
        "0 offered 1
         0 committed 1 50 60
         1 failed 1 unavailable
         stop 1
         at 13
         1 failed 1 unavailable
         at 40
         1 failed 1 unavailable",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[] 1:[]
            0 offered 1                 | 1 <- offer 1 0:[] 1:[] of host100:1
            0 committed 1 50 60         | deliver 0#0=50 first; deliver 1#0=60; 1 <- commit 1 [50 60]
            1 failed 1 unavailable      | retry after unavailable
            stop 1                      | finish 1 Stop
            at 13                       | 1 <- offer 1 0:[] 1:[] of host100:1; 1 <- commit 1 [50 60!]
            1 failed 1 unavailable      | retry after unavailable
            at 40                       | 1 <- offer 1 0:[] 1:[] of host100:1; 1 <- commit 1 [50 60!]
            1 failed 1 unavailable      | 0 <- cancel 1; failed unavailable: worker says so
            bound [], next timeout never
        "#]],
    );
}

/// A reader that has the offer has bound the giver's lease to itself: it serves nobody else any more.
#[test]
fn a_hand_off_that_fails_behind_its_offer_is_prefilled_anew_and_strains_its_pair() {
    check(
        "pdd",
        1,
        9,
        "0 offered 1
         0 committed 1 50
         1 failed 1 kv_lost
         0 offered 2
         0 committed 2 51
         2 token 2 0 2 52!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
            0 offered 2                 | 2 <- offer 2 0:[50] of host100:1
            0 committed 2 51            | deliver 0#1=51 first; 2 <- commit 2 [51]
            2 token 2 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn an_offer_goes_to_who_takes_it_now() {
    check(
        "pdd",
        1,
        9,
        "drain 1\n 0 offered 1",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        drain 1                     |
        0 offered 1                 | 2 <- offer 1 0:[] of host100:1
        bound [0 1, 2 1], next timeout 1000 ms
    "#]],
    );
    check(
        "pdd",
        1,
        9,
        "unlink 1\n 0 offered 1",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        unlink 1                    |
        0 offered 1                 | 2 <- offer 1 0:[] of host100:1
        bound [0 1, 2 1], next timeout 1000 ms
    "#]],
    );
    check(
        "pd",
        1,
        9,
        "drain 1\n 0 offered 1\n join d",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        drain 1                     |
        0 offered 1                 |
        join d                      | 2 <- offer 1 0:[] of host100:1
        bound [0 1, 2 1], next timeout 1000 ms
    "#]],
    );
}

#[test]
fn lost_hand_offs_are_prefilled_locally_where_that_is_allowed() {
    let lost = "0 offered 1
         0 committed 1 50
         1 failed 1 kv_lost
         0 offered 2
         1 failed 2 kv_lost
         at 20
         0 offered 3
         1 failed 3 kv_lost";
    check_local(
        "pd",
        1,
        9,
        &format!("{lost}\n 1 token 4 0 1 51\n 1 token 4 0 2 52!"),
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
        1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
        0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
        1 failed 2 kv_lost          | 0 <- cancel 2; retry after kv_lost
        at 20                       | 0 <- Give 3 0:[50]
        0 offered 3                 | 1 <- offer 3 0:[50] of host100:1
        1 failed 3 kv_lost          | 0 <- cancel 3; no hand-off after kv_lost: local_prefill; 1 <- Whole 4 0:[50]
        1 token 4 0 1 51            | deliver 0#1=51 joined
        1 token 4 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
        bound [], next timeout never
    "#]],
    );
    check_local(
        "pd",
        1,
        9,
        &format!("{lost}\n 1 failed 4 worker_lost"),
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
        1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
        0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
        1 failed 2 kv_lost          | 0 <- cancel 2; retry after kv_lost
        at 20                       | 0 <- Give 3 0:[50]
        0 offered 3                 | 1 <- offer 3 0:[50] of host100:1
        1 failed 3 kv_lost          | 0 <- cancel 3; no hand-off after kv_lost: local_prefill; 1 <- Whole 4 0:[50]
        1 failed 4 worker_lost      | failed worker_lost: worker says so
        bound [], next timeout never
    "#]],
    );
    check_local(
        "pd",
        1,
        9,
        &lost.replace("1 failed 3 kv_lost", "lost 1"),
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
        1 failed 1 kv_lost          | 0 <- cancel 1; retry after kv_lost; 0 <- Give 2 0:[50]
        0 offered 2                 | 1 <- offer 2 0:[50] of host100:1
        1 failed 2 kv_lost          | 0 <- cancel 2; retry after kv_lost
        at 20                       | 0 <- Give 3 0:[50]
        0 offered 3                 | 1 <- offer 3 0:[50] of host100:1
        lost 1                      | 0 <- cancel 3; no hand-off after worker_lost: failed; failed worker_lost: 3 attempts in a row were lost, the last one on its way to decode: worker1 was lost
        bound [], next timeout never
    "#]],
    );
}
