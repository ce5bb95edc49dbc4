//! Scores of a prompt on their way to the client.

use expect_test::expect;

use super::script::check_scored;

#[test]
fn scores_of_the_giver_are_delivered_and_come_again_after_a_loss() {
    check_scored(
        "ppd",
        "0 offered 1
         0 scored 1 1 2
         1 scored 1 1 2
         lost 0
         0 scored 1 3 2
         1 scored 2 1 4
         1 offered 2
         1 committed 2 50
         2 scored 2 1 4",
        &expect![[r#"
            start                       | 0 <- Give 1 0:[]
            0 offered 1                 | 2 <- offer 1 0:[] of host100:1
            0 scored 1 1 2              | deliver 2 scores from 1
            1 scored 1 1 2              |
            lost 0                      | 2 <- cancel 1; retry after worker_lost; 1 <- Give 2 0:[]
            0 scored 1 3 2              |
            1 scored 2 1 4              | deliver 4 scores from 1
            1 offered 2                 | 2 <- offer 2 0:[] of host101:1
            1 committed 2 50            | deliver 0#0=50 first; 2 <- commit 2 [50]
            2 scored 2 1 4              |
            bound [1 2, 2 2], next timeout 1000 ms
        "#]],
    );
}

#[test]
fn scores_beyond_the_prompt_are_a_defect_of_the_worker() {
    check_scored(
        "a",
        "0 scored 1 4 2",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[]
        0 scored 1 4 2              | 0 <- cancel 1; failed internal: worker0 scored 2 tokens from 4 on in a prompt of 5 in req1/try1
        bound [], next timeout never
    "#]],
    );
    check_scored(
        "aa",
        "0 scored 1 0 1",
        &expect![[r#"
        start                       | 0 <- Whole 1 0:[]
        0 scored 1 0 1              | 0 <- cancel 1; retry after internal; 1 <- Whole 2 0:[]
        bound [1 2], next timeout 1000 ms
    "#]],
    );
}
