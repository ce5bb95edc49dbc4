//! Longest sequence that each worker can bring to its last token, and the longest of all; knows no link.

use std::collections::BTreeMap;

use super::Kind;
use crate::WorkerId;

/// Workers that can bring any sequence to its last token.
#[derive(Debug, Clone, Default)]
pub(super) struct Reaches {
    of: BTreeMap<WorkerId, (Kind, u32)>,
    counts: BTreeMap<(Kind, u32), u32>,
}

impl Reaches {
    /// Sets how far a worker reaches; `None` if it can serve nothing.
    pub(super) fn set(&mut self, id: WorkerId, reach: Option<(Kind, u32)>) {
        let before = match reach {
            Some(reach) => self.of.insert(id, reach),
            None => self.of.remove(&id),
        };
        if let Some(reach) = reach {
            *self.counts.entry(reach).or_insert(0) += 1;
        }
        if let Some(before) = before
            && let Some(count) = self.counts.get_mut(&before)
        {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&before);
            }
        }
    }

    pub(super) fn longest(&self, kind: Kind) -> Option<u32> {
        self.counts.range((kind, 0)..=(kind, u32::MAX)).next_back().map(|((_, tokens), _)| *tokens)
    }
}
