//! Rows and logits passed between ranks; knows no order between them.

use std::sync::Arc;

use super::{CollectiveError, Segment};

/// An array of f32 in the segment. Ranks write disjoint places, and read places whose writers have answered their
/// order.
pub struct Board {
    segment: Arc<Segment>,
    which: Which,
}

#[derive(Clone, Copy)]
enum Which {
    Rows,
    Logits,
}

impl Board {
    /// The board on which ranks pass hidden rows on.
    pub fn of_rows(segment: &Arc<Segment>) -> Board {
        Board { segment: Arc::clone(segment), which: Which::Rows }
    }

    /// The board on which ranks collect the logits of a step.
    pub fn of_logits(segment: &Arc<Segment>) -> Board {
        Board { segment: Arc::clone(segment), which: Which::Logits }
    }

    /// Writes `values` from index `first` on.
    pub fn put(&self, first: usize, values: &[f32]) -> Result<(), CollectiveError> {
        let place = self.place(first, values.len())?;
        // SAFETY: the place was checked to have room; other ranks write other places, and nobody reads this one before
        // this rank has answered its order.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
        Ok(())
    }

    /// Reads the values from index `first` on into `out`.
    pub fn get(&self, first: usize, out: &mut [f32]) -> Result<(), CollectiveError> {
        let place = self.place(first, out.len())?;
        // SAFETY: the place was checked to have so many values, and the ranks that wrote them have answered.
        unsafe { std::ptr::copy_nonoverlapping(place.cast_const(), out.as_mut_ptr(), out.len()) };
        Ok(())
    }

    fn place(&self, first: usize, count: usize) -> Result<*mut f32, CollectiveError> {
        let (what, start, max) = match self.which {
            Which::Rows => ("values of rows", self.segment.rows(), self.segment.shape().row_values_max),
            Which::Logits => ("values of logits", self.segment.logits(), self.segment.shape().logit_values_max),
        };
        match first.checked_add(count) {
            // SAFETY: the board has `max` values from `start` on.
            Some(end) if end <= max => Ok(unsafe { start.add(first) }),
            _ => Err(CollectiveError::TooLarge { what, count: first.saturating_add(count), max }),
        }
    }
}
