//! A copy of a fixture in which exactly one token cannot be computed with.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::family;

/// A model in which key, value and hidden state of [`Damaged::TOKEN`] are NaN or infinite from the second layer on: a
/// dimension that only this token's embedding uses is scaled too far. The copy is removed on drop.
pub struct Damaged(pub PathBuf);

impl Damaged {
    /// A sequence that contains this token cannot be sampled.
    pub const TOKEN: u32 = 77;
    const DIMENSION: usize = 5;

    pub fn of(name: &str, test: &str) -> Result<Damaged> {
        let target = std::env::temp_dir().join(format!("baton-damaged-{}-{test}-{name}", std::process::id()));
        std::fs::create_dir_all(&target)?;
        let copy = Damaged(target);
        for entry in std::fs::read_dir(family(name))? {
            let entry = entry?;
            std::fs::copy(entry.path(), copy.0.join(entry.file_name()))?;
        }
        copy.damage()?;
        Ok(copy)
    }

    fn damage(&self) -> Result<()> {
        let path = self.0.join("model.safetensors");
        let mut bytes = std::fs::read(&path)?;
        let (head, data) = bytes.split_at_mut(8);
        let header_bytes = u64::from_le_bytes(head.try_into()?) as usize;
        let (header, data) = data.split_at_mut(header_bytes);
        let header: Value = serde_json::from_slice(header)?;
        for (name, entry) in header.as_object().context("no header")?.iter().filter(|(name, _)| *name != "__metadata__")
        {
            ensure!(entry["dtype"] == "F32", "{name} is not F32");
            let number = |value: &Value| value.as_u64().map(|number| number as usize).context("no number");
            let (start, end) = (number(&entry["data_offsets"][0])?, number(&entry["data_offsets"][1])?);
            let columns = number(entry["shape"].as_array().and_then(|shape| shape.last()).context("no shape")?)?;
            let values = data[start..end].as_chunks_mut::<4>().0;
            let set = |value: &mut [u8; 4], to: f32| *value = to.to_le_bytes();
            if name.ends_with("embed_tokens.weight") {
                values.iter_mut().skip(Self::DIMENSION).step_by(columns).for_each(|value| set(value, 0.0));
                set(&mut values[Self::TOKEN as usize * columns + Self::DIMENSION], 50.0);
            } else if ["o_proj.weight", "down_proj.weight", "w2.weight"].iter().any(|end| name.ends_with(end)) {
                // Nothing else writes to this dimension, so the embedding's value stays in it.
                values[Self::DIMENSION * columns..][..columns].iter_mut().for_each(|value| set(value, 0.0));
            } else if name.ends_with("layers.1.input_layernorm.weight") {
                set(&mut values[Self::DIMENSION], 3.3e38);
            }
        }
        Ok(std::fs::write(path, bytes)?)
    }
}

impl Drop for Damaged {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}
