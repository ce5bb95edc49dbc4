//! The digest of a model's weights, part of the compatibility key: equal digests mean equal tensors.

use xxhash_rust::xxh3::{Xxh3, xxh3_128};

use super::WeightFiles;

impl WeightFiles {
    /// XXH3 over every tensor's name, type, shape and content in the order of names. Reads all bytes once, which the
    /// preparation of the weights does anyway; does not depend on how tensors are spread over files.
    #[must_use]
    pub fn digest(&self) -> u128 {
        let mut hasher = Xxh3::new();
        for (name, dtype, shape, bytes) in self.in_order() {
            hasher.update(format!("{name} {dtype} {shape:?} ").as_bytes());
            hasher.update(&xxh3_128(bytes).to_le_bytes());
        }
        hasher.digest128()
    }
}
