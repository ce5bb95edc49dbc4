//! A prepared matrix as bytes that other processes of the host can map; knows no file name and no model.

use std::ops::Range;
use std::sync::Arc;

use crate::memory::MappedFile;

/// Sections of an image begin at multiples of this in their file, so that a mapped cache line is a whole one.
pub const IMAGE_ALIGN: usize = 64;

/// A prepared matrix, taken apart. Equal forms and equal sections are the same matrix.
#[derive(Debug)]
pub struct MatrixImage<'a> {
    /// Shape and layout, in numbers that only the operations which prepared it understand.
    pub form: Vec<u64>,
    /// Its words as they lie in memory, in the byte order of this machine.
    pub sections: Vec<&'a [u8]>,
}

/// The image of a matrix in a file.
#[derive(Debug, Clone, Copy)]
pub struct MappedImage<'a> {
    /// As [`MatrixImage::form`].
    pub form: &'a [u64],
    /// The file; what is made of the image keeps it mapped.
    pub file: &'a Arc<MappedFile>,
    /// Where in the file each section lies; begins at a multiple of [`IMAGE_ALIGN`].
    pub sections: &'a [Range<usize>],
}
