//! What the lexer of a grammar with words meets: its terminals, what may follow each, and which may stand in one place.

mod graph;

use std::collections::BTreeSet;

use self::graph::{Graph, Node};
use super::super::chars::Chars;
use super::super::tree::{Body, Grammar, Item, Part};
use super::WordId;
use super::regular::{Regular, Run, is_repeated, may_be_left_out};

/// Most pairs of terminals that are looked at.
const PAIRS_MAX: usize = 200_000;

/// Number of a terminal.
type TerminalId = usize;

pub(super) struct Lexer {
    terminals: Vec<Terminal>,
    graph: Graph,
}

/// A literal, a class or a word, where it stands in the grammar.
struct Terminal {
    first: Chars,
    alphabet: Chars,
    /// Characters of a literal.
    text: Option<Vec<char>>,
    word: Option<Word>,
}

struct Word {
    id: WordId,
    /// Characters by which a complete word can become a longer one.
    goes_on: Chars,
}

impl Lexer {
    /// Looks at all rules; a word that was `refused` stays the items that it is. `None` if it is too much.
    pub(super) fn new(grammar: &Grammar, regular: &Regular<'_>, refused: &BTreeSet<WordId>) -> Option<Lexer> {
        let mut maker = Maker { regular, refused, terminals: Vec::new() };
        let mut rules = vec![Node::Either(Vec::new()); grammar.names.len()];
        for (index, rule) in grammar.rules.iter().enumerate() {
            let node = maker.body(&rule.body, &mut (index, 0));
            if let Node::Either(nodes) = &mut rules[rule.name] {
                nodes.push(node);
            }
        }
        let root = grammar.names.iter().position(|name| name == "root")?;
        let graph = Graph::new(&rules, root, maker.terminals.len())?;
        Some(Lexer { terminals: maker.terminals, graph })
    }

    /// Returns the words that the root leads to.
    pub(super) fn words(&self) -> BTreeSet<WordId> {
        let words = self.terminals.iter().filter_map(|terminal| terminal.word.as_ref());
        words.map(|word| word.id).collect()
    }

    /// Returns the words by which the grammar would match something else. `None` if it is too much.
    pub(super) fn conflicts(&self) -> Option<BTreeSet<WordId>> {
        let mut conflicts = BTreeSet::new();
        for (one, other) in self.pairs()? {
            for (word, terminal) in [(one, other), (other, one)] {
                if let Some(Word { id, goes_on }) = &self.terminals[word].word
                    && (word == terminal || self.may_be_beginning(terminal, word))
                    && goes_on.meets(self.after(terminal))
                {
                    conflicts.insert(*id);
                }
            }
        }
        Some(conflicts)
    }

    /// Returns the pairs of terminals that may stand in one place: at the start, or after what may be the same text.
    fn pairs(&self) -> Option<BTreeSet<(TerminalId, TerminalId)>> {
        let mut pairs = BTreeSet::new();
        let mut new: Vec<(TerminalId, TerminalId)> = Vec::new();
        let start = &self.graph.start;
        new.extend(start.iter().flat_map(|one| start.range(*one..).map(move |other| (*one, *other))));
        while let Some((one, other)) = new.pop() {
            if !pairs.insert((one, other)) || !self.may_be_same(one, other) {
                continue;
            }
            let (after_one, after_other) = (&self.graph.follow[one], &self.graph.follow[other]);
            if pairs.len() + new.len() + after_one.len() * after_other.len() > PAIRS_MAX {
                return None;
            }
            let next =
                after_one.iter().flat_map(|one| after_other.iter().map(|other| (*one.min(other), *one.max(other))));
            new.extend(next.filter(|pair| !pairs.contains(pair)));
        }
        Some(pairs)
    }

    fn after(&self, terminal: TerminalId) -> Chars {
        let next = self.graph.follow[terminal].iter();
        next.fold(Chars::default(), |all, next| all.or(self.terminals[*next].first))
    }

    fn may_be_same(&self, one: TerminalId, other: TerminalId) -> bool {
        one == other || self.may_be_beginning(one, other) && self.may_be_beginning(other, one)
    }

    /// Returns true if a text of `one` may be a text of `other` or the beginning of one.
    fn may_be_beginning(&self, one: TerminalId, other: TerminalId) -> bool {
        let (one, other) = (&self.terminals[one], &self.terminals[other]);
        let fits = match (&one.text, &other.text) {
            (Some(one), Some(other)) => other.starts_with(one),
            (Some(text), None) => text.iter().all(|c| other.alphabet.has(*c)),
            (None, _) => one.alphabet.meets(other.alphabet),
        };
        fits && one.first.meets(other.first)
    }
}

/// Makes nodes of the parts of a grammar.
struct Maker<'a> {
    regular: &'a Regular<'a>,
    refused: &'a BTreeSet<WordId>,
    terminals: Vec<Terminal>,
}

impl Maker<'_> {
    fn body(&mut self, body: &Body, next_word: &mut WordId) -> Node {
        Node::Either(body.iter().map(|sequence| self.sequence(sequence, next_word)).collect())
    }

    fn sequence(&mut self, sequence: &[Item], next_word: &mut WordId) -> Node {
        let runs = self.regular.runs(sequence).into_iter();
        let nodes = runs.map(|run| match run {
            Run::Item(index) => self.item(&sequence[index], next_word),
            Run::Word(range) => {
                let id = *next_word;
                next_word.1 += 1;
                self.word(&sequence[range], id)
            }
        });
        Node::Row(nodes.collect())
    }

    fn word(&mut self, items: &[Item], id: WordId) -> Node {
        if self.refused.contains(&id) {
            return self.as_it_is(items);
        }
        let (first, is_nullable) = self.regular.of_sequence(items);
        let word = Some(Word { id, goes_on: self.regular.goes_on(items) });
        let terminal = Terminal { first, alphabet: self.regular.alphabet(items), text: None, word };
        let node = self.terminal(terminal);
        if is_nullable { Node::Either(vec![node, Node::Row(Vec::new())]) } else { node }
    }

    fn item(&mut self, item: &Item, next_word: &mut WordId) -> Node {
        let node = match &item.part {
            Part::Group(body) => self.body(body, next_word),
            Part::Rule(_) | Part::Text(..) | Part::Class(..) | Part::Any | Part::Word(_) => self.single(item),
        };
        as_often(item, node)
    }

    /// Makes a node of items in which there is no word.
    fn as_it_is(&mut self, items: &[Item]) -> Node {
        let nodes = items.iter().map(|item| {
            let node = match &item.part {
                Part::Group(body) => Node::Either(body.iter().map(|items| self.as_it_is(items)).collect()),
                Part::Rule(_) | Part::Text(..) | Part::Class(..) | Part::Any | Part::Word(_) => self.single(item),
            };
            as_often(item, node)
        });
        Node::Row(nodes.collect())
    }

    fn single(&mut self, item: &Item) -> Node {
        match &item.part {
            Part::Rule(name) => Node::Rule(*name),
            Part::Text(_, Some(text)) if text.is_empty() => Node::Row(Vec::new()),
            Part::Text(_, text) => self.class(item, text.clone()),
            Part::Class(..) | Part::Any | Part::Word(_) | Part::Group(_) => self.class(item, None),
        }
    }

    fn class(&mut self, item: &Item, text: Option<Vec<char>>) -> Node {
        let (first, _) = self.regular.of_item(item);
        let alphabet = self.regular.alphabet(std::slice::from_ref(item));
        self.terminal(Terminal { first, alphabet, text, word: None })
    }

    fn terminal(&mut self, terminal: Terminal) -> Node {
        self.terminals.push(terminal);
        Node::Terminal(self.terminals.len() - 1)
    }
}

fn as_often(item: &Item, node: Node) -> Node {
    let node = if is_repeated(item) { Node::Repeated(Box::new(node)) } else { node };
    if may_be_left_out(item) { Node::Either(vec![node, Node::Row(Vec::new())]) } else { node }
}
