//! Weights of a linear layer; knows not where it stands in a model.

use kernels::Ops;

/// A matrix `[n, k]` with an optional bias.
pub(super) struct Projection<O: Ops> {
    pub(super) weight: O::Matrix,
    pub(super) bias: Option<O::Vector>,
}
