//! Masks from what is known of the states of a lexer; knows no grammar.
//!
//! Whether a token that stays within one word is allowed depends on the state of the lexer alone, wherever the parser is.
//! So each state is looked at once (`look.rs`): which tokens stay within the word, and where words end within tokens. A
//! mask asks the parser once for each way a word can end, not for each token, and goes on with the rest of the tokens in
//! the same way. What comes out is what going through the vocabulary token by token does.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use llguidance::HashMap;
use llguidance::derivre::StateID;
use llguidance::earley::{BiasComputer, ParserRecognizer};
use llguidance::toktrie::{Recognizer, SimpleVob, TokTrie};

use super::Vocabulary;
use super::look::{Look, Seen, Steps};
use super::tree::{PartSet, Tree};

/// Memory of what is known of one lexer from which on it is forgotten.
const KNOWN_BYTES_MAX: usize = 8 << 20;
/// Most ends of words that are looked at for one mask; some grammars have one at each byte of each token.
const ENDS_MAX: usize = 20_000;
/// Memory of a place besides its nodes: its entry, and what its nodes are counted with.
const PLACE_BYTES: usize = size_of::<(Arc<[u32]>, PlaceId)>() + 2 * size_of::<usize>();
/// What it may cost to find out whether a state allows a part of the vocabulary, in the library's units, as the library
/// itself has it.
const PART_BUDGET: u64 = 1_000;

/// Computes the masks of texts that share a lexer.
pub(super) struct Masks {
    vocabulary: Arc<Vocabulary>,
    known: Mutex<Known>,
}

/// What is known of the states of one lexer, whose numbers mean nothing to another.
#[derive(Clone, Default)]
pub(super) struct Known {
    seen: Vec<Arc<Seen>>,
    /// Indices of what was seen, by place and state.
    index: HashMap<(PlaceId, u32), usize>,
    places: HashMap<Arc<[u32]>, PlaceId>,
    bytes: usize,
}

/// A place within tokens: nodes of the tree below which tokens go on when a word has ended.
pub(super) type PlaceId = usize;
/// The place before all tokens.
const START: PlaceId = 0;

impl Masks {
    pub(super) fn new(vocabulary: Arc<Vocabulary>) -> Masks {
        Masks { vocabulary, known: Mutex::default() }
    }

    /// Returns one for a copy of the lexer.
    pub(super) fn fork(&self) -> Masks {
        Masks { vocabulary: Arc::clone(&self.vocabulary), known: Mutex::new(self.known().clone()) }
    }

    /// Memory that it takes, by estimate. Copies share most of it.
    pub(super) fn bytes(&self) -> usize {
        self.known().bytes
    }

    /// Number of states that are known, each counted once for each place.
    pub(super) fn states(&self) -> usize {
        self.known().seen.len()
    }

    /// Forgets everything.
    #[cfg(test)]
    pub(super) fn forget(&self) {
        self.known().forget_beyond(0);
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl BiasComputer for Masks {
    fn compute_bias(&self, parser: &mut ParserRecognizer<'_>, start: &[u8]) -> SimpleVob {
        let mut mask = self.trie().alloc_token_set();
        // The library asks this of vocabularies whose tokens it chooses itself, which ours is not.
        if !start.is_empty() {
            self.trie().add_bias(parser, &mut mask, start);
            return mask;
        }
        let tree = &self.vocabulary.tree;
        let mut known = self.known();
        let steps = std::mem::take(&mut *self.vocabulary.steps());
        let mut allowing = Allowing { tree, known: &mut known, mask: &mut mask, steps, way: Vec::new(), ends: 0 };
        let all = allowing.all(parser);
        *self.vocabulary.steps() = allowing.steps;
        if all.is_err() {
            self.trie().add_bias(parser, &mut mask, &[]);
        }
        tree.marked.add_bias(parser, &mut mask, &[]);
        // Not before, so that no more is kept between masks, nor copied for another text.
        known.forget_beyond(KNOWN_BYTES_MAX);
        mask
    }

    fn trie(&self) -> &TokTrie {
        self.vocabulary.env.tok_trie()
    }
}

/// A mask that is being computed. What is seen stays known while it is, so that the indices are valid.
struct Allowing<'a> {
    tree: &'a Tree,
    known: &'a mut Known,
    mask: &'a mut SimpleVob,
    /// Memory for looks.
    steps: Steps,
    /// Bytes that the parser has taken since the beginning of the tokens.
    way: Vec<u8>,
    /// Ends that were seen for this mask.
    ends: usize,
}

/// Why a mask cannot be computed in this way.
enum Stop {
    /// The parser no longer takes what it took before; most likely it has reached a bound, which the library will say.
    LostWay,
    /// Too much would have to be looked at.
    TooManyEnds,
}

/// An end of a word: index of what was seen, and in that.
type EndId = (usize, usize);

impl Allowing<'_> {
    /// Allows all that the parser takes, byte by byte if that is less work.
    fn all(&mut self, parser: &mut ParserRecognizer<'_>) -> Result<(), Stop> {
        let state = parser.lexer_state();
        parser.trie_started("mask");
        let mut all = self.all_after(None, parser);
        parser.trie_finished();
        if let Err(Stop::TooManyEnds) = all {
            self.known.hold_unclear(state);
            self.way.clear();
            parser.trie_started("mask byte by byte");
            all = self.byte_by_byte(Tree::ROOT, parser);
            parser.trie_finished();
        }
        all
    }

    /// Allows what the parser takes of the tokens that go on after the end of a word; of all tokens without one.
    fn all_after(&mut self, end: Option<EndId>, parser: &mut ParserRecognizer<'_>) -> Result<(), Stop> {
        let seen = self.seen_after(end, parser);
        if self.ends > ENDS_MAX {
            return Err(Stop::TooManyEnds);
        }
        if self.known.seen[seen].is_unclear {
            return self.nodes_after(end).iter().try_for_each(|node| self.byte_by_byte(*node, parser));
        }
        self.known.seen[seen].within.add_to(self.mask);
        for index in 0..self.known.seen[seen].ends.len() {
            let end = &self.known.seen[seen].ends[index];
            if push(&end.path, parser) {
                let pushed = end.path.len();
                end.tokens.iter().for_each(|token| self.mask.allow_token(*token));
                if !end.nodes.is_empty() {
                    self.way.extend_from_slice(&end.path);
                    self.all_after(Some((seen, index)), parser)?;
                    self.way.truncate(self.way.len() - pushed);
                }
                parser.pop_bytes(pushed);
            }
        }
        Ok(())
    }

    /// Allows what the parser takes of the tokens below a node. To read hidden bytes again the parser changes what it knew
    /// after each of them, and does not change it back: so from behind such an end it has to take the way again.
    fn byte_by_byte(&mut self, node: u32, parser: &mut ParserRecognizer<'_>) -> Result<(), Stop> {
        let nodes = self.tree.nodes();
        let (top, mut at, start) = (nodes[node as usize], node + 1, self.way.len());
        // Lengths of the way behind such ends.
        let mut hiding: Vec<usize> = Vec::new();
        while at < top.end {
            let node = nodes[at as usize];
            self.go_back(start + usize::from(node.depth - top.depth) - 1, &mut hiding, parser)?;
            if may_hide(node.byte, parser) {
                hiding.push(self.way.len() + 1);
            }
            if parser.try_push_byte(node.byte) {
                self.way.push(node.byte);
                node.token().into_iter().for_each(|token| self.mask.allow_token(token));
                at += 1;
            } else {
                at = node.end;
            }
        }
        self.go_back(start, &mut hiding, parser)
    }

    /// Goes back to where the way had this length.
    fn go_back(
        &mut self,
        length: usize,
        hiding: &mut Vec<usize>,
        parser: &mut ParserRecognizer<'_>,
    ) -> Result<(), Stop> {
        let is_known = hiding.last().is_none_or(|behind| *behind <= length);
        parser.pop_bytes(self.way.len() - if is_known { length } else { 0 });
        self.way.truncate(length);
        hiding.retain(|behind| *behind <= length);
        match is_known || self.way.iter().all(|byte| parser.try_push_byte(*byte)) {
            true => Ok(()),
            false => Err(Stop::LostWay),
        }
    }

    /// Nodes below which tokens go on.
    fn nodes_after(&self, end: Option<EndId>) -> Arc<[u32]> {
        match end {
            Some((seen, index)) => Arc::clone(&self.known.seen[seen].ends[index].nodes),
            None => Arc::from([Tree::ROOT]),
        }
    }

    /// Returns the index of what is seen in the present state, after a look if need be. Not inlined, so that the recursion
    /// takes little of the stack.
    #[inline(never)]
    fn seen_after(&mut self, end: Option<EndId>, parser: &mut ParserRecognizer<'_>) -> usize {
        let state = parser.lexer_state();
        let place = end.map_or(START, |(seen, index)| self.known.seen[seen].ends[index].place);
        let key = (place, state.as_u32());
        if let Some(seen) = self.known.index.get(&key) {
            return *seen;
        }
        let parts = if end.is_none() { parts_allowed(self.tree, state, parser) } else { 0 };
        let mut look = Look::new(self.tree, parts, std::mem::take(&mut self.steps));
        let nodes = self.nodes_after(end);
        nodes.iter().for_each(|node| look.below(*node, state, parser));
        let seen = look.over(self.known, &mut self.steps);
        self.ends += seen.ends.len();
        self.known.hold(key, seen)
    }
}

impl Known {
    /// Holds what was seen in a place and state; returns its index.
    fn hold(&mut self, key: (PlaceId, u32), seen: Seen) -> usize {
        self.bytes += seen.bytes();
        self.index.insert(key, self.seen.len());
        self.seen.push(Arc::new(seen));
        self.seen.len() - 1
    }

    /// Holds that masks in this state are computed byte by byte.
    fn hold_unclear(&mut self, state: StateID) {
        self.hold((START, state.as_u32()), Seen::unclear());
    }

    /// Forgets everything if it takes more memory than this.
    fn forget_beyond(&mut self, bytes: usize) {
        if self.bytes > bytes {
            *self = Known::default();
        }
    }

    /// Returns the place with these nodes.
    pub(super) fn place(&mut self, nodes: Vec<u32>) -> (Arc<[u32]>, PlaceId) {
        if let Some((nodes, place)) = self.places.get_key_value(nodes.as_slice()) {
            return (Arc::clone(nodes), *place);
        }
        let place = START + 1 + self.places.len();
        let nodes: Arc<[u32]> = nodes.into();
        self.bytes += size_of_val(&*nodes) + PLACE_BYTES;
        self.places.insert(Arc::clone(&nodes), place);
        (nodes, place)
    }
}

/// Goes on by some bytes; returns false, without having done so, if the parser does not take them.
fn push(path: &[u8], parser: &mut ParserRecognizer<'_>) -> bool {
    for (pushed, byte) in path.iter().enumerate() {
        if !parser.try_push_byte(*byte) {
            parser.pop_bytes(pushed);
            return false;
        }
    }
    true
}

/// Returns true if a word may end with the byte from which more than that byte is hidden.
fn may_hide(byte: u8, parser: &mut ParserRecognizer<'_>) -> bool {
    let state = parser.lexer_state();
    let lexer = parser.lexer_mut();
    let after = lexer.transition_start_state(state, Some(byte), &None);
    after.has_lowest_match() && lexer.possible_hidden_len(after) > 1
}

/// Returns the parts of the vocabulary all of whose tokens stay within a word.
fn parts_allowed(tree: &Tree, state: StateID, parser: &mut ParserRecognizer<'_>) -> PartSet {
    let lexer = parser.lexer_mut();
    if !lexer.subsume_possible(state) {
        return 0;
    }
    let mut allowed: PartSet = 0;
    for (bit, part) in tree.parts().iter().enumerate() {
        let is_known = part.within & allowed != 0;
        if is_known || lexer.check_subsume(state, part.expression, PART_BUDGET, None).unwrap_or(false) {
            allowed |= 1 << bit;
        }
    }
    allowed
}
