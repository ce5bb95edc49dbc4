//! In which number format a model computes; knows no file.

use kernels::Dtype;

/// In which format matrices are computed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// As the files hold them.
    AsStored,
    /// Converted to this format when loaded.
    Converted(Dtype),
    /// Rounded to int8 with a scale per row when loaded. Embeddings, positions and routers stay as stored: they are
    /// looked up, or small and decisive. So a tied embedding is there twice, as a table and as an int8 projection.
    Int8,
}

impl Precision {
    /// The format that matrices stored as `stored` are brought into; of int8, the one they are rounded from.
    #[must_use]
    pub fn of(self, stored: Dtype) -> Dtype {
        match self {
            Precision::AsStored | Precision::Int8 => stored,
            Precision::Converted(wanted) => wanted,
        }
    }

    /// The name of the format that matrices stored as `stored` are multiplied in.
    #[must_use]
    pub fn name(self, stored: Dtype) -> String {
        match self {
            Precision::AsStored | Precision::Converted(_) => self.of(stored).to_string(),
            Precision::Int8 => "int8".to_owned(),
        }
    }
}
