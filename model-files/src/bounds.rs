//! Bounds above every published model of the supported families; checked before anything is allocated.

/// Most entries of a vocabulary.
pub const VOCAB_MAX: u32 = 1 << 22;
/// Most tokens of a context.
pub const CONTEXT_MAX: u32 = 1 << 22;
