//! Numbers that all ranks of a segment add to; knows no meaning of them.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use super::Segment;

/// The tallies of a segment, all zero at first. Any rank may add to them and read them at any time.
pub struct Tallies {
    segment: Arc<Segment>,
}

impl Tallies {
    /// The tallies of `segment`.
    pub fn of(segment: &Arc<Segment>) -> Tallies {
        Tallies { segment: Arc::clone(segment) }
    }
}

impl AsRef<[AtomicU64]> for Tallies {
    fn as_ref(&self) -> &[AtomicU64] {
        self.segment.tallies()
    }
}
