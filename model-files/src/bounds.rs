//! Bounds above every published model of the supported families; they hold before anything is allocated.

/// Entries of a vocabulary.
pub const VOCAB_MAX: u32 = 1 << 22;
/// Tokens of a context.
pub const CONTEXT_MAX: u32 = 1 << 22;
