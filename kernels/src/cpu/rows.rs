//! Activations and vectors in host memory.

use super::gemm::BLOCK_COLUMNS;
use super::words::Words;
use crate::checks::{arguments, at_most};
use crate::{KernelError, RowsSize, VectorSize};

/// f32 `[rows, cols]` in host memory.
pub struct Rows {
    cols: usize,
    rows_max: usize,
    count: usize,
    words: Words,
}

impl Rows {
    pub(super) fn new(rows_max: usize, cols: usize) -> Result<Self, KernelError> {
        arguments::rows(cols)?;
        let Some(values) = rows_max.checked_mul(cols) else {
            let what = format!("[{rows_max}, {cols}] values are too many to address");
            return Err(KernelError::Invalid { op: "rows", what });
        };
        Ok(Self { cols, rows_max, count: 0, words: Words::zeroed(values)? })
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.words.as_f32()[..self.count * self.cols]
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.words.as_mut_f32()[..self.count * self.cols]
    }
}

impl RowsSize for Rows {
    fn cols(&self) -> usize {
        self.cols
    }
    fn count(&self) -> usize {
        self.count
    }
    fn set_count(&mut self, op: &'static str, count: usize) -> Result<(), KernelError> {
        at_most(op, "rows", count, self.rows_max)?;
        self.count = count;
        Ok(())
    }
}

/// f32 `[n]` in host memory, followed by zeros up to a whole block of columns.
pub struct Vector {
    len: usize,
    words: Words,
}

impl Vector {
    pub(super) fn new(values: &[f32]) -> Result<Self, KernelError> {
        let mut words = Words::zeroed(values.len().next_multiple_of(BLOCK_COLUMNS))?;
        words.as_mut_f32()[..values.len()].copy_from_slice(values);
        Ok(Self { len: values.len(), words })
    }

    pub(super) fn values(&self) -> &[f32] {
        &self.words.as_f32()[..self.len]
    }

    /// The values and the zeros behind them.
    pub(super) fn padded(&self) -> &[f32] {
        self.words.as_f32()
    }
}

impl VectorSize for Vector {
    fn n(&self) -> usize {
        self.len
    }
}
