//! Grammars in EBNF, with a document of each; knows no schema.

use serde_json::json;

use super::documents::{Chance, word};
use super::{Kind, grammar_of};

pub(super) fn all() -> [Kind; 5] {
    [
        kind("EBNF, SQL", SQL, query),
        kind("EBNF, arithmetic", ARITHMETIC, |chance| sum(chance, 4)),
        kind("EBNF, list of key=value", SETTINGS, settings),
        kind("EBNF, JSON", JSON, |chance| {
            format!("{{\"{}\": [1, 2.5], \"{}\": \"{}\"}}", word(chance), word(chance), word(chance))
        }),
        kind("Lark, calls in a script", SCRIPT, script),
    ]
}

const SQL: &str = r#"root ::= "SELECT " columns " FROM " name (" WHERE " test (" AND " test)*)? ";"
columns ::= "*" | name (", " name)*
test ::= name " " ("=" | "<" | ">" | "LIKE") " " value
value ::= [0-9]+ | "'" [^']* "'"
name ::= [a-z_]+ ("." [a-z_]+)?
"#;

/// As llama.cpp has it among its examples.
const ARITHMETIC: &str = r#"root ::= (expr "=" ws term "\n")+
expr ::= term ([-+*/] term)*
term ::= ident | num | "(" ws expr ")" ws
ident ::= [a-z] [a-z0-9_]* ws
num ::= [0-9]+ ws
ws ::= [ \t\n]*
"#;

const SETTINGS: &str = r##"root ::= (pair "\n")+
pair ::= key "=" value
key ::= [a-zA-Z_] [a-zA-Z0-9_.-]*
value ::= "true" | "false" | number | "\"" [^"\n]* "\""
number ::= "-"? [0-9]+ ("." [0-9]+)?
"##;

/// As llama.cpp has it among its examples.
const JSON: &str = r##"root ::= object
value ::= object | array | string | number | ("true" | "false" | "null") ws
object ::= "{" ws (string ":" ws value ("," ws string ":" ws value)*)? "}" ws
array ::= "[" ws (value ("," ws value)*)? "]" ws
string ::= "\"" ([^"\\\x7F\x00-\x1F] | "\\" (["\\bfnrt] | "u" [0-9a-fA-F]{4}))* "\"" ws
number ::= ("-"? ([0-9] | [1-9] [0-9]{0,15})) ("." [0-9]+)? ([eE] [-+]? [0-9] [1-9]{0,15})? ws
ws ::= | " " | "\n" [ \t]{0,20}
"##;

const SCRIPT: &str = r#"start: (call "\n")+
call: NAME "(" (argument (", " argument)*)? ")"
argument: NAME "=" value | value
value: NUMBER | STRING | call
NAME: /[a-z_][a-z0-9_]*/
NUMBER: /-?[0-9]+(\.[0-9]+)?/
STRING: /"[^"\n]*"/
"#;

fn kind(name: &'static str, grammar: &str, document: fn(&mut Chance) -> String) -> Kind {
    Kind {
        name,
        grammar: grammar_of(json!({"structured_outputs": {"grammar": grammar}})),
        document: Box::new(move |seed| document(&mut Chance::new(seed))),
    }
}

fn query(chance: &mut Chance) -> String {
    let mut name = || word(chance);
    format!("SELECT {}, {} FROM {} WHERE {} = 17 AND {} LIKE '{}%';", name(), name(), name(), name(), name(), name())
}

fn sum(chance: &mut Chance, terms: usize) -> String {
    let terms: Vec<String> = (0..terms).map(|index| format!("{} *({index} +{}7) ", word(chance), index * 13)).collect();
    format!("{}= {}\n", terms.join("-"), word(chance))
}

fn settings(chance: &mut Chance) -> String {
    let line = |number: i32| {
        format!(
            "{}_{}={number}.25\n{}=\"{} of {}\"\n",
            word(chance),
            word(chance),
            word(chance),
            word(chance),
            word(chance)
        )
    };
    (0..4).map(line).collect()
}

fn script(chance: &mut Chance) -> String {
    let line = |number: i32| {
        format!("{}_{}({number}, {}=\"{} {}\")\n", word(chance), word(chance), word(chance), word(chance), word(chance))
    };
    (0..4).map(line).collect()
}
