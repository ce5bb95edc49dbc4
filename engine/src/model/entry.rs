//! Place of a tensor in the weight files; knows no file.

use safetensors::tensor::TensorView;

#[derive(Debug, Clone)]
pub(super) struct Entry {
    pub(super) file: usize,
    pub(super) start: usize,
    pub(super) len: usize,
    pub(super) shape: Vec<usize>,
    /// Type as the file names it; only types that can be computed with become a [`Dtype`].
    pub(super) dtype: safetensors::Dtype,
}

impl Entry {
    /// Entry of a tensor of file number `file`, whose bytes begin at address `base`.
    pub(super) fn of(file: usize, base: usize, view: &TensorView<'_>) -> Entry {
        let data = view.data();
        Entry {
            file,
            start: data.as_ptr() as usize - base,
            len: data.len(),
            shape: view.shape().to_vec(),
            dtype: view.dtype(),
        }
    }
}
