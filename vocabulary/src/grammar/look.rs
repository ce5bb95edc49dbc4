//! What the tokens of a vocabulary do in a state of a lexer; asks no parser.

use std::sync::Arc;

use llguidance::HashMap;
use llguidance::derivre::StateID;
use llguidance::earley::ParserRecognizer;
use llguidance::toktrie::SimpleVob;

use super::LIMITS;
use super::masks::{Known, PlaceId};
use super::tree::{Node, PartSet, Tree};

/// Tokens up to which a set of them is a list; bits take less from there on.
const LISTED_TOKENS_MAX: usize = 1_000;
/// Most states of the steps that are kept for further looks, 1 KiB each.
const SPARE_STEPS_MAX: usize = 1_024;
const _: () = assert!(LIMITS.max_lexer_states < u16::MAX as usize, "states are numbered with 16 bits");

/// What tokens do from a place on.
pub(super) struct Seen {
    /// Tokens that stay within the word.
    pub(super) within: Tokens,
    pub(super) ends: Vec<End>,
    /// What tokens do depends on more than is seen, so that the parser must be asked byte by byte.
    pub(super) is_unclear: bool,
}

/// The end of a word, in all tokens in which it is one to the parser.
pub(super) struct End {
    /// A way there, the byte at which it ends being the last.
    pub(super) path: Vec<u8>,
    /// Tokens that end there too.
    pub(super) tokens: Vec<u32>,
    /// Nodes below which tokens go on: those of the place.
    pub(super) nodes: Arc<[u32]>,
    pub(super) place: PlaceId,
}

pub(super) enum Tokens {
    Listed(Vec<u32>),
    Bits(SimpleVob),
}

/// A look that is not over.
pub(super) struct Look<'a> {
    tree: &'a Tree,
    /// Parts of the vocabulary that stay within the word, which need no look.
    parts: PartSet,
    within: Vec<u32>,
    ends: Vec<Open>,
    is_unclear: bool,
    end_of_word: HashMap<Word, u16>,
    /// States that were met, by number, and what each byte does in them.
    states: Vec<StateID>,
    numbers: HashMap<u32, u16>,
    steps: Steps,
    /// Number of the state, and the byte, at each depth on the way to the present node.
    way: Vec<(u16, u8)>,
}

/// Of each state: what each byte does.
pub(super) type Steps = Vec<[Step; 256]>;

#[derive(Clone, Copy)]
pub(super) enum Step {
    Unknown,
    /// No word has the byte there.
    Refused,
    /// The word goes on, in the state of this number.
    Within(u16),
    /// A word ends, with the end of this index.
    End(u16),
    /// A word ends from which bytes may be hidden. They are read again, so that they matter, not only the state.
    Unclear,
}

/// All that the parser is told of the end of a word: those that have it in common are one to it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Word {
    /// The byte at which it ends is its last one; the state after it.
    WithByte(u32),
    /// It ends before the byte; the state before, and the byte, with which the next word begins.
    BeforeByte(u32, u8),
}

/// An end to which tokens are still added.
struct Open {
    word: Word,
    path: Vec<u8>,
    tokens: Vec<u32>,
    nodes: Vec<u32>,
}

impl<'a> Look<'a> {
    /// Begins; `steps` is memory.
    pub(super) fn new(tree: &'a Tree, parts: PartSet, steps: Steps) -> Look<'a> {
        Look {
            tree,
            parts,
            within: Vec::new(),
            ends: Vec::new(),
            is_unclear: false,
            end_of_word: HashMap::default(),
            states: Vec::new(),
            numbers: HashMap::default(),
            steps,
            way: vec![(0, 0); usize::from(tree.depth()) + 1],
        }
    }

    /// Looks at all tokens below a node, at which the lexer is in `state`. All indices are of nodes, of depths up to the
    /// tree's, or of states that have a number.
    pub(super) fn below(&mut self, node: u32, state: StateID, parser: &mut ParserRecognizer<'_>) {
        let nodes = self.tree.nodes();
        let (top, mut at) = (nodes[node as usize], node + 1);
        self.way[usize::from(top.depth)].0 = self.number(state);
        while at < top.end && !self.is_unclear {
            let node = nodes[at as usize];
            if node.parts & self.parts != 0 {
                at = node.end;
                continue;
            }
            let depth = usize::from(node.depth);
            let before = usize::from(self.way[depth - 1].0);
            let step = match self.steps[before][usize::from(node.byte)] {
                Step::Unknown => self.new_step(before, node.byte, parser),
                known => known,
            };
            if let Step::Within(after) = step {
                self.way[depth] = (after, node.byte);
                self.within.extend(node.token());
                at += 1;
                continue;
            }
            match step {
                Step::End(end) => self.add(end.into(), at, node, top),
                Step::Unclear => self.is_unclear = true,
                Step::Within(_) | Step::Refused | Step::Unknown => {}
            }
            at = node.end;
        }
    }

    /// Number of a state.
    fn number(&mut self, state: StateID) -> u16 {
        let new = self.states.len() as u16;
        let number = *self.numbers.entry(state.as_u32()).or_insert(new);
        if number == new {
            self.states.push(state);
            match self.steps.get_mut(usize::from(new)) {
                Some(steps) => *steps = [Step::Unknown; 256],
                None => self.steps.push([Step::Unknown; 256]),
            }
        }
        number
    }

    #[inline(never)]
    fn new_step(&mut self, before: usize, byte: u8, parser: &mut ParserRecognizer<'_>) -> Step {
        let (lexer, state) = (parser.lexer_mut(), self.states[before]);
        let after = lexer.transition_start_state(state, Some(byte), &None);
        let step = if after.has_lowest_match() {
            match lexer.possible_hidden_len(after) {
                0 => self.end_of(Word::WithByte(after.as_u32())),
                _ => Step::Unclear,
            }
        } else if !after.is_dead() {
            Step::Within(self.number(after))
        } else if lexer.advance(state, byte, false, &None).is_error() {
            Step::Refused
        } else {
            self.end_of(Word::BeforeByte(state.as_u32(), byte))
        };
        self.steps[before][usize::from(byte)] = step;
        step
    }

    fn end_of(&mut self, word: Word) -> Step {
        let Ok(new) = u16::try_from(self.ends.len()) else { return Step::Unclear };
        let end = *self.end_of_word.entry(word).or_insert(new);
        if end == new {
            self.ends.push(Open { word, path: Vec::new(), tokens: Vec::new(), nodes: Vec::new() });
        }
        Step::End(end)
    }

    /// Notes that a word ends at a node.
    fn add(&mut self, end: usize, at: u32, node: Node, top: Node) {
        let end = &mut self.ends[end];
        let (depth, top_depth) = (usize::from(node.depth), usize::from(top.depth));
        if end.path.is_empty() || end.path.len() > depth - top_depth {
            end.path.clear();
            end.path.extend(self.way[top_depth + 1..depth].iter().map(|(_, byte)| byte));
            end.path.push(node.byte);
        }
        end.tokens.extend(node.token());
        if node.end > at + 1 {
            end.nodes.push(at);
        }
    }

    /// Returns what was seen, and the memory.
    pub(super) fn over(mut self, known: &mut Known, steps: &mut Steps) -> Seen {
        self.steps.truncate(SPARE_STEPS_MAX);
        *steps = self.steps;
        if self.is_unclear {
            return Seen::unclear();
        }
        // The parser remembers what it found for a word until it is asked of another.
        self.ends.sort_by_key(|end| end.word);
        let end = |end: Open| {
            let (nodes, place) = known.place(end.nodes);
            End { path: end.path, tokens: end.tokens, nodes, place }
        };
        let ends = self.ends.into_iter().map(end).collect();
        Seen { within: Tokens::new(self.within, self.parts, self.tree), ends, is_unclear: false }
    }
}

impl Seen {
    pub(super) fn unclear() -> Seen {
        Seen { within: Tokens::Listed(Vec::new()), ends: Vec::new(), is_unclear: true }
    }

    /// Memory that it takes, by estimate.
    pub(super) fn bytes(&self) -> usize {
        let of_end = |end: &End| size_of::<End>() + end.path.capacity() + size_of::<u32>() * end.tokens.capacity();
        let within = match &self.within {
            Tokens::Listed(tokens) => size_of::<u32>() * tokens.capacity(),
            Tokens::Bits(tokens) => size_of_val(tokens.as_slice()),
        };
        size_of::<Seen>() + within + self.ends.iter().map(of_end).sum::<usize>()
    }
}

impl Tokens {
    fn new(listed: Vec<u32>, parts: PartSet, tree: &Tree) -> Tokens {
        if parts == 0 && listed.len() <= LISTED_TOKENS_MAX {
            return Tokens::Listed(listed);
        }
        let mut bits = tree.marked.alloc_token_set();
        let parts = tree.parts().iter().enumerate().filter(|(bit, _)| parts & 1 << bit != 0);
        parts.for_each(|(_, part)| bits.or(&part.tokens));
        listed.iter().for_each(|token| bits.allow_token(*token));
        Tokens::Bits(bits)
    }

    pub(super) fn add_to(&self, mask: &mut SimpleVob) {
        match self {
            Tokens::Listed(tokens) => tokens.iter().for_each(|token| mask.allow_token(*token)),
            Tokens::Bits(tokens) => mask.or(tokens),
        }
    }
}
