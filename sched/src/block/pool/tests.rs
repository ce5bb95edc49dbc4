//! The pool by example and under random calls.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{BlockPool, BlockState, Holdings};
use crate::BlockId;
use crate::block::{BlockTable, ContentHash};

fn content(n: u64) -> ContentHash {
    ContentHash::root(n)
}

#[test]
fn a_block_goes_through_all_its_states() {
    let mut pool = BlockPool::new(2);
    let block = pool.allocate().unwrap();
    assert_eq!(pool.state(block), BlockState::InUse);
    pool.begin_access(block);
    pool.release(block);
    assert_eq!(pool.state(block), BlockState::Quarantined);
    assert_eq!(pool.available(), 1);
    pool.end_access(block);
    assert_eq!(pool.state(block), BlockState::Free);

    let block = pool.allocate().unwrap();
    pool.publish(block, content(1));
    pool.release(block);
    assert_eq!(pool.state(block), BlockState::Cached);
    assert_eq!(pool.find_leading(&[content(1), content(2)]), [block]);
    pool.acquire(block);
    assert_eq!((pool.references(block), pool.state(block)), (1, BlockState::InUse));
}

/// Without it, a check that finds nothing would pass all other tests.
#[test]
fn every_kind_of_disagreement_is_found() {
    type Damage = fn(&mut BlockPool, &mut Holdings);
    const IN_USE: BlockId = BlockId(0);
    const FREE: BlockId = BlockId(3);
    let mut pool = BlockPool::new(4);
    assert_eq!(pool.allocate(), Some(IN_USE));
    let (kept, touched) = (pool.allocate().unwrap(), pool.allocate().unwrap());
    pool.publish(kept, content(1));
    pool.release(kept);
    pool.begin_access(touched);
    pool.release(touched);
    let held = Holdings {
        references: BTreeMap::from([(IN_USE, 1)]),
        accesses: BTreeMap::from([(touched, 1)]),
        ..Holdings::default()
    };
    assert_eq!(pool.check(&held), Ok(()));
    let damages: [(Damage, &str); 10] = [
        (|pool, _| pool.blocks[0].references = 2, "but 1 holders, 0 accesses and 0 reads exist"),
        (|_, held| held.accesses.clear(), "but 0 holders, 0 accesses and 0 reads exist"),
        (|_, held| held.reads.extend([(IN_USE, 1)]), "but 1 holders, 0 accesses and 1 reads exist"),
        (|pool, _| pool.by_content.clear(), "has content that leads to another block"),
        (|pool, _| pool.free.push(IN_USE), "is on the free list, but is InUse"),
        (|pool, _| pool.cached.push_newest(FREE), "is in the cached list, but is Free"),
        (|pool, _| pool.by_content.extend([(content(9), FREE)]), "holds something else"),
        (|pool, _| pool.free.clear(), "states count [1, 1, 1, 1], but the pool says [0, 1, 1, 1]"),
        (|pool, _| pool.in_use = 2, "states count [1, 1, 1, 1], but the pool says [1, 1, 2, 1]"),
        (|pool, _| pool.quarantined = 0, "states count [1, 1, 1, 1], but the pool says [1, 1, 1, 0]"),
    ];
    for (damage, said) in damages {
        let (mut pool, mut held) = (pool.clone(), held.clone());
        damage(&mut pool, &mut held);
        let found = pool.check(&held);
        assert!(found.as_ref().is_err_and(|problem| problem.ends_with(said)), "{said:?}: {found:?}");
    }
}

#[test]
fn content_that_is_read_can_be_found_and_is_given_to_nobody_else() {
    let mut pool = BlockPool::new(1);
    let block = pool.allocate().unwrap();
    pool.publish(block, content(1));
    pool.begin_read(block);
    pool.release(block);
    assert_eq!((pool.state(block), pool.allocate()), (BlockState::Quarantined, None));
    pool.acquire(pool.find_leading(&[content(1)])[0]);
    pool.end_read(block);
    assert_eq!(pool.state(block), BlockState::InUse);
    pool.release(block);
    assert_eq!((pool.state(block), pool.allocate()), (BlockState::Cached, Some(block)));
}

#[test]
fn the_longest_unused_content_is_evicted_first_and_cannot_be_found_any_more() {
    let mut pool = BlockPool::new(3);
    let blocks: Vec<_> = (0..3).map(|_| pool.allocate().unwrap()).collect();
    for (n, block) in blocks.iter().enumerate() {
        pool.publish(*block, content(n as u64));
    }
    for n in [1, 0, 2] {
        pool.release(blocks[n]);
    }
    assert_eq!(pool.allocate(), Some(blocks[1]));
    assert!(pool.find_leading(&[content(1)]).is_empty());
    assert_eq!(pool.find_leading(&[content(0)]), [blocks[0]]);
}

#[test]
fn a_second_block_of_the_same_content_stays_unnamed() {
    let mut pool = BlockPool::new(2);
    let (first, second) = (pool.allocate().unwrap(), pool.allocate().unwrap());
    pool.publish(first, content(1));
    pool.publish(second, content(1));
    pool.release(second);
    assert_eq!(pool.state(second), BlockState::Free);
    assert_eq!(pool.find_leading(&[content(1)]), [first]);
}

#[test]
fn shared_tables_count_their_blocks_once() {
    let mut pool = BlockPool::new(4);
    let mut table = BlockTable::default();
    table.push(pool.allocate().unwrap());
    table.push(pool.allocate().unwrap());
    let mut fork = table.fork(&mut pool);
    assert_eq!((pool.in_use(), pool.free()), (2, 2));
    let copy = pool.allocate().unwrap();
    fork.replace(1, copy, &mut pool);
    table.release(&mut pool);
    assert_eq!((pool.in_use(), pool.free()), (2, 2));
    fork.release(&mut pool);
    assert_eq!(pool.free(), 4);
}

#[derive(Debug, Clone, Copy)]
enum Call {
    Allocate,
    Retain(usize),
    Release(usize),
    Begin(usize),
    End(usize),
    Publish(usize, u64),
    Acquire(u64),
    Forget(usize),
    BeginRead(usize),
    EndRead(usize),
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        3 => Just(Call::Allocate),
        1 => any::<usize>().prop_map(Call::Retain),
        3 => any::<usize>().prop_map(Call::Release),
        1 => any::<usize>().prop_map(Call::Begin),
        1 => any::<usize>().prop_map(Call::End),
        2 => (any::<usize>(), 0_u64..12).prop_map(|(pick, name)| Call::Publish(pick, name)),
        2 => (0_u64..12).prop_map(Call::Acquire),
        1 => any::<usize>().prop_map(Call::Forget),
        2 => any::<usize>().prop_map(Call::BeginRead),
        2 => any::<usize>().prop_map(Call::EndRead),
    ]
}

/// Holdings as the test itself counts them: one entry per reference and per access.
#[derive(Default)]
struct Held {
    references: Vec<BlockId>,
    accesses: Vec<BlockId>,
    reads: Vec<BlockId>,
}

impl Held {
    fn counts(list: &[BlockId]) -> BTreeMap<BlockId, u32> {
        list.iter().fold(BTreeMap::new(), |mut counts, id| {
            *counts.entry(*id).or_insert(0) += 1;
            counts
        })
    }

    fn apply(&mut self, pool: &mut BlockPool, call: Call) {
        let pick = |list: &Vec<BlockId>, n: usize| (!list.is_empty()).then(|| n % list.len());
        match call {
            Call::Allocate => {
                if let Some(block) = pool.allocate() {
                    assert!(!self.accesses.contains(&block) && !self.reads.contains(&block), "somebody touches it");
                    self.references.push(block);
                }
            }
            Call::Retain(n) => {
                if let Some(at) = pick(&self.references, n) {
                    pool.retain(self.references[at]);
                    self.references.push(self.references[at]);
                }
            }
            Call::Release(n) => {
                if let Some(at) = pick(&self.references, n) {
                    pool.release(self.references.swap_remove(at));
                }
            }
            Call::Begin(n) => {
                if let Some(at) = pick(&self.references, n)
                    && pool.block(self.references[at]).content.is_none()
                {
                    pool.begin_access(self.references[at]);
                    self.accesses.push(self.references[at]);
                }
            }
            Call::End(n) => {
                if let Some(at) = pick(&self.accesses, n) {
                    pool.end_access(self.accesses.swap_remove(at));
                }
            }
            Call::Publish(n, name) => {
                if let Some(at) = pick(&self.references, n)
                    && !self.accesses.contains(&self.references[at])
                {
                    pool.publish(self.references[at], content(name));
                }
            }
            Call::Acquire(name) => {
                if let Some(id) = pool.find_leading(&[content(name)]).first() {
                    pool.acquire(*id);
                    self.references.push(*id);
                }
            }
            Call::BeginRead(n) => {
                if let Some(at) = pick(&self.references, n) {
                    pool.begin_read(self.references[at]);
                    self.reads.push(self.references[at]);
                }
            }
            Call::EndRead(n) => {
                if let Some(at) = pick(&self.reads, n) {
                    pool.end_read(self.reads.swap_remove(at));
                }
            }
            Call::Forget(n) => {
                if let Some(at) = pick(&self.references, n) {
                    pool.forget(self.references[at]);
                    assert_eq!(pool.block(self.references[at]).content, None);
                }
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_block_is_counted_once_whatever_is_called(calls in proptest::collection::vec(call(), 1..200)) {
        let mut pool = BlockPool::new(9);
        let mut held = Held::default();
        for call in calls {
            held.apply(&mut pool, call);
            let holdings = Holdings {
                references: Held::counts(&held.references),
                accesses: Held::counts(&held.accesses),
                reads: Held::counts(&held.reads),
            };
            let checked = pool.check(&holdings);
            prop_assert!(checked.is_ok(), "{checked:?} after {call:?}");
            prop_assert_eq!(pool.free() + pool.cached() + pool.in_use() + pool.quarantined(), pool.total());
        }
    }
}
