//! Size of a KV pool as people write it: `512 MiB`, `256 blocks`, or a number of bytes; knows no block's size.

use std::fmt;
use std::str::FromStr;

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Size of a KV pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KvPool {
    /// Number of bytes, rounded down to whole blocks.
    Bytes(u64),
    /// Number of blocks.
    Blocks(u32),
}

const UNITS: [(&str, u64); 4] = [("bytes", 1), ("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
const FORM: &str = "such as \"512 MiB\", \"256 blocks\" or a number of bytes";

impl KvPool {
    pub(crate) fn is_empty(self) -> bool {
        matches!(self, KvPool::Bytes(0) | KvPool::Blocks(0))
    }
}

impl fmt::Display for KvPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            KvPool::Blocks(blocks) => write!(f, "{blocks} blocks"),
            KvPool::Bytes(bytes) => {
                let fits = |(_, size): &&(&str, u64)| bytes.is_multiple_of(*size) && bytes >= size;
                let (unit, size) = UNITS.iter().rev().find(fits).unwrap_or(&UNITS[0]);
                write!(f, "{} {unit}", bytes / size)
            }
        }
    }
}

impl FromStr for KvPool {
    type Err = String;

    fn from_str(text: &str) -> Result<KvPool, String> {
        let wrong = || format!("is {text:?}, expected {FORM}");
        let (count, unit) = match text.trim().split_once(char::is_whitespace) {
            Some((count, unit)) => (count, unit.trim()),
            None => (text.trim(), "bytes"),
        };
        let count: u64 = count.parse().map_err(|_| wrong())?;
        if unit == "blocks" {
            return u32::try_from(count).map(KvPool::Blocks).map_err(|_| wrong());
        }
        let (_, size) = UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(wrong)?;
        count.checked_mul(*size).map(KvPool::Bytes).ok_or_else(wrong)
    }
}

impl Serialize for KvPool {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for KvPool {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<KvPool, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = KvPool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a size {FORM}")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<KvPool, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_u64<E: Error>(self, bytes: u64) -> Result<KvPool, E> {
                Ok(KvPool::Bytes(bytes))
            }

            fn visit_i64<E: Error>(self, bytes: i64) -> Result<KvPool, E> {
                let negative = |_| E::custom(format!("is {bytes}, expected {FORM}"));
                u64::try_from(bytes).map(KvPool::Bytes).map_err(negative)
            }
        }

        deserializer.deserialize_any(Size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them_and_written_so_that_they_are_read() {
        for (text, pool, written) in [
            ("512 MiB", KvPool::Bytes(512 << 20), "512 MiB"),
            ("1024 KiB", KvPool::Bytes(1 << 20), "1 MiB"),
            ("3 GiB", KvPool::Bytes(3 << 30), "3 GiB"),
            ("1000", KvPool::Bytes(1000), "1000 bytes"),
            (" 256  blocks ", KvPool::Blocks(256), "256 blocks"),
            ("0", KvPool::Bytes(0), "0 bytes"),
        ] {
            assert_eq!(text.parse(), Ok(pool));
            assert_eq!(pool.to_string(), written);
            assert_eq!(written.parse(), Ok(pool));
        }
        for text in
            ["", "MiB", "1 MB", "-1 MiB", "1.5 GiB", "99999999999 blocks", "99999999999999 GiB", "1 blocks more"]
        {
            let said = text.parse::<KvPool>().unwrap_err();
            assert!(said.contains("such as \"512 MiB\""), "{said}");
        }
    }
}
