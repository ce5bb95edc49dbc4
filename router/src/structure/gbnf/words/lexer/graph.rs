//! Which terminals may follow which in a grammar; knows no character.

use std::collections::BTreeSet;

use super::TerminalId;

/// Most terminals that are looked at.
const TERMINALS_MAX: usize = 400;
/// Most rounds until all sets are complete.
const ROUNDS_MAX: usize = 200;

type Terminals = BTreeSet<TerminalId>;

/// A part of a grammar.
#[derive(Clone)]
pub(super) enum Node {
    Terminal(TerminalId),
    /// The rule of this number.
    Rule(usize),
    Row(Vec<Node>),
    Either(Vec<Node>),
    Repeated(Box<Node>),
}

pub(super) struct Graph {
    /// Terminals that a text may begin with.
    pub(super) start: Terminals,
    /// Of each terminal: those that may follow it.
    pub(super) follow: Vec<Terminals>,
}

impl Graph {
    /// `None` if it is too much.
    pub(super) fn new(rules: &[Node], root: usize, terminals: usize) -> Option<Graph> {
        if terminals > TERMINALS_MAX {
            return None;
        }
        let firsts = Firsts::new(rules)?;
        let mut follow = vec![Terminals::new(); terminals];
        let mut after_rules = vec![Terminals::new(); rules.len()];
        for _ in 0..ROUNDS_MAX {
            let before = after_rules.clone();
            for (rule, node) in rules.iter().enumerate() {
                let after = before[rule].clone();
                firsts.follow(node, &after, &mut follow, &mut after_rules);
            }
            if before == after_rules {
                return Some(Graph { start: firsts.of_rules[root].0.clone(), follow });
            }
        }
        None
    }
}

/// What each rule can begin with, and whether it can be empty.
struct Firsts {
    of_rules: Vec<(Terminals, bool)>,
}

impl Firsts {
    fn new(rules: &[Node]) -> Option<Firsts> {
        let mut firsts = Firsts { of_rules: vec![Default::default(); rules.len()] };
        for _ in 0..ROUNDS_MAX {
            let of_rules: Vec<_> = rules.iter().map(|node| firsts.of(node)).collect();
            if of_rules == firsts.of_rules {
                return Some(firsts);
            }
            firsts.of_rules = of_rules;
        }
        None
    }

    fn of(&self, node: &Node) -> (Terminals, bool) {
        match node {
            Node::Terminal(terminal) => (Terminals::from([*terminal]), false),
            Node::Rule(rule) => self.of_rules[*rule].clone(),
            Node::Repeated(node) => self.of(node),
            Node::Either(nodes) => {
                let of_nodes = nodes.iter().map(|node| self.of(node));
                of_nodes
                    .fold((Terminals::new(), false), |(all, is_empty), (first, too)| (&all | &first, is_empty || too))
            }
            Node::Row(nodes) => {
                let mut all = Terminals::new();
                for node in nodes {
                    let (first, can_be_empty) = self.of(node);
                    all.extend(first);
                    if !can_be_empty {
                        return (all, false);
                    }
                }
                (all, true)
            }
        }
    }

    /// Adds what follows the terminals and rules of a part, after which `after` may stand.
    fn follow(&self, node: &Node, after: &Terminals, follow: &mut [Terminals], after_rules: &mut [Terminals]) {
        match node {
            Node::Terminal(terminal) => follow[*terminal].extend(after),
            Node::Rule(rule) => after_rules[*rule].extend(after),
            Node::Repeated(node) => self.follow(node, &(after | &self.of(node).0), follow, after_rules),
            Node::Either(nodes) => nodes.iter().for_each(|node| self.follow(node, after, follow, after_rules)),
            Node::Row(nodes) => {
                let mut after = after.clone();
                for node in nodes.iter().rev() {
                    self.follow(node, &after, follow, after_rules);
                    let (first, can_be_empty) = self.of(node);
                    after = if can_be_empty { &after | &first } else { first };
                }
            }
        }
    }
}
