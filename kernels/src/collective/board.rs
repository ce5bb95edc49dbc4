//! Rows and logits on their way from some ranks to others; knows no order between them.

use std::sync::Arc;

use super::{CollectiveError, Segment};

/// An array of f32 in the segment. Ranks write disjoint places; whoever reads was ordered to after they had answered.
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
    /// Where hidden rows change hands.
    pub fn of_rows(segment: &Arc<Segment>) -> Board {
        Board { segment: Arc::clone(segment), which: Which::Rows }
    }

    /// Where the logits of a step are put together.
    pub fn of_logits(segment: &Arc<Segment>) -> Board {
        Board { segment: Arc::clone(segment), which: Which::Logits }
    }

    /// Puts `values` at `first`.
    pub fn put(&self, first: usize, values: &[f32]) -> Result<(), CollectiveError> {
        let place = self.place(first, values.len())?;
        // SAFETY: the place was checked to have room; other ranks write other places, and nobody reads it before this rank
        // has answered its order.
        unsafe { std::ptr::copy_nonoverlapping(values.as_ptr(), place, values.len()) };
        Ok(())
    }

    /// Fills `out` from the values at `first`.
    pub fn get(&self, first: usize, out: &mut [f32]) -> Result<(), CollectiveError> {
        let place = self.place(first, out.len())?;
        // SAFETY: the place was checked to have so many values, and those who wrote them have answered.
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
