//! How long pulls take; knows bytes, not what they mean.

use sched::layout::{KvLayout, LayoutError, PullBlocks, plan};
use sched::replica::Pull;
use sched::{Span, Time};

use crate::LinkSpec;

/// A reader's way to its givers.
#[derive(Debug)]
pub(crate) struct Link {
    spec: LinkSpec,
    free_at: Time,
    moved_bytes: u64,
}

impl Link {
    pub(crate) fn new(spec: LinkSpec) -> Link {
        Link { spec, free_at: Time(0), moved_bytes: 0 }
    }

    /// When a pull that is asked for now has all its bytes; it waits for those before it.
    pub(crate) fn pull(&mut self, now: Time, bytes: u64) -> Time {
        let rate = u128::from(self.spec.bytes_per_second.max(1));
        let transfer_us = (u128::from(bytes) * 1_000_000).div_ceil(rate);
        let span = Span(u64::try_from(transfer_us).unwrap_or(u64::MAX));
        self.free_at = self.free_at.max(now) + span;
        self.moved_bytes += bytes;
        self.free_at + self.spec.latency
    }

    /// Bytes of all pulls that were begun.
    pub(crate) fn moved_bytes(&self) -> u64 {
        self.moved_bytes
    }
}

/// The bytes that a pull between these two layouts moves: the very plan that a live transport is given.
pub(crate) fn pull_bytes(giver: &KvLayout, reader: &KvLayout, pull: &Pull) -> Result<u64, LayoutError> {
    let blocks = PullBlocks {
        src: &pull.remote,
        dst: &pull.local,
        positions: pull.positions.clone(),
        layers: pull.layers.clone(),
    };
    Ok(plan(giver, reader, &blocks)?.iter().map(|copy| copy.bytes).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pulls_queue_at_a_constant_rate() {
        let mut link = Link::new(LinkSpec { bytes_per_second: 1_000_000, latency: Span(5) });
        assert_eq!(link.pull(Time(100), 10), Time(115));
        assert_eq!(link.pull(Time(100), 20), Time(135));
        assert_eq!(link.pull(Time(500), 1), Time(506));
        assert_eq!(link.moved_bytes(), 31);
    }
}
