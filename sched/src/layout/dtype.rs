//! Element types of stored K and V; knows their size and name, not how to compute with them.

/// Element type of stored K and V.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum KvDtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// Brain float.
    Bf16,
    /// Signed bytes with one scale per (token, KV head), stored in the tile.
    Int8,
}

impl KvDtype {
    /// Every type, for tables and tests.
    pub const ALL: [KvDtype; 4] = [KvDtype::F32, KvDtype::F16, KvDtype::Bf16, KvDtype::Int8];

    /// Bytes per element, scales apart.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            KvDtype::F32 => 4,
            KvDtype::F16 | KvDtype::Bf16 => 2,
            KvDtype::Int8 => 1,
        }
    }

    /// Name in configurations, errors and on the wire.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            KvDtype::F32 => "f32",
            KvDtype::F16 => "f16",
            KvDtype::Bf16 => "bf16",
            KvDtype::Int8 => "int8",
        }
    }

    /// Returns the type with this label.
    #[must_use]
    pub fn from_label(label: &str) -> Option<KvDtype> {
        KvDtype::ALL.into_iter().find(|dtype| dtype.label() == label)
    }
}
