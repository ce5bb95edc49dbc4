//! Host buffers of 32-bit words that begin on a cache line, and pointers that tasks may share.

/// One cache line.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Line([u32; Line::WORDS]);

impl Line {
    const WORDS: usize = 16;
    const ZERO: Line = Line([0; Line::WORDS]);
}

/// Words on whole cache lines, zero until written.
pub(super) struct Words {
    lines: Vec<Line>,
    len: usize,
}

impl Words {
    /// `len` zeros.
    pub(super) fn zeroed(len: usize) -> Self {
        Self { lines: vec![Line::ZERO; len.div_ceil(Line::WORDS)], len }
    }

    /// Makes room for at least `len` words; old contents may be lost.
    pub(super) fn reserve(&mut self, len: usize) {
        if self.len < len {
            *self = Self::zeroed(len);
        }
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        // SAFETY: the lines hold at least `len` words, plain and initialised.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    pub(super) fn as_mut_slice(&mut self) -> &mut [u32] {
        // SAFETY: as in `as_slice`, and the buffer is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }

    /// The words as f32.
    pub(super) fn as_f32(&self) -> &[f32] {
        // SAFETY: as in `as_slice`; every pattern of 32 bits is an f32.
        unsafe { std::slice::from_raw_parts(self.lines.as_ptr().cast(), self.len) }
    }

    /// The words as f32.
    pub(super) fn as_mut_f32(&mut self) -> &mut [f32] {
        // SAFETY: as in `as_mut_slice`; every pattern of 32 bits is an f32.
        unsafe { std::slice::from_raw_parts_mut(self.lines.as_mut_ptr().cast(), self.len) }
    }
}

/// A slice that the tasks of one run write at disjoint places.
pub(super) struct Shared<T> {
    start: *mut T,
    len: usize,
}

// SAFETY: it is only a pointer; whoever asks for a part promises that no other task has it.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    pub(super) fn new(slice: &mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len() }
    }

    /// The part `[from, from + len)`.
    ///
    /// # Safety
    /// The slice this was made from is still borrowed for it, and no other task holds an overlapping part.
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
