//! From one prompt to one sequence per choice: full blocks stay shared, a partly filled one is copied when written.

use super::Replica;
use super::sequence::{Member, Place, SequenceKey};
use crate::TokenId;

impl Replica {
    /// Continues each member of `going_on` in a sequence of its own, the first in `key`; ends the sequence if none.
    pub(super) fn branch(&mut self, key: SequenceKey, mut going_on: Vec<(Member, TokenId)>, place: Place) {
        if going_on.is_empty() {
            return self.drop_sequence(key);
        }
        if self.sequences.at(key).place != place {
            self.move_to(key, place);
        }
        let branches = going_on.split_off(1);
        for (member, token) in branches {
            self.fork(key, member, token);
        }
        let sequence = self.sequences.at_mut(key);
        for (member, token) in going_on {
            sequence.members = vec![member];
            sequence.generated.push(token);
        }
        // Returns blocks that were reserved for choices which ended with their first token.
        let kept = sequence.spares.len().min(1);
        sequence.spares.drain(kept..).for_each(|block| self.pool.release(block));
    }

    fn fork(&mut self, key: SequenceKey, member: Member, token: TokenId) {
        let sequence = self.sequences.at_mut(key);
        let mut fork = sequence.fork(member, token, &mut self.pool);
        if sequence.spares.len() > 1 {
            fork.spares.extend(sequence.spares.pop());
        }
        let Some(run) = self.legs.get_mut(&sequence.leg) else {
            unreachable!("{} has ended, but its sequence lives", sequence.leg)
        };
        let branch = SequenceKey { arrival: key.arrival, branch: run.branches };
        run.branches += 1;
        run.sequences.insert(branch);
        self.sequences.insert(branch, fork);
        self.enter_place(branch);
    }
}
