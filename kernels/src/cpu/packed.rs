//! Packed words that no longer change: of this process, or of a file that several processes map.

use std::ops::Range;
use std::sync::Arc;

use super::words::Words;
use crate::memory::MappedFile;
use crate::{IMAGE_ALIGN, KernelError};

pub(super) enum PackedWords {
    Own(Words),
    Mapped(MappedWords),
}

/// A range of a mapped file, checked to hold whole words on whole cache lines.
pub(super) struct MappedWords {
    file: Arc<MappedFile>,
    bytes: Range<usize>,
}

impl PackedWords {
    /// The words in a range of a mapped file, which must be `len` words on whole cache lines.
    pub(super) fn mapped(file: &Arc<MappedFile>, bytes: &Range<usize>, len: usize) -> Result<Self, KernelError> {
        let invalid = |what: String| Err(KernelError::Invalid { op: "matrix_from_image", what });
        if bytes.start > bytes.end || bytes.end > file.as_bytes().len() {
            return invalid(format!("section {bytes:?} lies outside {} bytes", file.as_bytes().len()));
        }
        if !bytes.start.is_multiple_of(IMAGE_ALIGN) {
            return invalid(format!("section {bytes:?} begins at no multiple of {IMAGE_ALIGN}"));
        }
        if Some(bytes.len()) != len.checked_mul(size_of::<u32>()) {
            return invalid(format!("section {bytes:?} should hold {len} words"));
        }
        Ok(Self::Mapped(MappedWords { file: Arc::clone(file), bytes: bytes.clone() }))
    }

    pub(super) fn as_slice(&self) -> &[u32] {
        match self {
            PackedWords::Own(words) => words.as_slice(),
            PackedWords::Mapped(words) => words.as_slice(),
        }
    }

    pub(super) fn as_f32(&self) -> &[f32] {
        let words = self.as_slice();
        // SAFETY: size and alignment are equal, and every pattern of 32 bits is an f32.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), words.len()) }
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        let words = self.as_slice();
        // SAFETY: the words are plain and initialised, bytes need no alignment, and the length is theirs in bytes.
        unsafe { std::slice::from_raw_parts(words.as_ptr().cast(), size_of_val(words)) }
    }
}

impl MappedWords {
    fn as_slice(&self) -> &[u32] {
        let bytes = &self.file.as_bytes()[self.bytes.clone()];
        // SAFETY: a mapping begins on a page and the range on a cache line of it, so words are aligned; the length is a
        // whole number of words; every pattern of 32 bits is a u32; the bytes live as long as the file is held.
        unsafe { std::slice::from_raw_parts(bytes.as_ptr().cast(), bytes.len() / size_of::<u32>()) }
    }
}
