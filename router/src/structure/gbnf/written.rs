//! A grammar as Lark writes it; decides nothing.

use super::tree::{Body, Grammar, Item, Part};

/// Returns the rules in Lark's notation, one a line.
pub(super) fn lark(grammar: &Grammar) -> String {
    let names: Vec<String> = grammar.names.iter().enumerate().map(|(index, name)| lark_name(index, name)).collect();
    let mut out = String::new();
    for rule in &grammar.rules {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(&names[rule.name]);
        out.push(':');
        body(&rule.body, &names, &mut out);
    }
    out
}

/// Class of characters as a part of a regular expression.
pub(super) fn class(body: &str) -> String {
    let body = body.replace('/', "\\/").replace('\n', "\\n").replace('[', "\\[").replace("\\\\[", "\\[");
    format!("[{body}]")
}

/// Any character, as a regular expression.
pub(super) const ANY: &str = "(?s:.)";

/// Rules of Lark have names of lower-case letters.
fn lark_name(index: usize, name: &str) -> String {
    match name {
        "root" => "start".to_owned(),
        _ => format!("rule_{index}_{}", name.to_lowercase().replace('-', "_")),
    }
}

fn body(alternatives: &Body, names: &[String], out: &mut String) {
    for (index, sequence) in alternatives.iter().enumerate() {
        if index > 0 {
            out.push_str(" |");
        }
        for item in sequence {
            out.push(' ');
            part(item, names, out);
            out.push_str(&item.times);
        }
    }
}

fn part(item: &Item, names: &[String], out: &mut String) {
    match &item.part {
        Part::Rule(name) => out.push_str(&names[*name]),
        Part::Text(text, _) => out.push_str(&format!("\"{}\"", escaped(text))),
        Part::Class(text, _) => out.push_str(&format!("/{}/", class(text))),
        Part::Any => out.push_str(&format!("/{ANY}/")),
        Part::Word(regex) => out.push_str(&format!("/{regex}/")),
        Part::Group(alternatives) => {
            out.push('(');
            body(alternatives, names, out);
            out.push_str(" )");
        }
    }
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
