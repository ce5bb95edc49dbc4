//! Upper bounds on a request; knows no configuration file.

/// Bounds that parsing needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Choices per prompt.
    pub n_max: u32,
    /// Prompts in one completion request.
    pub prompts_max: usize,
    /// Stop strings.
    pub stop_max: usize,
    /// Bytes of one stop string.
    pub stop_bytes_max: usize,
    /// Rows of the model's output matrix; every valid token id is smaller.
    pub vocab_size: u32,
}
