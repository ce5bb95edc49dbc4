//! Items in a row that become one regular expression, a word, without a change of what the grammar matches.
//!
//! The lexer takes the longest word. So a word must not be able to go on with what may follow it, and where another
//! terminal may stand in its place that can be its beginning, not with what may follow that one either. Sets are never too
//! small here, so that a doubt leaves the items as they are.

mod lexer;
mod regular;

use std::collections::BTreeSet;

use self::lexer::Lexer;
use self::regular::{Regular, Run};
use super::tree::{Body, Grammar, Item, Part};

/// Most items, and most rules, of a grammar that is looked at.
const ITEMS_MAX: usize = 2_000;
const RULES_MAX: usize = 500;
/// Most times that words are given up because of others that were.
const ROUNDS_MAX: usize = 16;

/// Name of a word: its rule, and its number in that rule.
type WordId = (usize, usize);

/// Makes words where that is possible.
pub(super) fn join(grammar: &mut Grammar) {
    if let Some(joined) = joined(grammar) {
        for (rule, body) in grammar.rules.iter_mut().zip(joined) {
            rule.body = body;
        }
    }
}

/// Returns the rules with their words; `None` if there are none.
fn joined(grammar: &Grammar) -> Option<Vec<Body>> {
    let items: usize = grammar.rules.iter().map(|rule| items(&rule.body)).sum();
    if items > ITEMS_MAX || grammar.rules.len() > RULES_MAX {
        return None;
    }
    let regular = Regular::new(grammar)?;
    let mut refused = BTreeSet::new();
    for _ in 0..ROUNDS_MAX {
        let lexer = Lexer::new(grammar, &regular, &refused)?;
        let refused_before = refused.len();
        refused.extend(lexer.conflicts()?);
        if refused.len() == refused_before {
            let words = lexer.words();
            return Some((0..grammar.rules.len()).map(|rule| rewritten(grammar, &regular, rule, &words)).collect());
        }
    }
    None
}

fn items(body: &Body) -> usize {
    let of_item = |item: &Item| match &item.part {
        Part::Group(body) => 1 + items(body),
        Part::Rule(_) | Part::Text(..) | Part::Class(..) | Part::Any | Part::Word(_) => 1,
    };
    body.iter().flatten().map(of_item).sum()
}

fn rewritten(grammar: &Grammar, regular: &Regular<'_>, rule: usize, words: &BTreeSet<WordId>) -> Body {
    let mut number = 0;
    rewritten_body(&grammar.rules[rule].body, regular, &mut || {
        number += 1;
        words.contains(&(rule, number - 1))
    })
}

fn rewritten_body(body: &Body, regular: &Regular<'_>, is_word: &mut impl FnMut() -> bool) -> Body {
    let mut out = Vec::new();
    for sequence in body {
        let mut items = Vec::new();
        for run in regular.runs(sequence) {
            match run {
                Run::Word(range) => match is_word() {
                    true => {
                        items.push(Item { part: Part::Word(regular.regex(&sequence[range])), times: String::new() });
                    }
                    false => items.extend_from_slice(&sequence[range]),
                },
                Run::Item(index) => items.push(rewritten_item(&sequence[index], regular, is_word)),
            }
        }
        out.push(items);
    }
    out
}

fn rewritten_item(item: &Item, regular: &Regular<'_>, is_word: &mut impl FnMut() -> bool) -> Item {
    match &item.part {
        Part::Group(body) => {
            Item { part: Part::Group(rewritten_body(body, regular, is_word)), times: item.times.clone() }
        }
        Part::Rule(_) | Part::Text(..) | Part::Class(..) | Part::Any | Part::Word(_) => item.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::to_lark;

    /// Rules of a grammar whose root is `body`, in Lark.
    fn joined(body: &str) -> String {
        to_lark(&format!("root ::= {body}")).unwrap()
    }

    #[test]
    fn characters_in_a_row_become_one_expression() {
        for (body, lark) in [
            ("[a-z]+", "start: /[a-z]+/"),
            ("[a-z] [a-z0-9_]* \"=\" [0-9]{1,3}", "start: /[a-z][a-z0-9_]*/ \"=\" /[0-9]{1,3}/"),
            (
                r#"["] ([^"\\] | "\\" (["n] | "u" [0-9a-f]{4}))* ["]"#,
                r#"start: /["](?:[^"\\]|\x5C(?:["n]|u[0-9a-f]{4}))*["]/"#,
            ),
            (
                "(name \",\")* \";\"\nname ::= [a-z] [0-9]",
                "start: /(?:(?:[a-z][0-9])\\x2C)*/ \";\"\nrule_1_name: /[a-z][0-9]/",
            ),
        ] {
            assert_eq!(joined(body), lark, "{body}");
        }
    }

    #[test]
    fn what_could_be_taken_for_what_follows_stays_as_it_is() {
        for body in [
            "[a-z]+ \"x\"",
            "[a-z]+ [0-9]? \"x\"",
            "(name \" \"?)+ \"x\"\nname ::= [a-z]+",
            // The word would take the y of the second alternative.
            "[a-z]+ \"1\" | \"x\" \"y\" \"2\"",
            "[a-z]+ \"1\" | ([x] \"y\" \"2\")",
            // Of a part that is not understood.
            "[a-z]+ \"\\q\"",
            "[a-z]+?",
        ] {
            assert!(joined(body).contains("/[a-z]/+"), "{}", joined(body));
        }
    }

    #[test]
    fn lines_of_words_stay_a_list() {
        assert_eq!(
            joined("(line \"\\n\")+\nline ::= [a-z]+"),
            "start: ( rule_1_line \"\\n\" )+\nrule_1_line: /[a-z]+/"
        );
    }

    #[test]
    fn a_rule_that_contains_itself_is_no_part_of_a_word() {
        assert_eq!(
            joined("list\nlist ::= (\"[\" list* \"]\")* \"-\""),
            "start: rule_1_list\nrule_1_list: ( \"[\" rule_1_list* \"]\" )* \"-\""
        );
    }
}
