//! Host buffers of 32-bit words that begin on a cache line, and pointers that tasks share.

use crate::KernelError;
use crate::memory::{Backing, HostMemory};

#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; Line::WORDS]);

impl Line {
    const WORDS: usize = 16;
    const ZERO: Line = Line([0; Line::WORDS]);
}

/// Words on whole cache lines, zero at first.
pub(super) struct Words {
    storage: Storage,
    len: usize,
}

/// Buffers that fill huge pages get a mapping of their own: reading weights from 4 KiB pages is limited by address
/// translation, above all in virtual machines, and huge pages made products of one row 1.5 times as fast.
enum Storage {
    Lines(Vec<Line>),
    HugePages(HostMemory),
}

const HUGE_PAGE_BYTES: usize = 2 << 20;

impl Words {
    pub(super) fn zeroed(len: usize) -> Result<Self, KernelError> {
        let lines = len.div_ceil(Line::WORDS);
        let bytes = lines.saturating_mul(size_of::<Line>());
        let storage = if bytes < HUGE_PAGE_BYTES {
            Storage::Lines(vec![Line::ZERO; lines])
        } else {
            let memory = HostMemory::new(bytes, Backing::Anonymous);
            Storage::HugePages(memory.map_err(|error| KernelError::Memory { what: error.to_string() })?)
        };
        Ok(Self { storage, len })
    }

    /// Makes room for at least `len` words; the contents may be lost.
    pub(super) fn reserve(&mut self, len: usize) -> Result<(), KernelError> {
        if self.len < len {
            *self = Self::zeroed(len)?;
        }
        Ok(())
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        // SAFETY: the storage holds at least `len` words, plain and initialised, and only `&mut self` writes them.
        unsafe { std::slice::from_raw_parts(self.start(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u32] {
        let start = match &mut self.storage {
            Storage::Lines(lines) => lines.as_mut_ptr().cast(),
            Storage::HugePages(memory) => memory.as_ptr().cast(),
        };
        // SAFETY: as in `as_slice`, and the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(start, self.len) }
    }

    pub(super) fn as_f32(&self) -> &[f32] {
        // SAFETY: as in `as_slice`; every pattern of 32 bits is an f32.
        unsafe { std::slice::from_raw_parts(self.start().cast(), self.len) }
    }

    pub(super) fn as_mut_f32(&mut self) -> &mut [f32] {
        let words = self.as_mut_slice();
        // SAFETY: as in `as_mut_slice`; every pattern of 32 bits is an f32 and the other way round.
        unsafe { std::slice::from_raw_parts_mut(words.as_mut_ptr().cast(), words.len()) }
    }

    fn start(&self) -> *const u32 {
        match &self.storage {
            Storage::Lines(lines) => lines.as_ptr().cast(),
            Storage::HugePages(memory) => memory.as_ptr().cast_const().cast(),
        }
    }
}

/// A slice to which the tasks of one run write at disjoint places.
pub(super) struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: only a pointer; the callers of `part` promise that no other task has the part.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The part `from..from + len`.
    ///
    /// # Safety
    /// The slice is still borrowed, and no other task holds an overlapping part.
    #[expect(clippy::mut_from_ref, reason = "tasks write disjoint parts through one shared value")]
    pub(super) unsafe fn part(&self, from: usize, len: usize) -> &mut [T] {
        assert!(from <= self.len && len <= self.len - from, "a part lies inside its slice");
        // SAFETY: the part lies inside the slice, and the caller promises that it is exclusive.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(from), len) }
    }

    /// The first element, for kernels that write with a stride.
    pub(super) fn as_mut_ptr(&self) -> *mut T {
        self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_are_zero_aligned_and_writable() {
        for len in [0, 1, 17, (HUGE_PAGE_BYTES / 4) - 1, HUGE_PAGE_BYTES / 4, HUGE_PAGE_BYTES / 4 + 5] {
            let mut words = Words::zeroed(len).expect("memory");
            assert_eq!(words.as_slice().as_ptr() as usize % size_of::<Line>(), 0, "{len}");
            assert!(words.as_slice().len() == len && words.as_slice().iter().all(|word| *word == 0), "{len}");
            words.as_mut_f32().fill(1.0);
            assert!(words.as_slice().iter().all(|word| *word == 1.0f32.to_bits()), "{len}");
            assert!(words.as_f32().iter().all(|value| *value == 1.0), "{len}");
        }
    }

    #[test]
    fn too_much_is_an_error_that_names_the_bytes() {
        let error = Words::zeroed(usize::MAX / 16).map(drop).expect_err("no machine has this");
        assert!(matches!(&error, KernelError::Memory { what } if what.contains("bytes")), "{error}");
    }
}
