//! Copy of the bundled model in which one token makes all values not a number, and every other token works.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::repository;

/// Copy of the model, removed when dropped. One dimension, which only this token's embedding uses, is scaled beyond all
/// bounds in one layer, so keys, values and logits of every sequence with the token are no numbers.
#[derive(Debug)]
pub struct Damaged {
    /// Path of the directory.
    pub directory: PathBuf,
}

/// Token that cannot be computed with.
pub const TOKEN: u32 = 1_999;
const DIMENSION: usize = 5;

impl Damaged {
    /// Makes the copy.
    pub fn copy() -> Result<Damaged> {
        static COPIES: AtomicU32 = AtomicU32::new(0);
        let number = COPIES.fetch_add(1, Ordering::Relaxed);
        let directory = std::env::temp_dir().join(format!("baton-damaged-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&directory)?;
        let copy = Damaged { directory };
        for entry in std::fs::read_dir(repository::root().join("models/demo"))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                std::fs::copy(entry.path(), copy.directory.join(entry.file_name()))?;
            }
        }
        let path = copy.directory.join("model.safetensors");
        let mut bytes = std::fs::read(&path)?;
        damage(&mut bytes)?;
        std::fs::write(path, bytes)?;
        Ok(copy)
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.directory);
    }
}

fn damage(bytes: &mut [u8]) -> Result<()> {
    let (head, rest) = bytes.split_at_mut(8);
    let (header, data) = rest.split_at_mut(u64::from_le_bytes(head.try_into()?) as usize);
    let header: Value = serde_json::from_slice(header)?;
    for (name, entry) in header.as_object().context("no header")?.iter().filter(|(name, _)| *name != "__metadata__") {
        ensure!(entry["dtype"] == "BF16", "{name} is not BF16");
        let number = |value: &Value| value.as_u64().map(|number| number as usize).context("no number");
        let (start, end) = (number(&entry["data_offsets"][0])?, number(&entry["data_offsets"][1])?);
        let columns = number(entry["shape"].as_array().and_then(|shape| shape.last()).context("no shape")?)?;
        let values = data[start..end].as_chunks_mut::<2>().0;
        // A bf16 number is the upper half of an f32.
        let set = |value: &mut [u8; 2], to: f32| *value = ((to.to_bits() >> 16) as u16).to_le_bytes();
        if name.ends_with("embed_tokens.weight") {
            values.iter_mut().skip(DIMENSION).step_by(columns).for_each(|value| set(value, 0.0));
            set(&mut values[TOKEN as usize * columns + DIMENSION], 50.0);
        } else if name.ends_with("o_proj.weight") || name.ends_with("down_proj.weight") {
            // Only the embedding writes to the dimension.
            values[DIMENSION * columns..][..columns].iter_mut().for_each(|value| set(value, 0.0));
        } else if name.ends_with("layers.2.input_layernorm.weight") {
            set(&mut values[DIMENSION], 3.3e38);
        }
    }
    Ok(())
}
