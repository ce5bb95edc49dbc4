//! GBNF, the grammar notation of llama.cpp and xgrammar, rewritten as Lark; knows no request.
//!
//! `root ::= "a" item*` becomes `start: "a" item*`. Names become lower-case words, character classes become regular
//! expressions, comments go.

use std::collections::BTreeMap;

/// Returns true if a grammar is written in GBNF.
pub(super) fn is_gbnf(text: &str) -> bool {
    text.contains("::=")
}

/// Rewrites a grammar. An error names the line.
pub(super) fn to_lark(text: &str) -> Result<String, String> {
    let tokens = tokens(text)?;
    let mut names = Names::default();
    let mut out = String::new();
    let mut rest = tokens.as_slice();
    while let [first, tail @ ..] = rest {
        rest = tail;
        match (&first.kind, tail.first().map(|next| &next.kind)) {
            (Kind::Name(name), Some(Kind::Is)) => {
                if !out.is_empty() {
                    out.push('\n');
                }
                out.push_str(&names.lark(name));
                out.push(':');
                rest = &tail[1..];
            }
            (Kind::Is, _) => return Err(format!("line {}: ::= must follow the name of a rule", first.line)),
            (_, _) if out.is_empty() => {
                return Err(format!("line {}: the first rule must be name ::= ...", first.line));
            }
            (Kind::Name(name), _) => {
                out.push(' ');
                out.push_str(&names.lark(name));
            }
            (Kind::Text(lark), _) => {
                out.push(' ');
                out.push_str(lark);
            }
            // An operator binds to what stands before it.
            (Kind::Operator(operator), _) => out.push_str(operator),
        }
    }
    if names.known.contains_key("root") { Ok(out) } else { Err("there is no rule root ::= ...".to_owned()) }
}

struct Token {
    kind: Kind,
    line: usize,
}

enum Kind {
    Name(String),
    Is,
    /// Something that Lark writes like this.
    Text(String),
    /// `*`, `+`, `?` or a repetition.
    Operator(String),
}

/// Names of rules in Lark, where they are lower-case words.
#[derive(Default)]
struct Names {
    known: BTreeMap<String, String>,
}

impl Names {
    fn lark(&mut self, name: &str) -> String {
        let count = self.known.len();
        let lark = self.known.entry(name.to_owned()).or_insert_with(|| match name {
            "root" => "start".to_owned(),
            _ => format!("rule_{count}_{}", name.to_lowercase().replace('-', "_")),
        });
        lark.clone()
    }
}

fn tokens(text: &str) -> Result<Vec<Token>, String> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (text, 1);
    while let Some(c) = rest.chars().next() {
        let (kind, length) = match c {
            '\n' => {
                line += 1;
                (None, 1)
            }
            _ if c.is_whitespace() => (None, c.len_utf8()),
            '#' => (None, rest.find('\n').unwrap_or(rest.len())),
            '"' => {
                quoted(rest, '"').map(|(body, length)| (Some(Kind::Text(format!("\"{}\"", escaped(body)))), length))?
            }
            '[' => quoted(rest, ']').map(|(body, length)| (Some(Kind::Text(class(body))), length))?,
            '.' => (Some(Kind::Text("/(?s:.)/".to_owned())), 1),
            '|' | '(' | ')' => (Some(Kind::Text(c.to_string())), 1),
            '*' | '+' | '?' => (Some(Kind::Operator(c.to_string())), 1),
            '{' => {
                let end = rest.find('}').ok_or_else(|| format!("line {line}: {{ has no }}"))?;
                (Some(Kind::Operator(rest[..=end].to_owned())), end + 1)
            }
            ':' if rest.starts_with("::=") => (Some(Kind::Is), 3),
            _ if is_of_name(c) => {
                let end = rest.find(|c| !is_of_name(c)).unwrap_or(rest.len());
                (Some(Kind::Name(rest[..end].to_owned())), end)
            }
            _ => return Err(format!("line {line}: {c:?} has no meaning here")),
        };
        tokens.extend(kind.map(|kind| Token { kind, line }));
        line += rest[..length].matches('\n').count() - usize::from(c == '\n');
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '-' || c == '_'
}

/// Returns what stands between the first character and `close`, and the length of all.
fn quoted(text: &str, close: char) -> Result<(&str, usize), String> {
    let mut is_escaped = false;
    for (index, c) in text.char_indices().skip(1) {
        match c {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            _ if c == close => return Ok((&text[1..index], index + 1)),
            _ => {}
        }
    }
    Err(format!("{:?} has no end", text.chars().take(20).collect::<String>()))
}

/// Rewrites `\x41`, which the strings of Lark do not have.
fn escaped(body: &str) -> String {
    let mut out = String::new();
    let mut chars = body.chars();
    while let Some(c) = chars.next() {
        match c {
            '\n' => out.push_str("\\n"),
            '\\' => match chars.next() {
                Some('x') => out.push_str("\\u00"),
                Some(c @ ('[' | ']')) => out.push(c),
                Some(other) => out.extend(['\\', other]),
                None => {}
            },
            _ => out.push(c),
        }
    }
    out
}

/// Writes a class of characters as a regular expression between slashes.
fn class(body: &str) -> String {
    let body = body.replace('/', "\\/").replace('\n', "\\n").replace('[', "\\[").replace("\\\\[", "\\[");
    format!("/[{body}]/")
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
