//! Rules of a grammar as a tree; knows nothing of Lark and of what a rule matches.

use std::collections::BTreeMap;

use super::chars::{self, Chars};
use super::tokens::{Kind, Token, tokens};

/// Most groups within groups.
const DEPTH_MAX: usize = 100;

/// A grammar; its rules in their order.
pub(super) struct Grammar {
    /// Names, which parts refer to by index.
    pub(super) names: Vec<String>,
    pub(super) rules: Vec<Rule>,
}

pub(super) struct Rule {
    pub(super) name: usize,
    pub(super) body: Body,
}

/// Alternatives, each of which is a sequence.
pub(super) type Body = Vec<Vec<Item>>;

/// A part, and how often it stands there.
#[derive(Clone)]
pub(super) struct Item {
    pub(super) part: Part,
    pub(super) times: String,
}

#[derive(Clone)]
pub(super) enum Part {
    /// The rule of this name.
    Rule(usize),
    /// What stands between quotes, and its characters if they are known.
    Text(String, Option<Vec<char>>),
    /// What stands between brackets, and its characters if they are known.
    Class(String, Option<Chars>),
    /// Any character.
    Any,
    Group(Body),
    /// A regular expression that stands for some items in a row.
    Word(String),
}

/// Reads a grammar. An error names the line.
pub(super) fn parse(text: &str) -> Result<Grammar, String> {
    let tokens = tokens(text)?;
    let mut reader = Reader { rest: &tokens, names: Vec::new(), known: BTreeMap::new() };
    let mut rules = Vec::new();
    while let Some(first) = reader.rest.first() {
        let Some(name) = reader.head() else {
            return Err(match (&first.kind, rules.is_empty()) {
                (Kind::Is, false) => format!("line {}: ::= must follow the name of a rule", first.line),
                (Kind::Close, false) => format!("line {}: ) closes nothing", first.line),
                (_, _) => format!("line {}: the first rule must be name ::= ...", first.line),
            });
        };
        rules.push(Rule { name, body: reader.body(0)? });
    }
    if reader.known.contains_key("root") {
        Ok(Grammar { names: reader.names, rules })
    } else {
        Err("there is no rule root ::= ...".to_owned())
    }
}

struct Reader<'a> {
    rest: &'a [Token],
    names: Vec<String>,
    known: BTreeMap<String, usize>,
}

impl Reader<'_> {
    /// Reads `name ::=`.
    fn head(&mut self) -> Option<usize> {
        let [Token { kind: Kind::Name(name), .. }, Token { kind: Kind::Is, .. }, rest @ ..] = self.rest else {
            return None;
        };
        self.rest = rest;
        Some(self.name(name))
    }

    fn name(&mut self, name: &str) -> usize {
        if let Some(index) = self.known.get(name) {
            return *index;
        }
        let index = self.names.len();
        self.names.push(name.to_owned());
        self.known.insert(name.to_owned(), index);
        index
    }

    /// Reads alternatives, up to the next rule or the end of a group.
    fn body(&mut self, depth: usize) -> Result<Body, String> {
        let mut body = vec![Vec::new()];
        while let [Token { kind, line }, tail @ ..] = self.rest {
            let is_head = matches!((kind, tail.first()), (Kind::Name(_), Some(Token { kind: Kind::Is, .. })));
            if is_head || matches!(kind, Kind::Close | Kind::Is) {
                break;
            }
            self.rest = tail;
            let part = match kind {
                Kind::Or => {
                    body.push(Vec::new());
                    continue;
                }
                Kind::Operator(operator) => {
                    let last: Option<&mut Item> = body.last_mut().and_then(|sequence| sequence.last_mut());
                    let last = last.ok_or_else(|| format!("line {line}: there is nothing before {operator}"))?;
                    last.times.push_str(operator);
                    continue;
                }
                Kind::Open => Part::Group(self.group(*line, depth)?),
                Kind::Name(name) => Part::Rule(self.name(name)),
                Kind::Text(body) => Part::Text(body.clone(), chars::of_literal(body)),
                Kind::Class(body) => Part::Class(body.clone(), chars::of_class(body)),
                Kind::Any => Part::Any,
                Kind::Is | Kind::Close => unreachable!("they end the loop"),
            };
            if let Some(sequence) = body.last_mut() {
                sequence.push(Item { part, times: String::new() });
            }
        }
        Ok(body)
    }

    /// Reads what stands between parentheses, after the first of them.
    fn group(&mut self, line: usize, depth: usize) -> Result<Body, String> {
        if depth >= DEPTH_MAX {
            return Err(format!("line {line}: there are more than {DEPTH_MAX} groups within groups"));
        }
        let body = self.body(depth + 1)?;
        match self.rest {
            [Token { kind: Kind::Close, .. }, rest @ ..] => self.rest = rest,
            _ => return Err(format!("line {line}: ( has no )")),
        }
        Ok(body)
    }
}
