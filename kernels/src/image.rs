//! A prepared matrix as bytes that other processes of the host can map; knows no file name and no model.

use std::ops::Range;
use std::sync::Arc;

use crate::memory::MappedFile;

/// Alignment of an image's sections in their file, so that their cache lines are whole.
pub const IMAGE_ALIGN: usize = 64;

/// Numbers and byte sections of a prepared matrix. Matrices with equal forms and sections are equal.
#[derive(Debug)]
pub struct MatrixImage<'a> {
    /// Shape and layout, as numbers whose meaning only the backend knows.
    pub form: Vec<u64>,
    /// Words as they lie in memory, in the byte order of this machine.
    pub sections: Vec<&'a [u8]>,
}

/// Image of a matrix inside a mapped file.
#[derive(Debug, Clone, Copy)]
pub struct MappedImage<'a> {
    /// As [`MatrixImage::form`].
    pub form: &'a [u64],
    /// The file; a matrix made from the image keeps it mapped.
    pub file: &'a Arc<MappedFile>,
    /// Byte range of each section in the file; begins at a multiple of [`IMAGE_ALIGN`].
    pub sections: &'a [Range<usize>],
}
