//! Sizes of activations, matrices and other arguments, for the checks of arguments; knows no values.

use crate::{Arrangement, KernelError, Routing};

/// Sizes of activations.
pub trait RowsSize {
    /// Values of a row.
    fn cols(&self) -> usize;
    /// Rows that have been computed or written.
    fn count(&self) -> usize;
    /// Makes `count` the number of rows. The error, if there is no room for them, names `op`.
    fn set_count(&mut self, op: &'static str, count: usize) -> Result<(), KernelError>;
}

/// Size and purpose of a matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MatrixShape {
    /// Rows: output features of all parts.
    pub n: usize,
    /// Columns held: all, or a shard's.
    pub k: usize,
    /// Operation that the matrix is prepared for.
    pub arrangement: Arrangement,
}

/// Size and purpose of a matrix.
pub trait MatrixSize {
    /// Rows, columns and arrangement.
    fn shape(&self) -> MatrixShape;
}

/// Size of a vector.
pub trait VectorSize {
    /// Number of values.
    fn n(&self) -> usize;
}

/// Sizes of a rotary embedding.
pub trait RopeSize {
    /// Cosines per position: half of a head.
    fn half(&self) -> usize;
    /// Number of positions.
    fn positions_max(&self) -> usize;
}

/// Sizes of the choices of experts.
pub trait RoutesSize {
    /// Number of experts, experts per row and rule of their weights.
    fn routing(&self) -> Routing;
    /// Rows that have been routed.
    fn rows(&self) -> usize;
    /// Makes room for the choices of `rows` rows. The error, if there is none, names `op`.
    fn set_rows(&mut self, op: &'static str, rows: usize) -> Result<(), KernelError>;

    /// Rows after grouping: `per_row` of each.
    fn grouped_rows(&self) -> usize {
        self.rows() * self.routing().per_row
    }
}
