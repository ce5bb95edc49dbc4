//! Number format in which a model computes; knows no file.

use kernels::Dtype;

/// Number format of matrix products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Format of the files.
    AsStored,
    /// Converted to this format when loaded.
    Converted(Dtype),
    /// Rounded to int8 with a scale per row when loaded. Embeddings, positions and routers stay as stored: they are
    /// looked up, or small and decisive. So a tied embedding exists twice, as table and as int8 projection.
    Int8,
}

impl Precision {
    /// Format that matrices stored as `stored` are converted to; for int8, the format that they are rounded from.
    #[must_use]
    pub fn of(self, stored: Dtype) -> Dtype {
        match self {
            Precision::AsStored | Precision::Int8 => stored,
            Precision::Converted(wanted) => wanted,
        }
    }

    /// Name of the format in which matrices stored as `stored` are multiplied.
    #[must_use]
    pub fn name(self, stored: Dtype) -> String {
        match self {
            Precision::AsStored | Precision::Converted(_) => self.of(stored).to_string(),
            Precision::Int8 => "int8".to_owned(),
        }
    }
}
