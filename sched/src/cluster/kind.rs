//! Kinds of workers, each of which gives the same bits; knows no link.

use crate::{CompatKey, ModelId};

/// Workers that give the same bits: one model, one compatibility key. A request ends at the kind at which it began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Kind {
    /// Model that they serve.
    pub model: ModelId,
    /// Compatibility key: weights, formats and kernels.
    pub compat: CompatKey,
}
