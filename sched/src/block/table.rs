//! Blocks of one sequence in the order of its positions; knows no tokens.

use super::BlockPool;
use crate::BlockId;

/// Blocks needed for positions `0..tokens`.
#[must_use]
pub fn blocks_for(tokens: u32, block_tokens: u32) -> u32 {
    tokens.div_ceil(block_tokens)
}

/// Block of each position of a sequence. Holds one reference per entry; `release` gives them back.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
}

impl BlockTable {
    /// All entries.
    #[must_use]
    pub fn blocks(&self) -> &[BlockId] {
        &self.blocks
    }

    /// Number of entries.
    #[must_use]
    pub fn len(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// True if there are no entries.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Adds a block whose reference the table takes over.
    pub fn push(&mut self, block: BlockId) {
        self.blocks.push(block);
    }

    /// Puts a private copy in place of a shared block, and gives back the reference to the shared one.
    pub fn replace(&mut self, index: u32, copy: BlockId, pool: &mut BlockPool) {
        let shared = std::mem::replace(&mut self.blocks[index as usize], copy);
        pool.release(shared);
    }

    /// Makes a second table over the same blocks.
    #[must_use]
    pub fn fork(&self, pool: &mut BlockPool) -> BlockTable {
        self.blocks.iter().for_each(|block| pool.retain(*block));
        BlockTable { blocks: self.blocks.clone() }
    }

    /// Gives every reference back, the last block first, so that the head of a prompt is evicted last.
    pub fn release(&mut self, pool: &mut BlockPool) {
        self.blocks.drain(..).rev().for_each(|block| pool.release(block));
    }
}
