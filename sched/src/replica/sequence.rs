//! One run of tokens with its KV cache: a prompt for all its choices, or one choice of it; knows no other sequence.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::Arc;

use super::finish::at_limit;
use super::slots::Seat;
use crate::block::{BlockPool, BlockTable, ContentHash, HashChain, blocks_for};
use crate::{BlockId, Choice, Leg, SamplingParams, SlotId, TokenId};

/// Name of a sequence, never used again. Sorts by arrival of its leg, so the first of a set is the oldest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct SequenceKey {
    /// Number of its leg at this worker, counted up.
    pub(super) arrival: u64,
    /// Number of the sequence in its leg, 0 for the one that began as the prompt.
    pub(super) branch: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// An offer whose giver is not met.
    Unmet,
    /// A newcomer without blocks.
    Waiting,
    /// Was running and lost its blocks.
    Preempted,
    /// Blocks are reserved and its KV cache is being taken over.
    Taking,
    /// Blocks and slots are reserved and its KV cache is being computed.
    Filling,
    /// Its KV cache is here, but no slot is free.
    Ready,
    /// It gets one token per step.
    Running,
    /// Its KV cache is kept for a reader.
    Held,
}

impl Place {
    pub(super) const COUNT: usize = 8;
}

/// A choice that a sequence stands for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Member {
    pub(super) choice: Choice,
    pub(super) slot: Option<(SlotId, Seat)>,
}

/// Tokens, and how much of them is stored where.
#[derive(Debug)]
pub(super) struct Sequence {
    pub(super) leg: Leg,
    pub(super) place: Place,
    pub(super) prompt: Arc<[TokenId]>,
    pub(super) params: Arc<SamplingParams>,
    pub(super) generated: Vec<TokenId>,
    /// More than one only until the first token of each is known.
    pub(super) members: Vec<Member>,
    /// Positions `0..computed` have their KV stored in every layer.
    pub(super) computed: u32,
    /// Positions `0..submitted` have, or will have when the steps in flight are done.
    pub(super) submitted: u32,
    /// Tokens that steps in flight will bring for each of its choices.
    pub(super) awaited: u32,
    pub(super) table: BlockTable,
    /// Reserved blocks that no position uses yet.
    pub(super) spares: Vec<BlockId>,
    pub(super) chain: HashChain,
    /// Leading blocks whose content can be found by others.
    pub(super) published: u32,
}

impl Sequence {
    /// Number of tokens known so far: those of the prompt and the generated ones.
    pub(super) fn len(&self) -> u32 {
        (self.prompt.len() + self.generated.len()) as u32
    }

    /// Number of alternatives to report for each prompt token that is computed here; `None` if they are not scored. A
    /// sequence with a generated token has been scored.
    pub(super) fn scored_with(&self) -> Option<u8> {
        self.params.prompt_logprobs.filter(|_| self.generated.is_empty())
    }

    /// True if another token follows the awaited ones, unless one of those turns out to be a stop token.
    pub(super) fn goes_on(&self, context_max: u32) -> bool {
        let generated = self.generated.len() as u32 + self.awaited;
        !at_limit(&self.params, self.prompt.len() as u32, generated, context_max)
    }

    /// Records that the first `positions` are stored and that no step in flight computes more.
    pub(super) fn has_stored(&mut self, positions: u32) {
        self.computed = positions;
        self.submitted = positions;
    }

    pub(super) fn copy_tokens(&self, positions: Range<u32>, out: &mut Vec<TokenId>) {
        let (start, end, prompt) = (positions.start as usize, positions.end as usize, self.prompt.len());
        out.extend_from_slice(&self.prompt[start.min(prompt)..end.min(prompt)]);
        out.extend_from_slice(&self.generated[start.max(prompt) - prompt..end.max(prompt) - prompt]);
    }

    /// Content hashes of the first `full_blocks` blocks.
    pub(super) fn names(&mut self, full_blocks: u32) -> &[ContentHash] {
        let Sequence { chain, prompt, generated, .. } = self;
        chain.first(full_blocks, |position| {
            let position = position as usize;
            prompt.get(position).copied().unwrap_or_else(|| generated[position - prompt.len()])
        })
    }

    /// Lets other sequences find every block whose tokens are all stored.
    pub(super) fn publish(&mut self, block_tokens: u32, pool: &mut BlockPool) {
        let full = self.computed / block_tokens;
        let already = self.published;
        if full <= already {
            return;
        }
        self.names(full);
        let named = self.table.blocks().iter().zip(self.chain.known());
        for (block, name) in named.take(full as usize).skip(already as usize) {
            pool.publish(*block, *name);
        }
        self.published = full;
    }

    pub(super) fn blocks_needed(&self, block_tokens: u32) -> u32 {
        blocks_for(self.len(), block_tokens)
    }

    pub(super) fn blocks_held(&self) -> u32 {
        self.table.len() + self.spares.len() as u32
    }

    /// Gives back all blocks; what was computed is gone.
    pub(super) fn drop_blocks(&mut self, pool: &mut BlockPool) {
        self.table.release(pool);
        self.spares.drain(..).for_each(|block| pool.release(block));
        self.has_stored(0);
        self.published = 0;
    }

    pub(super) fn take_member(&mut self, choice: Choice) -> Option<Member> {
        let at = self.members.iter().position(|member| member.choice == choice)?;
        Some(self.members.remove(at))
    }

    /// Makes a sequence over the same blocks that goes on with `token` for `member`.
    pub(super) fn fork(&mut self, member: Member, token: TokenId, pool: &mut BlockPool) -> Sequence {
        let mut generated = self.generated.clone();
        generated.push(token);
        Sequence {
            leg: self.leg,
            place: self.place,
            prompt: Arc::clone(&self.prompt),
            params: Arc::clone(&self.params),
            generated,
            members: vec![member],
            computed: self.computed,
            submitted: self.submitted,
            awaited: 0,
            table: self.table.fork(pool),
            spares: Vec::new(),
            chain: self.chain.clone(),
            published: self.published,
        }
    }
}

#[derive(Debug, Default)]
pub(super) struct Sequences {
    by_key: BTreeMap<SequenceKey, Sequence>,
}

impl Sequences {
    pub(super) fn insert(&mut self, key: SequenceKey, sequence: Sequence) {
        let before = self.by_key.insert(key, sequence);
        assert!(before.is_none(), "{key:?} exists twice");
    }

    pub(super) fn remove(&mut self, key: SequenceKey) -> Option<Sequence> {
        self.by_key.remove(&key)
    }

    /// A sequence that may have ended meanwhile.
    pub(super) fn find(&mut self, key: SequenceKey) -> Option<&mut Sequence> {
        self.by_key.get_mut(&key)
    }

    /// A sequence that a set or a leg names, so it exists.
    pub(super) fn at(&self, key: SequenceKey) -> &Sequence {
        &self.by_key[&key]
    }

    #[expect(clippy::expect_used, reason = "sets and legs name living sequences only; check_invariants tests it")]
    pub(super) fn at_mut(&mut self, key: SequenceKey) -> &mut Sequence {
        self.by_key.get_mut(&key).expect("a set or a leg names a living sequence")
    }

    pub(super) fn lives(&self, key: SequenceKey) -> bool {
        self.by_key.contains_key(&key)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SequenceKey, &Sequence)> {
        self.by_key.iter().map(|(key, sequence)| (*key, sequence))
    }
}
