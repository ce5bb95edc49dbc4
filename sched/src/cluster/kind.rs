//! Which workers give the same bits; knows no link.

use crate::{CompatKey, ModelId};

/// Workers that give the same bits from the same request: one model, one compatibility key. A request that has begun at one
/// of them goes on at one of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// What they serve.
    pub model: ModelId,
    /// What they compute it with: weights, formats, kernels.
    pub compat: CompatKey,
}
