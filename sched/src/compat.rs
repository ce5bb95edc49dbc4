//! Compatibility of workers that exchange KV caches; knows the facts that decide it, not where they come from.

use std::fmt;

use xxhash_rust::xxh3::xxh3_128;

use crate::layout::KvDtype;

/// Everything that two workers must agree on before one may read the other's KV cache.
///
/// Block size and parallelism are absent on purpose: those can be resharded. Layouts compare the order inside a tile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CompatParts {
    /// Digest of all weights and of the adapter, if any.
    pub weights_digest: u128,
    /// Layers of the whole model.
    pub layers: u32,
    /// KV heads of the whole model.
    pub kv_heads: u32,
    /// Elements per head.
    pub head_dim: u32,
    /// Rotary embedding: base, scaling and its parameters in one canonical sentence.
    pub rope: String,
    /// Element type of stored K and V.
    pub kv_dtype: KvDtype,
    /// Rule by which quantised elements are scaled; `none` if they are not.
    pub scale_rule: String,
    /// Backend and kernel set, which fix every bit of the result.
    pub numerics: String,
    /// Version of the hand-off protocol.
    pub wire_version: u32,
}

/// Digest of the parts in 128 bits. Equal keys mean that KV may be exchanged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct CompatKey(pub u128);

impl CompatParts {
    /// Key of these parts (xxh3-128 of the canonical text that `Display` writes).
    #[must_use]
    pub fn key(&self) -> CompatKey {
        CompatKey(xxh3_128(self.to_string().as_bytes()))
    }

    /// A part that differs, with both values, or `None` when KV may be exchanged. Numerics come before weights: a backend
    /// that computes nothing has no weights to digest.
    #[must_use]
    pub fn difference(&self, other: &CompatParts) -> Option<String> {
        let (mut ours, mut theirs) = (self.named(), other.named());
        for parts in [&mut ours, &mut theirs] {
            // From the end to the second place, behind the wire version.
            parts[1..].rotate_right(1);
        }
        let differing = ours.iter().zip(&theirs).find(|(ours, theirs)| ours.1 != theirs.1);
        differing.map(|(ours, theirs)| format!("{} differs: {} here, {} there", ours.0, ours.1, theirs.1))
    }

    fn named(&self) -> [(&'static str, String); 9] {
        [
            ("wire version", self.wire_version.to_string()),
            ("weights digest", format!("{:032x}", self.weights_digest)),
            ("layers", self.layers.to_string()),
            ("kv heads", self.kv_heads.to_string()),
            ("head dim", self.head_dim.to_string()),
            ("rope", format!("{:?}", self.rope)),
            ("kv dtype", self.kv_dtype.label().to_owned()),
            ("scale rule", format!("{:?}", self.scale_rule)),
            ("numerics", format!("{:?}", self.numerics)),
        ]
    }
}

impl fmt::Display for CompatParts {
    /// `name=value` pairs; free text is quoted, so no two different sets of parts print alike.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, (name, value)) in self.named().iter().enumerate() {
            let gap = if place == 0 { "" } else { ", " };
            write!(f, "{gap}{name}={value}")?;
        }
        Ok(())
    }
}

impl CompatKey {
    /// Key as it travels between processes: 16 bytes, most significant first.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// Key in these bytes, if there are exactly 16.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<CompatKey> {
        bytes.try_into().ok().map(u128::from_be_bytes).map(CompatKey)
    }
}

impl fmt::Display for CompatKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts() -> CompatParts {
        CompatParts {
            weights_digest: 0xfeed,
            layers: 12,
            kv_heads: 4,
            head_dim: 64,
            rope: "base 10000".into(),
            kv_dtype: KvDtype::Bf16,
            scale_rule: "none".into(),
            numerics: "cpu avx2".into(),
            wire_version: 1,
        }
    }

    #[test]
    fn every_part_changes_the_key_and_is_named() {
        let base = parts();
        let others = [
            ("wire version", CompatParts { wire_version: 2, ..parts() }),
            ("weights digest", CompatParts { weights_digest: 1, ..parts() }),
            ("layers", CompatParts { layers: 13, ..parts() }),
            ("kv heads", CompatParts { kv_heads: 12, ..parts() }),
            ("head dim", CompatParts { head_dim: 128, ..parts() }),
            ("rope", CompatParts { rope: "base 500000".into(), ..parts() }),
            ("kv dtype", CompatParts { kv_dtype: KvDtype::F32, ..parts() }),
            ("scale rule", CompatParts { scale_rule: "per token and head".into(), ..parts() }),
            ("numerics", CompatParts { numerics: "cpu avx512".into(), ..parts() }),
        ];
        assert_eq!(base.named().len(), others.len());
        for (name, other) in others {
            assert_ne!(base.key(), other.key(), "{name}");
            let difference = base.difference(&other).unwrap();
            assert!(difference.starts_with(&format!("{name} differs: ")), "{difference}");
        }
        assert_eq!(base.difference(&parts()), None);
        let modelled = CompatParts { weights_digest: 1, numerics: "modelled".into(), ..parts() };
        assert_eq!(base.difference(&modelled).unwrap(), "numerics differs: \"cpu avx2\" here, \"modelled\" there");
        assert_eq!(base.key(), parts().key());
    }

    #[test]
    fn text_cannot_be_shifted_between_parts() {
        let one = CompatParts { rope: "a\", kv dtype=bf16".into(), ..parts() };
        let two = CompatParts { rope: "a".into(), ..parts() };
        assert_ne!(one.key(), two.key());
    }

    #[test]
    fn the_key_is_stable_and_travels() {
        let key = parts().key();
        assert_eq!(CompatKey::from_bytes(&key.to_bytes()), Some(key));
        assert_eq!(CompatKey::from_bytes(&[0; 15]), None);
        expect_test::expect![[r#"
            wire version=1, weights digest=0000000000000000000000000000feed, layers=12, kv heads=4, head dim=64, rope="base 10000", kv dtype=bf16, scale rule="none", numerics="cpu avx2"
            cc8c049e479b9b7b4ee5250af4ad5219"#]].assert_eq(&format!("{}\n{key}", parts()));
    }
}
