//! A prepared matrix in a mapped file; knows nothing else of that file.

use std::ops::Range;
use std::sync::Arc;

use kernels::memory::MappedFile;
use kernels::{MappedImage, Ops};

pub(super) struct Sections {
    pub(super) form: Vec<u64>,
    pub(super) file: Arc<MappedFile>,
    pub(super) ranges: Vec<Range<usize>>,
}

impl Sections {
    pub(super) fn matrix<O: Ops>(&self, ops: &O) -> Result<O::Matrix, kernels::KernelError> {
        ops.matrix_from_image(MappedImage { form: &self.form, file: &self.file, sections: &self.ranges })
    }
}
