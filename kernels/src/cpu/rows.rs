//! Activations, vectors and rotation tables in host memory.

use super::gemm::BLOCK_COLUMNS;
use super::words::Words;
use crate::KernelError;
use crate::checks::{at_most, columns};

/// f32 `[rows, cols]` in host memory.
pub struct Rows {
    cols: usize,
    rows_max: usize,
    count: usize,
    words: Words,
}

impl Rows {
    pub(super) fn new(rows_max: usize, cols: usize) -> Result<Self, KernelError> {
        columns(cols)?;
        let Some(values) = rows_max.checked_mul(cols) else {
            let what = format!("[{rows_max}, {cols}] values are too many to address");
            return Err(KernelError::Invalid { op: "rows", what });
        };
        Ok(Self { cols, rows_max, count: 0, words: Words::zeroed(values)? })
    }

    pub(super) fn cols(&self) -> usize {
        self.cols
    }

    pub(super) fn count(&self) -> usize {
        self.count
    }

    pub(super) fn set_count(&mut self, op: &'static str, count: usize) -> Result<(), KernelError> {
        at_most(op, "rows", count, self.rows_max)?;
        self.count = count;
        Ok(())
    }

    /// The values of all rows.
    pub(super) fn values(&self) -> &[f32] {
        &self.words.as_f32()[..self.count * self.cols]
    }

    pub(super) fn values_mut(&mut self) -> &mut [f32] {
        &mut self.words.as_mut_f32()[..self.count * self.cols]
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

    /// With the zeros at its end.
    pub(super) fn padded(&self) -> &[f32] {
        self.words.as_f32()
    }
}

/// Cosines and sines in host memory, `[position][half]`.
pub struct Rope {
    pub(super) half: usize,
    pub(super) positions_max: usize,
    pub(super) cos: Vec<f32>,
    pub(super) sin: Vec<f32>,
}
