//! Prompts: tokens or words for a row, as a function of salt, block id and row; knows no tokenizer.

use sched::rng;

use super::Row;
use crate::{Error, Result};

/// Token ids that prompts are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenRange {
    first: u32,
    end: u32,
}

impl Default for TokenRange {
    /// Ids that vocabularies of 1,200 tokens and more have, above the control tokens that usually come first.
    fn default() -> TokenRange {
        TokenRange { first: 300, end: 1200 }
    }
}

impl TokenRange {
    /// Reads `FIRST..END`; the end is not part of it.
    pub fn parse(text: &str) -> Result<TokenRange> {
        let bounds = text.split_once("..").and_then(|(first, end)| Some((first.parse().ok()?, end.parse().ok()?)));
        match bounds {
            Some((first, end)) if first < end => Ok(TokenRange { first, end }),
            _ => Err(Error::Settings(format!("token ids {text:?}: expected FIRST..END"))),
        }
    }
}

/// Maker of prompts. Another salt gives other tokens with the same lengths and the same shared blocks, so that a prefix
/// cache holds nothing of an earlier run.
#[derive(Debug, Clone, Copy)]
pub struct Prompts {
    salt: u64,
    range: TokenRange,
    block_tokens: u32,
}

/// Purpose of a run of tokens.
#[derive(Clone, Copy)]
enum Part {
    /// Block with this id.
    Block(u64),
    /// Unique end of the prompt of this row.
    Tail(u64),
}

impl Prompts {
    /// Maker for rows whose blocks have `block_tokens` tokens each.
    #[must_use]
    pub fn new(salt: u64, range: TokenRange, block_tokens: u32) -> Prompts {
        Prompts { salt, range, block_tokens }
    }

    /// Appends the token ids of the prompt of `row`, the `index`-th of its workload.
    pub fn tokens(&self, index: u64, row: &Row, tokens: &mut Vec<u32>) {
        let width = u64::from(self.range.end - self.range.first);
        let input_tokens = row.input_tokens as usize;
        let start = tokens.len();
        for part in row.blocks.iter().map(|id| Part::Block(*id)).chain([Part::Tail(index)]) {
            let left = input_tokens - (tokens.len() - start);
            let part_tokens = match part {
                Part::Block(_) => left.min(self.block_tokens as usize),
                Part::Tail(_) => left,
            };
            let seed = self.seed(part);
            let hashes = (0..part_tokens as u64).map(|position| rng::token_hash(seed, position));
            tokens.extend(hashes.map(|hash| self.range.first + (hash % width) as u32));
        }
    }

    /// Text of about as many tokens: one short common word for each.
    #[must_use]
    pub fn text(&self, index: u64, row: &Row) -> String {
        let mut tokens = Vec::with_capacity(row.input_tokens as usize);
        self.tokens(index, row, &mut tokens);
        let words: Vec<&str> = tokens.iter().map(|token| WORDS[*token as usize % WORDS.len()]).collect();
        words.join(" ")
    }

    fn seed(&self, part: Part) -> u64 {
        match part {
            Part::Block(id) => rng::token_hash(rng::token_hash(self.salt, 0), id),
            Part::Tail(index) => rng::token_hash(rng::token_hash(self.salt, 1), index),
        }
    }
}

/// Words that are one token, with the space before them, in most vocabularies.
const WORDS: [&str; 64] = [
    "the", "of", "and", "to", "in", "is", "that", "for", "it", "was", "on", "are", "as", "with", "his", "they", "at",
    "be", "this", "have", "from", "or", "one", "had", "by", "but", "not", "what", "all", "were", "we", "when", "your",
    "can", "said", "there", "use", "an", "each", "which", "she", "do", "how", "their", "if", "will", "up", "other",
    "about", "out", "many", "then", "them", "so", "some", "her", "would", "make", "like", "him", "into", "time", "has",
    "look",
];

#[cfg(test)]
mod tests {
    use super::*;

    fn row(input_tokens: u32, blocks: &[u64]) -> Row {
        Row { at_us: 0, input_tokens, output_tokens: 1, blocks: blocks.into(), class: None }
    }

    fn tokens(prompts: Prompts, index: u64, row: &Row) -> Vec<u32> {
        let mut tokens = Vec::new();
        prompts.tokens(index, row, &mut tokens);
        tokens
    }

    #[test]
    fn equal_blocks_are_equal_tokens_and_tails_are_unique() {
        let prompts = Prompts::new(1, TokenRange::default(), 16);
        let first = tokens(prompts, 0, &row(40, &[5, 6]));
        let second = tokens(prompts, 1, &row(40, &[5, 7]));
        assert_eq!((first.len(), &first[..16]), (40, &second[..16]));
        assert_ne!(first[16..32], second[16..32]);
        assert_ne!(first[32..], second[32..], "the tails differ");
        assert_eq!(
            first[..20],
            tokens(prompts, 9, &row(20, &[5, 6])),
            "a block that is cut is the start of a whole one"
        );
        assert_ne!(first, tokens(Prompts::new(2, TokenRange::default(), 16), 0, &row(40, &[5, 6])), "another salt");
        assert!(first.iter().all(|token| (300..1200).contains(token)));
    }

    #[test]
    fn texts_have_a_word_per_token() {
        let prompts = Prompts::new(1, TokenRange::parse("0..50000").unwrap(), 16);
        let text = prompts.text(0, &row(37, &[1]));
        assert_eq!(text.split(' ').count(), 37);
        assert!(text.split(' ').all(|word| WORDS.contains(&word)));
        for text in ["", "5", "5..5", "7..2", "a..b", "-1..4"] {
            assert!(TokenRange::parse(text).is_err(), "{text}");
        }
    }
}
