//! GBNF, the grammar notation of llama.cpp and xgrammar, rewritten as Lark; knows no request.
//!
//! `root ::= "a" item*` becomes `start: "a" item*`. Names become lower-case words, character classes become regular
//! expressions, comments go. Characters in a row that can be told from what follows become one expression: `[a-z]+`
//! is `/[a-z]+/`, not a list of letters, each of which the parser would have to take by itself.

mod chars;
mod tokens;
mod tree;
mod words;
mod written;

/// Returns true if a grammar is written in GBNF.
pub(super) fn is_gbnf(text: &str) -> bool {
    text.contains("::=")
}

/// Rewrites a grammar. An error names the line.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let mut grammar = tree::parse(text)?;
    words::join(&mut grammar);
    Ok(written::lark(&grammar))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lark(text: &str) -> String {
        to_lark(text).unwrap()
    }

    #[test]
    fn rules_become_lark() {
        let text =
            "# a list\nroot ::= \"[\" Item-1 (\",\" Item-1)* \"]\" # all\nItem-1 ::= [a-z/]+ |\n  \"\\x41\" | .{1,3}\n";
        assert_eq!(
            lark(text),
            "start: \"[\" rule_1_item_1 ( \",\" rule_1_item_1 )* \"]\"\n\
             rule_1_item_1: /[a-z\\/]/+ | \"\\u0041\" | /(?s:.)/{1,3}"
        );
        assert!(is_gbnf(text) && !is_gbnf("start: \"a\""));
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (text, said) in [
            ("a ::= \"b\"", "there is no rule root"),
            ("root ::= \"b", "has no end"),
            ("root ::= \"b\"\n  ::= x", "line 2: ::= must follow"),
            ("root ::= a{1", "line 1: { has no }"),
            ("root ::=\n\n %", "line 3: '%'"),
            ("\"a\" root ::= b", "line 1: the first rule"),
        ] {
            let error = to_lark(text).unwrap_err();
            assert!(error.contains(said), "{text:?}: {error}");
        }
    }
}
