//! The state of every KV block of one worker; knows neither requests nor bytes.
//!
//! `free + cached + in use + quarantined = total` holds after every call. A block with several holders counts once.

use std::collections::BTreeMap;

use super::{hash::ContentHash, lru::Lru};
use crate::BlockId;

/// Accounting of the blocks of one worker. All operations are O(1), or O(log blocks) where content is looked up.
///
/// *References* count the holders of a block: block tables and reservations. *Accesses* count the steps and pulls in
/// flight that may touch its bytes whatever the references say; *reads* those that may still look at them. A block is
/// handed out again only when it has none of the three.
#[derive(Debug, Clone)]
pub struct BlockPool {
    blocks: Vec<Block>,
    free: Vec<BlockId>,
    cached: Lru,
    by_content: BTreeMap<ContentHash, BlockId>,
    in_use: u32,
    quarantined: u32,
}

#[derive(Debug, Clone, Copy, Default)]
struct Block {
    references: u32,
    accesses: u32,
    reads: u32,
    content: Option<ContentHash>,
}

impl Block {
    fn is_quiet(&self) -> bool {
        self.accesses == 0 && self.reads == 0
    }
}

/// References, accesses and reads of each block, as its owner counts.
#[derive(Debug, Clone, Default)]
pub struct Holdings {
    /// Block tables and reservations.
    pub references: BTreeMap<BlockId, u32>,
    /// Steps and pulls that may write.
    pub accesses: BTreeMap<BlockId, u32>,
    /// Steps that may only read.
    pub reads: BTreeMap<BlockId, u32>,
}

/// State of a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockState {
    /// Without holders and content.
    Free,
    /// Without holders, but with content that can be found again.
    Cached,
    /// With at least one holder.
    InUse,
    /// Without holders, but a step or a pull in flight may still touch or read its bytes.
    Quarantined,
}

impl BlockPool {
    /// Creates a pool of `total` free blocks.
    #[must_use]
    pub fn new(total: u32) -> BlockPool {
        BlockPool {
            blocks: vec![Block::default(); total as usize],
            free: (0..total).rev().map(BlockId).collect(),
            cached: Lru::new(total),
            by_content: BTreeMap::new(),
            in_use: 0,
            quarantined: 0,
        }
    }

    /// Number of all blocks.
    #[must_use]
    pub fn total(&self) -> u32 {
        self.blocks.len() as u32
    }

    /// Number of free blocks.
    #[must_use]
    pub fn free(&self) -> u32 {
        self.free.len() as u32
    }

    /// Number of cached blocks, which have content but no holder.
    #[must_use]
    pub fn cached(&self) -> u32 {
        self.cached.len()
    }

    /// Number of blocks with references.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Number of blocks without references that may still be touched or read.
    #[must_use]
    pub fn quarantined(&self) -> u32 {
        self.quarantined
    }

    /// Number of blocks that `allocate` can hand out right now.
    #[must_use]
    pub fn available(&self) -> u32 {
        self.free() + self.cached()
    }

    /// Number of holders of a block.
    #[must_use]
    pub fn references(&self, id: BlockId) -> u32 {
        self.block(id).references
    }

    /// State of a block right now.
    #[must_use]
    pub fn state(&self, id: BlockId) -> BlockState {
        let block = self.block(id);
        match (block.references, block.is_quiet(), block.content) {
            (0, true, None) => BlockState::Free,
            (0, true, Some(_)) => BlockState::Cached,
            (0, false, _) => BlockState::Quarantined,
            (_, _, _) => BlockState::InUse,
        }
    }

    /// Hands out a block of unknown bytes with one reference: a free one, or the longest unused of the cached ones.
    pub fn allocate(&mut self) -> Option<BlockId> {
        let id = self.free.pop().or_else(|| self.evict())?;
        self.block_mut(id).references = 1;
        self.in_use += 1;
        Some(id)
    }

    fn evict(&mut self) -> Option<BlockId> {
        let id = self.cached.pop_oldest()?;
        if let Some(content) = self.block_mut(id).content.take() {
            self.by_content.remove(&content);
        }
        Some(id)
    }

    /// Adds a reference to a block that has some.
    pub fn retain(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.references > 0, "{id} is retained although nobody refers to it");
        block.references += 1;
    }

    /// Gives one reference back. The last one makes the block free, cached or quarantined.
    pub fn release(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.references > 0, "{id} is released although nobody refers to it");
        block.references -= 1;
        if block.references > 0 {
            return;
        }
        let is_quiet = block.is_quiet();
        self.in_use -= 1;
        if is_quiet {
            self.lay_to_rest(id);
        } else {
            self.quarantined += 1;
        }
    }

    /// Lets a step or a pull touch the bytes of a block in use. Content that can be found is never written.
    pub fn begin_access(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.references > 0, "{id} is touched although nobody refers to it");
        assert!(block.content.is_none(), "{id} is touched although its content is published");
        block.accesses += 1;
    }

    /// Ends the access of a step or a pull to a block.
    pub fn end_access(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.accesses > 0, "an access of {id} ends that never began");
        block.accesses -= 1;
        self.leave_quarantine(id);
    }

    /// Lets a step read a block in use, whatever becomes of its references. Others may find and use it meanwhile.
    pub fn begin_read(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.references > 0, "{id} is read although nobody refers to it");
        block.reads += 1;
    }

    /// Ends the read of a block by a step.
    pub fn end_read(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.reads > 0, "a read of {id} ends that never began");
        block.reads -= 1;
        self.leave_quarantine(id);
    }

    fn leave_quarantine(&mut self, id: BlockId) {
        let block = self.block(id);
        if block.is_quiet() && block.references == 0 {
            self.quarantined -= 1;
            self.lay_to_rest(id);
        }
    }

    /// Makes the content of a full, written block findable. A second block of the same content stays unnamed.
    pub fn publish(&mut self, id: BlockId, content: ContentHash) {
        let block = self.block(id);
        assert!(block.references > 0, "{id} is published although nobody refers to it");
        assert!(block.accesses == 0, "{id} is published although it may still be touched");
        if block.content.is_none() && !self.by_content.contains_key(&content) {
            self.by_content.insert(content, id);
            self.block_mut(id).content = Some(content);
        }
    }

    /// Makes the content of a block in use unfindable. Its holders keep the block.
    pub fn forget(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.references > 0, "{id} is forgotten although nobody refers to it");
        if let Some(content) = block.content.take() {
            self.by_content.remove(&content);
        }
    }

    /// Returns the blocks that hold the leading part of `contents`.
    #[must_use]
    pub fn find_leading(&self, contents: &[ContentHash]) -> Vec<BlockId> {
        contents.iter().map_while(|content| self.by_content.get(content).copied()).collect()
    }

    /// Adds a reference to a block that was just found by its content.
    pub fn acquire(&mut self, id: BlockId) {
        let block = self.block_mut(id);
        assert!(block.content.is_some(), "{id} is acquired although it holds nothing");
        block.references += 1;
        let (is_first, is_quiet) = (block.references == 1, block.is_quiet());
        if is_first {
            self.in_use += 1;
            match is_quiet {
                true => self.cached.remove(id),
                false => self.quarantined -= 1,
            }
        }
    }

    fn lay_to_rest(&mut self, id: BlockId) {
        if self.block(id).content.is_some() {
            self.cached.push_newest(id);
        } else {
            self.free.push(id);
        }
    }

    fn block(&self, BlockId(index): BlockId) -> &Block {
        &self.blocks[index as usize]
    }

    fn block_mut(&mut self, BlockId(index): BlockId) -> &mut Block {
        &mut self.blocks[index as usize]
    }

    /// Recounts everything and compares it with the owner's counts; for tests and operators. O(blocks log blocks).
    pub fn check(&self, held: &Holdings) -> Result<(), String> {
        let mut counted = [0_u32; 4];
        for index in 0..self.total() {
            let id = BlockId(index);
            let block = self.block(id);
            counted[self.state(id) as usize] += 1;
            let of = |counts: &BTreeMap<BlockId, u32>| counts.get(&id).copied().unwrap_or(0);
            let (references, accesses, reads) = (of(&held.references), of(&held.accesses), of(&held.reads));
            if (block.references, block.accesses, block.reads) != (references, accesses, reads) {
                return Err(format!(
                    "{id} counts {block:?}, but {references} holders, {accesses} accesses and {reads} reads exist"
                ));
            }
            if let Some(content) = block.content
                && self.by_content.get(&content) != Some(&id)
            {
                return Err(format!("{id} has content that leads to another block"));
            }
        }
        self.check_lists()?;
        let claimed = [self.free(), self.cached(), self.in_use, self.quarantined];
        if counted != claimed {
            return Err(format!("states count {counted:?}, but the pool says {claimed:?}"));
        }
        Ok(())
    }

    fn check_lists(&self) -> Result<(), String> {
        if let Some(id) = self.free.iter().find(|id| self.state(**id) != BlockState::Free) {
            return Err(format!("{id} is on the free list, but is {:?}", self.state(*id)));
        }
        if let Some(id) = self.cached.iter().find(|id| self.state(*id) != BlockState::Cached) {
            return Err(format!("{id} is in the cached list, but is {:?}", self.state(id)));
        }
        match self.by_content.iter().find(|(content, id)| self.block(**id).content != Some(**content)) {
            Some((_, id)) => Err(format!("an entry leads to {id}, which holds something else")),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
