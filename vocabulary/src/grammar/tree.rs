//! The vocabulary as a tree of bytes, and the parts of it that can be allowed at once; knows no grammar.

use llguidance::derivre::Regex;
use llguidance::toktrie::{SimpleVob, TokTrie, TrieNode};

/// A set of parts, one bit each.
pub(super) type PartSet = u16;
/// Most bytes of a token: the library panics at longer ones, and masks go down into tokens recursively. GLM-4 has one of
/// 1,024 spaces.
const TOKEN_BYTES_MAX: usize = 1_024;
/// Token of a node at which none ends.
const NO_TOKEN: u32 = u32::MAX;

/// All tokens but those with the byte that marks control tokens.
pub(super) struct Tree {
    nodes: Vec<Node>,
    depth: u16,
    parts: Vec<Part>,
    /// Tokens with that byte.
    pub(super) marked: TokTrie,
}

/// One byte of a token, after those of the nodes above it. Its descendants come directly behind it.
#[derive(Clone, Copy)]
pub(super) struct Node {
    pub(super) byte: u8,
    /// Parts that have all tokens that end here or below.
    pub(super) parts: PartSet,
    /// Bytes from the beginning of the token to here.
    pub(super) depth: u16,
    token: u32,
    /// The first node that is not below it.
    pub(super) end: u32,
}

/// Tokens that match a regular expression.
pub(super) struct Part {
    pub(super) tokens: SimpleVob,
    /// Parts that have all of its tokens, this one among them.
    pub(super) within: PartSet,
    /// Index of its expression.
    pub(super) expression: usize,
}

impl Tree {
    /// Index of the node above all.
    pub(super) const ROOT: u32 = 0;

    /// Lays out the tokens, whose lengths are checked; `expressions` are those of the parts.
    ///
    /// # Errors
    /// When an expression is not valid, or if there are too many.
    pub(super) fn new(trie: &TokTrie, expressions: &[String]) -> Result<Tree, String> {
        if expressions.len() > PartSet::BITS as usize {
            return Err("there are too many parts of a vocabulary".to_owned());
        }
        let mut parts = Vec::new();
        for (expression, regex) in expressions.iter().enumerate() {
            parts.push(Part { tokens: matching(trie, regex)?, within: 0, expression });
        }
        parts.sort_by_key(|part| std::cmp::Reverse(part.tokens.num_set()));
        put_within_each_other(&mut parts);
        let mut tree = Tree { nodes: Vec::new(), depth: 0, parts, marked: marked(trie) };
        tree.add(trie, trie.root(), 0);
        Ok(tree)
    }

    /// Adds a node and all below it; returns the parts that have them all.
    fn add(&mut self, trie: &TokTrie, node: &TrieNode, depth: u16) -> PartSet {
        self.depth = self.depth.max(depth);
        let index = self.nodes.len();
        let token = node.token_id().unwrap_or(NO_TOKEN);
        let mut all = bits(&self.parts, |part| token == NO_TOKEN || part.tokens.is_allowed(token));
        self.nodes.push(Node { byte: node.byte(), parts: 0, depth, token, end: 0 });
        for child in trie.node_children(node) {
            if child.byte() != TokTrie::SPECIAL_TOKEN_MARKER {
                all &= self.add(trie, child, depth + 1);
            }
        }
        let end = self.nodes.len() as u32;
        if let Some(node) = self.nodes.get_mut(index) {
            (node.parts, node.end) = (all, end);
        }
        all
    }

    /// The parts, larger ones first; bits of a set count in this order.
    pub(super) fn parts(&self) -> &[Part] {
        &self.parts
    }

    /// Bytes of the longest token.
    pub(super) fn depth(&self) -> u16 {
        self.depth
    }

    pub(super) fn nodes(&self) -> &[Node] {
        &self.nodes
    }
}

impl Node {
    /// The token that ends here.
    pub(super) fn token(&self) -> Option<u32> {
        (self.token != NO_TOKEN).then_some(self.token)
    }
}

/// Checks the bytes of all tokens.
///
/// # Errors
/// When one is too long.
pub(super) fn check_lengths(words: &[Vec<u8>]) -> Result<(), String> {
    match words.iter().position(|word| word.len() > TOKEN_BYTES_MAX) {
        Some(token) => Err(format!("token {token} has more than {TOKEN_BYTES_MAX} bytes")),
        None => Ok(()),
    }
}

fn matching(trie: &TokTrie, expression: &str) -> Result<SimpleVob, String> {
    let mut regex = Regex::new(expression).map_err(|error| format!("{expression}: {error}"))?;
    let mut tokens = trie.alloc_token_set();
    for token in 0..trie.vocab_size() as u32 {
        let bytes = trie.token(token);
        if !bytes.is_empty() && regex.is_match_bytes(bytes) {
            tokens.allow_token(token);
        }
    }
    Ok(tokens)
}

fn marked(trie: &TokTrie) -> TokTrie {
    let mut tokens = trie.alloc_token_set();
    for token in 0..trie.vocab_size() as u32 {
        if trie.token(token).contains(&TokTrie::SPECIAL_TOKEN_MARKER) {
            tokens.allow_token(token);
        }
    }
    trie.filter(&tokens)
}

fn put_within_each_other(parts: &mut [Part]) {
    let has_all = |larger: &SimpleVob, smaller: &SimpleVob| {
        let mut rest = smaller.clone();
        rest.sub(larger);
        rest.is_zero()
    };
    let within: Vec<PartSet> =
        parts.iter().map(|part| bits(parts, |other| has_all(&other.tokens, &part.tokens))).collect();
    for (part, within) in parts.iter_mut().zip(within) {
        part.within = within;
    }
}

/// Returns the parts that `is_in` is true of.
fn bits(parts: &[Part], is_in: impl Fn(&Part) -> bool) -> PartSet {
    (0..).zip(parts).filter(|(_, part)| is_in(part)).fold(0, |all: PartSet, (bit, _)| all | 1 << bit)
}

#[cfg(test)]
mod tests {
    use llguidance::toktrie::TokRxInfo;

    use super::*;

    fn tree(words: &[Vec<u8>]) -> Result<Tree, String> {
        let trie = TokTrie::from(&TokRxInfo::new(words.len() as u32, 0), words);
        Tree::new(&trie, &["[a-z]+".to_owned(), "[a-z ]+".to_owned()])
    }

    #[test]
    fn a_node_has_the_parts_that_have_all_tokens_below_it() {
        let words = ["", "ab", "abc", "a ", "\u{7f}", " "].map(|word| word.as_bytes().to_vec());
        let tree = tree(&[words.as_slice(), &[vec![b'a', 0xff]]].concat()).unwrap();
        let nodes: Vec<_> = tree.nodes().iter().map(|node| (node.byte, node.parts, node.token(), node.end)).collect();
        let parts: Vec<_> = tree.parts().iter().map(|part| (part.expression, part.within)).collect();
        assert_eq!(parts, [(1, 0b01), (0, 0b11)], "the larger one comes first");
        assert_eq!(
            nodes[1..],
            [
                (b' ', 0b01, Some(5), 2),
                (b'a', 0b01, None, 6),
                (b' ', 0b01, Some(3), 4),
                (b'b', 0b11, Some(1), 6),
                (b'c', 0b11, Some(2), 6),
                (0x7f, 0b00, Some(4), 7),
            ],
            "without the token that has the mark"
        );
        assert_eq!((tree.depth(), tree.marked.token(6)), (3, [b'a', 0xff].as_slice()));
    }

    #[test]
    fn a_token_that_is_too_long_is_refused() {
        let longest = [Vec::new(), vec![b' '; TOKEN_BYTES_MAX]];
        check_lengths(&longest).unwrap();
        assert_eq!(usize::from(tree(&longest).unwrap().depth()), TOKEN_BYTES_MAX);
        let error = check_lengths(&[Vec::new(), vec![b' '; TOKEN_BYTES_MAX + 1]]).unwrap_err();
        assert_eq!(error, "token 1 has more than 1024 bytes");
    }
}
