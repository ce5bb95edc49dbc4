//! Lives of requests to which nothing bad happens, and the messages that no honest worker sends.

use expect_test::expect;

use super::script::check;

#[test]
fn a_request_is_handed_over_and_ends() {
    check(
        "pd",
        1,
        3,
        "0 offered 1
         0 committed 1 50
         0 handed 1
         1 token 1 0 1 51
         1 token 1 0 2 52!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
            0 handed 1                  |
            1 token 1 0 1 51            | deliver 0#1=51 joined
            1 token 1 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn an_aggregated_worker_runs_it_whole() {
    check(
        "a",
        1,
        3,
        "0 token 1 0 0 50\n 0 token 1 0 1 51\n 0 token 1 0 2 52!",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[]
        0 token 1 0 0 50            | deliver 0#0=50
        0 token 1 0 1 51            | deliver 0#1=51 joined
        0 token 1 0 2 52!           | deliver 0#2=52; finish 0 Stop; done
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn one_token_binds_no_reader() {
    check(
        "pd",
        2,
        1,
        "0 token 1 0 0 50!\n 0 token 1 1 0 51!",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[] 1:[]
        0 token 1 0 0 50!           | deliver 0#0=50; finish 0 Stop
        0 token 1 1 0 51!           | deliver 1#0=51; finish 1 Stop; done
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn choices_that_end_with_their_first_token_are_marked() {
    check(
        "pd",
        2,
        3,
        "0 offered 1
         0 committed 1 50! 60
         1 token 1 1 1 61!",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[] 1:[]
            0 offered 1                 | 1 <- offer 1 0:[] 1:[] of host100:1
            0 committed 1 50! 60        | deliver 0#0=50 first; finish 0 Stop; deliver 1#0=60; 1 <- commit 1 [50! 60]
            1 token 1 1 1 61!           | deliver 1#1=61 joined; finish 1 Stop; done
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn when_every_choice_ends_with_its_first_token_cancel_replaces_commit() {
    check(
        "pd",
        2,
        3,
        "0 offered 1\n 0 committed 1 50! 60!\n 0 handed 1\n 1 failed 1 kv_lost",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[] 1:[]
        0 offered 1                 | 1 <- offer 1 0:[] 1:[] of host100:1
        0 committed 1 50! 60!       | deliver 0#0=50 first; finish 0 Stop; deliver 1#0=60; finish 1 Stop; 1 <- cancel 1; done
        0 handed 1                  |
        1 failed 1 kv_lost          |
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn stop_strings_end_choices_and_at_last_the_request() {
    check(
        "pd",
        2,
        9,
        "0 offered 1
         0 committed 1 50 60
         stop 0
         1 token 1 0 1 51
         1 token 1 1 1 61
         stop 1",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[] 1:[]
            0 offered 1                 | 1 <- offer 1 0:[] 1:[] of host100:1
            0 committed 1 50 60         | deliver 0#0=50 first; deliver 1#0=60; 1 <- commit 1 [50 60]
            stop 0                      | finish 0 Stop; 1 <- cancel 1 choice 0
            1 token 1 0 1 51            |
            1 token 1 1 1 61            | deliver 1#1=61 joined
            stop 1                      | finish 1 Stop; 1 <- cancel 1; done
            bound [], next timeout never
        "#]],
    );
    check(
        "pd",
        1,
        9,
        "0 offered 1\n 0 committed 1 50\n stop 0",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
        stop 0                      | finish 0 Stop; 0 <- cancel 1; 1 <- cancel 1; done
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn a_client_that_leaves_cancels_everybody() {
    check(
        "pd",
        1,
        9,
        "0 offered 1\n gone\n 0 committed 1 50",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        gone                        | 0 <- cancel 1; 1 <- cancel 1; failed cancelled: the client went away
        0 committed 1 50            |
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        1,
        9,
        "0 offered 1\n 0 committed 1 50\n 0 handed 1\n gone",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 committed 1 50            | deliver 0#0=50 first; 1 <- commit 1 [50]
        0 handed 1                  |
        gone                        | 1 <- cancel 1; failed cancelled: the client went away
        bound [], next timeout never
    "#]],
    );
    check(
        "p",
        1,
        9,
        "gone",
        &expect![[r#"
        start                       |
        gone                        | failed cancelled: the client went away
        bound [], next timeout never
    "#]],
    );
}

#[test]
fn a_request_without_workers_waits_then_fails() {
    check(
        "p",
        1,
        9,
        "at 20\n join d\n 0 offered 1",
        &expect![[r#"
        start                       |
        at 20                       |
        join d                      | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        bound [0 1, 1 1], next timeout 1000 ms
    "#]],
    );
    check(
        "p",
        1,
        9,
        "at 49\n at 50\n join d",
        &expect![[r#"
            start                       |
            at 49                       |
            at 50                       | failed unavailable: no worker could take the request within 0.05 s: it waited for a decode worker
            join d                      |
            bound [], next timeout never
        "#]],
    );
}

#[test]
fn messages_that_no_honest_worker_sends_are_defects() {
    check(
        "a",
        1,
        9,
        "0 token 1 0 0 50\n 0 token 1 0 2 52",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[]
        0 token 1 0 0 50            | deliver 0#0=50
        0 token 1 0 2 52            | 0 <- cancel 1; failed internal: worker0 sent token 2 of choice0 instead of 1 in req1/try1
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        1,
        9,
        "0 committed 1 50",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 committed 1 50            | 0 <- cancel 1; failed internal: worker0 committed other choices, or before it offered its blocks in req1/try1
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        2,
        9,
        "0 offered 1\n 0 committed 1 50",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[] 1:[]
        0 offered 1                 | 1 <- offer 1 0:[] 1:[] of host100:1
        0 committed 1 50            | 0 <- cancel 1; 1 <- cancel 1; failed internal: worker0 committed other choices, or before it offered its blocks in req1/try1
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        1,
        9,
        "0 offered 1\n 0 handed 1",
        &expect![[r#"
        start                       | 0 <- Give 1 0:[]
        0 offered 1                 | 1 <- offer 1 0:[] of host100:1
        0 handed 1                  | 1 <- cancel 1; failed internal: worker0 let go of blocks that no reader was to have yet in req1/try1
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        1,
        9,
        "1 offered 1\n 1 committed 1 50\n 1 token 1 0 0 50\n 0 offered 1\n 0 offered 1",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            1 offered 1                 |
            1 committed 1 50            |
            1 token 1 0 0 50            |
            0 offered 1                 | 1 <- offer 1 0:[] of host100:1
            0 offered 1                 |
            bound [0 1, 1 1], next timeout 1000 ms
        "#]],
    );
}

#[test]
fn empty_requests_fail_at_once() {
    check(
        "pd",
        0,
        9,
        "",
        &expect![[r#"
        start                       | failed invalid_request: prompt, n and max_tokens must not be empty or 0
        bound [], next timeout never
    "#]],
    );
    check(
        "pd",
        1,
        0,
        "",
        &expect![[r#"
        start                       | failed invalid_request: prompt, n and max_tokens must not be empty or 0
        bound [], next timeout never
    "#]],
    );
}
