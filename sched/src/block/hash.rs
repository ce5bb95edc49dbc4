//! Names for the content of KV blocks: a hash of every token up to the block's end; knows no block ids.
//!
//! The hash is chained over fixed units of 16 tokens, so that workers with different block sizes give the same name
//! to the same tokens. Two prompts share a block exactly when they share everything before it as well.

use xxhash_rust::xxh3::xxh3_128;

use crate::TokenId;

/// Tokens per link of the chain. Every block size is a multiple of it.
pub const HASH_UNIT_TOKENS: u32 = 16;

const UNIT: usize = HASH_UNIT_TOKENS as usize;
const HASH_BYTES: usize = size_of::<u128>();

/// Name of all tokens from position 0 to the end of some unit, under one model and adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ContentHash(pub u128);

impl ContentHash {
    /// Start of a chain; `salt` tells models and adapters apart.
    #[must_use]
    pub fn root(salt: u64) -> ContentHash {
        ContentHash(xxh3_128(&salt.to_le_bytes()))
    }

    /// Extends the chain by one unit.
    #[must_use]
    pub fn extend(self, unit: &[TokenId; UNIT]) -> ContentHash {
        let mut bytes = [0_u8; HASH_BYTES + UNIT * size_of::<u32>()];
        bytes[..HASH_BYTES].copy_from_slice(&self.0.to_le_bytes());
        for (slot, token) in bytes[HASH_BYTES..].chunks_exact_mut(size_of::<u32>()).zip(unit) {
            slot.copy_from_slice(&token.0.to_le_bytes());
        }
        ContentHash(xxh3_128(&bytes))
    }
}

/// Names of the full blocks of one growing sequence of tokens, each computed once.
#[derive(Debug, Clone)]
pub struct HashChain {
    block_tokens: u32,
    last: ContentHash,
    blocks: Vec<ContentHash>,
}

impl HashChain {
    /// An empty chain for blocks of `block_tokens` tokens, a multiple of 16.
    #[must_use]
    pub fn new(salt: u64, block_tokens: u32) -> HashChain {
        assert!(
            block_tokens > 0 && block_tokens.is_multiple_of(HASH_UNIT_TOKENS),
            "a block of {block_tokens} tokens is not made of whole hash units"
        );
        HashChain { block_tokens, last: ContentHash::root(salt), blocks: Vec::new() }
    }

    /// Returns the names of the first `full_blocks` blocks; `token_at` gives the token of a position they cover.
    pub fn first(&mut self, full_blocks: u32, token_at: impl Fn(u32) -> TokenId) -> &[ContentHash] {
        let wanted = full_blocks as usize;
        while self.blocks.len() < wanted {
            let start = self.blocks.len() as u32 * self.block_tokens;
            for unit_start in (start..start + self.block_tokens).step_by(UNIT) {
                let unit = std::array::from_fn(|offset| token_at(unit_start + offset as u32));
                self.last = self.last.extend(&unit);
            }
            self.blocks.push(self.last);
        }
        &self.blocks[..wanted]
    }

    /// Names that were asked for until now.
    #[must_use]
    pub fn known(&self) -> &[ContentHash] {
        &self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain_of(block_tokens: u32, tokens: u32) -> Vec<ContentHash> {
        HashChain::new(7, block_tokens).first(tokens / block_tokens, TokenId).to_vec()
    }

    #[test]
    fn block_sizes_agree_where_their_blocks_end_together() {
        let small = chain_of(16, 96);
        let large = chain_of(48, 96);
        assert_eq!(large, vec![small[2], small[5]]);
    }

    #[test]
    fn a_name_depends_on_everything_before_it_and_on_the_salt() {
        let plain = chain_of(16, 32);
        let changed = HashChain::new(7, 16).first(2, |p| TokenId(if p == 3 { 99 } else { p })).to_vec();
        let salted = HashChain::new(8, 16).first(2, TokenId).to_vec();
        assert_ne!(plain[1], changed[1]);
        assert_ne!(plain[1], salted[1]);
    }

    #[test]
    fn a_chain_that_grows_gives_the_names_of_one_computed_at_once() {
        let mut chain = HashChain::new(7, 16);
        chain.first(1, TokenId);
        assert_eq!(chain.first(4, TokenId), chain_of(16, 64));
    }
}
