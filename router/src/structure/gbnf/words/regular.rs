//! What parts of a grammar can begin with, go on with and consist of, and which are regular; knows nothing of what follows
//! a part.

use std::ops::Range;

use super::super::chars::Chars;
use super::super::tree::{Body, Grammar, Item, Part};
use super::super::written::{ANY, class};

/// Longest regular expression of a rule that is read as a part of a word.
const RULE_BYTES_MAX: usize = 256;
/// Most rounds until the sets of all rules are complete.
const ROUNDS_MAX: usize = 1_000;

pub(super) struct Regular<'a> {
    /// Of each name: what its rules can begin with, and whether they can be empty.
    first: Vec<Chars>,
    is_nullable: Vec<bool>,
    /// Of each name: its rule, if it is regular, and its expression.
    rules: Vec<Option<(&'a Body, String)>>,
}

/// Part of a sequence.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Run {
    /// Items that may become a word.
    Word(Range<usize>),
    /// An item that cannot.
    Item(usize),
}

/// How often an item stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Times {
    Once,
    /// A fixed number of times, at least two.
    Exactly,
    Optional,
    /// Any number of times within bounds.
    Loop {
        may_be_none: bool,
    },
}

impl<'a> Regular<'a> {
    /// Looks at the rules; `None` if a part of them is not understood here.
    pub(super) fn new(grammar: &'a Grammar) -> Option<Regular<'a>> {
        let count = grammar.names.len();
        let mut all =
            Regular { first: vec![Chars::default(); count], is_nullable: vec![false; count], rules: vec![None; count] };
        grammar.rules.iter().all(|rule| is_understood(&rule.body)).then_some(())?;
        all.complete_firsts(grammar)?;
        all.find_rules(grammar);
        Some(all)
    }

    fn complete_firsts(&mut self, grammar: &Grammar) -> Option<()> {
        for _ in 0..ROUNDS_MAX {
            let mut is_complete = true;
            for rule in &grammar.rules {
                let (first, is_nullable) = self.of_body(&rule.body);
                let first = first.or(self.first[rule.name]);
                let is_nullable = is_nullable || self.is_nullable[rule.name];
                is_complete &= first == self.first[rule.name] && is_nullable == self.is_nullable[rule.name];
                (self.first[rule.name], self.is_nullable[rule.name]) = (first, is_nullable);
            }
            if is_complete {
                return Some(());
            }
        }
        None
    }

    /// Finds the rules that are regular; those that contain themselves are not.
    fn find_rules(&mut self, grammar: &'a Grammar) {
        let is_only = |name: usize| grammar.rules.iter().filter(|rule| rule.name == name).count() == 1;
        let candidates: Vec<_> = grammar.rules.iter().filter(|rule| is_only(rule.name)).collect();
        loop {
            let mut has_grown = false;
            for rule in &candidates {
                if self.rules[rule.name].is_none() && rule.body.iter().flatten().all(|item| self.is_regular(item)) {
                    let regex = self.body_regex(&rule.body);
                    if regex.len() <= RULE_BYTES_MAX {
                        self.rules[rule.name] = Some((&rule.body, regex));
                        has_grown = true;
                    }
                }
            }
            if !has_grown {
                return;
            }
        }
    }

    /// Splits a sequence into what may be words and the rest. A word has classes, and what is repeated.
    pub(super) fn runs(&self, sequence: &[Item]) -> Vec<Run> {
        let mut runs = Vec::new();
        let mut at = 0;
        while at < sequence.len() {
            let length = sequence[at..].iter().take_while(|item| self.may_be_in_word(item)).count();
            let is_word = length > 1 || length == 1 && is_repeated(&sequence[at]);
            runs.push(if is_word { Run::Word(at..at + length) } else { Run::Item(at) });
            at += if is_word { length } else { 1 };
        }
        runs
    }

    fn may_be_in_word(&self, item: &Item) -> bool {
        match &item.part {
            Part::Class(..) | Part::Any => true,
            Part::Group(body) => is_repeated(item) && self.is_regular(item) && !self.has_loop(body),
            Part::Rule(name) => {
                is_repeated(item) && self.rules[*name].as_ref().is_some_and(|(body, _)| !self.has_loop(body))
            }
            Part::Text(..) | Part::Word(_) => false,
        }
    }

    /// Returns true if a regular part has a loop. What is repeated is a word if it is like a character, and not if it is
    /// like a line: in a large expression, the lexer allows fewer parts of the vocabulary at once.
    fn has_loop(&self, body: &Body) -> bool {
        body.iter().flatten().any(|item| {
            let has_inner = match &item.part {
                Part::Group(body) => self.has_loop(body),
                Part::Rule(name) => self.rules[*name].as_ref().is_some_and(|(body, _)| self.has_loop(body)),
                Part::Text(..) | Part::Class(..) | Part::Any | Part::Word(_) => false,
            };
            has_inner || matches!(times(item), Times::Loop { .. })
        })
    }

    fn is_regular(&self, item: &Item) -> bool {
        match &item.part {
            Part::Class(..) | Part::Any | Part::Text(..) => true,
            Part::Group(body) => body.iter().flatten().all(|item| self.is_regular(item)),
            Part::Rule(name) => self.rules[*name].is_some(),
            Part::Word(_) => false,
        }
    }

    /// Returns what some items in a row can begin with, and whether they can be empty.
    pub(super) fn of_sequence(&self, items: &[Item]) -> (Chars, bool) {
        let mut first = Chars::default();
        for item in items {
            let (of_item, is_nullable) = self.of_item(item);
            first = first.or(of_item);
            if !is_nullable {
                return (first, false);
            }
        }
        (first, true)
    }

    pub(super) fn of_item(&self, item: &Item) -> (Chars, bool) {
        let (first, is_nullable) = match &item.part {
            Part::Rule(name) => (self.first[*name], self.is_nullable[*name]),
            Part::Text(_, chars) => match chars.as_deref() {
                Some([first, ..]) => (Chars::of(*first), false),
                Some([]) | None => (Chars::default(), true),
            },
            Part::Class(_, chars) => (chars.unwrap_or(Chars::ALL), false),
            Part::Any | Part::Word(_) => (Chars::ALL, false),
            Part::Group(body) => self.of_body(body),
        };
        (first, is_nullable || may_be_left_out(item))
    }

    fn of_body(&self, body: &Body) -> (Chars, bool) {
        let alternatives = body.iter().map(|sequence| self.of_sequence(sequence));
        alternatives.fold((Chars::default(), false), |(first, nullable), (more, too)| (first.or(more), nullable || too))
    }

    /// Returns the characters that occur in regular items.
    pub(super) fn alphabet(&self, items: &[Item]) -> Chars {
        let of_body = |body: &Body| body.iter().fold(Chars::default(), |all, items| all.or(self.alphabet(items)));
        let of_item = |item: &Item| match &item.part {
            Part::Class(_, chars) => chars.unwrap_or(Chars::ALL),
            Part::Text(_, chars) => chars.iter().flatten().fold(Chars::default(), |all, c| all.or(Chars::of(*c))),
            Part::Any | Part::Word(_) => Chars::ALL,
            Part::Group(body) => of_body(body),
            Part::Rule(name) => self.rules[*name].as_ref().map_or(Chars::ALL, |(body, _)| of_body(body)),
        };
        items.iter().fold(Chars::default(), |all, item| all.or(of_item(item)))
    }

    /// Returns the characters by which a complete text of these regular items can become a longer one.
    pub(super) fn goes_on(&self, items: &[Item]) -> Chars {
        self.sequence_goes_on(items).unwrap_or_else(|| self.alphabet(items))
    }

    /// `None` where one character does not tell which item it belongs to.
    fn sequence_goes_on(&self, items: &[Item]) -> Option<Chars> {
        let (mut all, mut rest, mut rest_is_nullable) = (Chars::default(), Chars::default(), true);
        for item in items.iter().rev() {
            let (first, is_nullable) = self.of_item(item);
            let goes_on = self.item_goes_on(item)?;
            let begins = if is_nullable { goes_on.or(first) } else { goes_on };
            if begins.meets(rest) {
                return None;
            }
            if rest_is_nullable {
                all = all.or(goes_on).or(rest);
            }
            rest = if is_nullable { first.or(rest) } else { first };
            rest_is_nullable &= is_nullable;
        }
        Some(all)
    }

    fn item_goes_on(&self, item: &Item) -> Option<Chars> {
        let goes_on = match &item.part {
            Part::Class(..) | Part::Any | Part::Text(..) => Chars::default(),
            Part::Group(body) => self.body_goes_on(body)?,
            Part::Rule(name) => self.body_goes_on(self.rules[*name].as_ref()?.0)?,
            Part::Word(_) => return None,
        };
        let (first, _) = self.of_item(item);
        match times(item) {
            Times::Once | Times::Optional => Some(goes_on),
            Times::Exactly | Times::Loop { .. } if goes_on.meets(first) => None,
            Times::Exactly => Some(goes_on),
            Times::Loop { .. } => Some(goes_on.or(first)),
        }
    }

    fn body_goes_on(&self, body: &Body) -> Option<Chars> {
        let (mut all, mut firsts) = (Chars::default(), Chars::default());
        for sequence in body {
            let (first, is_nullable) = self.of_sequence(sequence);
            if first.meets(firsts) || is_nullable {
                return None;
            }
            firsts = firsts.or(first);
            all = all.or(self.sequence_goes_on(sequence)?);
        }
        Some(all)
    }

    /// Writes regular items as a regular expression.
    pub(super) fn regex(&self, items: &[Item]) -> String {
        items.iter().map(|item| self.item_regex(item)).collect()
    }

    fn item_regex(&self, item: &Item) -> String {
        let grouped = |regex: &str| format!("(?:{regex}){}", item.times);
        match &item.part {
            Part::Class(body, _) => class(body) + &item.times,
            Part::Any => ANY.to_owned() + &item.times,
            Part::Text(_, chars) => {
                let regex: String = chars.iter().flatten().copied().map(literal).collect();
                if item.times.is_empty() { regex } else { grouped(&regex) }
            }
            Part::Group(body) => grouped(&self.body_regex(body)),
            Part::Rule(name) => grouped(self.rules[*name].as_ref().map_or("", |(_, regex)| regex)),
            Part::Word(regex) => grouped(regex),
        }
    }

    fn body_regex(&self, body: &Body) -> String {
        let alternatives: Vec<String> = body.iter().map(|sequence| self.regex(sequence)).collect();
        alternatives.join("|")
    }
}

/// Returns true if an item can stand there more than once.
pub(super) fn is_repeated(item: &Item) -> bool {
    matches!(times(item), Times::Exactly | Times::Loop { .. })
}

/// Returns true if an item may stand there no time.
pub(super) fn may_be_left_out(item: &Item) -> bool {
    matches!(times(item), Times::Optional | Times::Loop { may_be_none: true })
}

fn is_understood(body: &Body) -> bool {
    body.iter().flatten().all(|item| {
        let part = match &item.part {
            Part::Text(_, chars) => chars.is_some(),
            Part::Class(_, chars) => chars.is_some(),
            Part::Group(body) => is_understood(body),
            Part::Rule(_) | Part::Any | Part::Word(_) => true,
        };
        part && read_times(&item.times).is_some()
    })
}

/// Those that are not understood have been refused before.
fn times(item: &Item) -> Times {
    read_times(&item.times).unwrap_or(Times::Loop { may_be_none: true })
}

fn read_times(text: &str) -> Option<Times> {
    let bounds = match text {
        "" => return Some(Times::Once),
        "?" => return Some(Times::Optional),
        "*" => return Some(Times::Loop { may_be_none: true }),
        "+" => return Some(Times::Loop { may_be_none: false }),
        _ => text.strip_prefix('{')?.strip_suffix('}')?,
    };
    let (least, most) = bounds.split_once(',').unwrap_or((bounds, bounds));
    let least: u32 = least.parse().ok()?;
    let most: u32 = if most.is_empty() { u32::MAX } else { most.parse().ok()? };
    (least <= most && most > 0).then_some(())?;
    Some(if least == most && least > 1 { Times::Exactly } else { Times::Loop { may_be_none: least == 0 } })
}

fn literal(c: char) -> String {
    if c.is_ascii_alphanumeric() || !c.is_ascii() { c.to_string() } else { format!("\\x{:02X}", u32::from(c)) }
}
