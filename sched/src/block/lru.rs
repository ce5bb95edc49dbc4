//! An ordered set of blocks from longest to shortest unused, every operation O(1); knows nothing of their content.

use crate::BlockId;

const NONE: u32 = u32::MAX;

/// A doubly linked list through two flat arrays, one entry per block of the pool.
#[derive(Debug, Clone)]
pub(super) struct Lru {
    older: Vec<u32>,
    newer: Vec<u32>,
    oldest: u32,
    newest: u32,
    len: u32,
}

impl Lru {
    pub(super) fn new(total: u32) -> Lru {
        Lru { older: vec![NONE; total as usize], newer: vec![NONE; total as usize], oldest: NONE, newest: NONE, len: 0 }
    }

    pub(super) fn len(&self) -> u32 {
        self.len
    }

    /// Adds a block that is not in the list.
    pub(super) fn push_newest(&mut self, BlockId(block): BlockId) {
        self.older[block as usize] = self.newest;
        self.newer[block as usize] = NONE;
        match self.newest {
            NONE => self.oldest = block,
            previous => self.newer[previous as usize] = block,
        }
        self.newest = block;
        self.len += 1;
    }

    pub(super) fn pop_oldest(&mut self) -> Option<BlockId> {
        if self.oldest == NONE {
            return None;
        }
        let block = BlockId(self.oldest);
        self.remove(block);
        Some(block)
    }

    /// Takes out a block that is in the list.
    pub(super) fn remove(&mut self, BlockId(block): BlockId) {
        let (older, newer) = (self.older[block as usize], self.newer[block as usize]);
        match older {
            NONE => self.oldest = newer,
            neighbour => self.newer[neighbour as usize] = newer,
        }
        match newer {
            NONE => self.newest = older,
            neighbour => self.older[neighbour as usize] = older,
        }
        self.len -= 1;
    }

    /// Blocks from the longest unused on.
    pub(super) fn iter(&self) -> impl Iterator<Item = BlockId> + '_ {
        let mut next = self.oldest;
        std::iter::from_fn(move || {
            let block = (next != NONE).then_some(BlockId(next))?;
            next = self.newer[next as usize];
            Some(block)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_leave_in_the_order_they_came_except_those_taken_out() {
        let mut lru = Lru::new(5);
        (0..5).for_each(|b| lru.push_newest(BlockId(b)));
        for taken in [0, 2, 4] {
            lru.remove(BlockId(taken));
        }
        lru.push_newest(BlockId(2));
        assert_eq!(lru.iter().collect::<Vec<_>>(), [BlockId(1), BlockId(3), BlockId(2)]);
        assert_eq!(lru.len(), 3);
        let drained: Vec<_> = std::iter::from_fn(|| lru.pop_oldest()).collect();
        assert_eq!(drained, [BlockId(1), BlockId(3), BlockId(2)]);
        assert_eq!(lru.len(), 0);
    }
}
