//! Parts that the engine's tests share: fixtures, and a model that is run by hand.
#![allow(dead_code, unreachable_pub, reason = "each test uses a part of it")]

pub mod damaged;
pub mod requests;
pub mod workers;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result};
use engine::model::{Activations, Model, ModelSpec, Part, Precision, Shelf, Source, WeightFiles};
use kernels::memory::{Backing, HostMemory, Region};
use kernels::{Batch, BatchSequence, KvDtype, KvGeometry, Ops, StepInput};
use serde_json::Value;

/// Directory of a family's fixture.
pub fn family(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families").join(name)
}

/// Directory of the bundled model.
pub fn demo() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../models/demo")
}

/// Answer of transformers to one prompt.
pub struct Answer {
    pub name: String,
    pub prompt: Vec<u32>,
    pub greedy: Vec<u32>,
    pub top2_gap: Vec<f32>,
    /// Tokens with their logits after the prompt: all, or the likeliest.
    pub last_logits: Vec<(u32, f32)>,
    /// Logit of each greedy token, if recorded.
    pub greedy_logits: Option<Vec<f32>>,
}

/// Answers in a model's reference.json.
pub fn answers(directory: &Path) -> Result<Vec<Answer>> {
    let path = directory.join("reference.json");
    let reference: Value =
        serde_json::from_str(&std::fs::read_to_string(&path).with_context(|| path.display().to_string())?)?;
    let prompts = reference["prompts"].as_array().context("no prompts")?;
    prompts.iter().map(answer).collect()
}

fn answer(value: &Value) -> Result<Answer> {
    let ids = |key: &str| -> Result<Vec<u32>> { Ok(serde_json::from_value(value[key].clone())?) };
    let numbers = |key: &str| -> Result<Vec<f32>> { Ok(serde_json::from_value(value[key].clone())?) };
    let last_logits = if value.get("last_logits").is_some() {
        (0..).zip(numbers("last_logits")?).collect()
    } else {
        ids("last_top16_ids")?.into_iter().zip(numbers("last_top16_logits")?).collect()
    };
    Ok(Answer {
        name: value["name"].as_str().context("no name")?.to_owned(),
        prompt: ids("prompt_ids")?,
        greedy: ids("greedy_ids")?,
        top2_gap: numbers("top2_gap")?,
        last_logits,
        greedy_logits: value.get("greedy_logits").map(|_| numbers("greedy_logits")).transpose()?,
    })
}

/// One sequence run by hand through a model, without backend and scheduler.
pub struct ByHand<O: Ops> {
    ops: O,
    model: Model<O>,
    space: Activations<O>,
    kv: O::Kv,
    blocks: usize,
    block_tokens: usize,
    stored: u32,
}

impl<O: Ops> ByHand<O> {
    pub fn new(ops: O, directory: &Path, precision: Precision, kv_dtype: KvDtype) -> Result<ByHand<O>> {
        const POSITIONS_MAX: u32 = 512;
        const BLOCK_TOKENS: usize = 16;
        let spec = ModelSpec::read(directory)?;
        let weights = WeightFiles::open(directory)?;
        let source = Source { weights: &weights, precision, shelf: &Shelf::private() };
        let model = Model::load(&ops, spec.clone(), Part::whole(&spec), source, POSITIONS_MAX)?;
        let space = Activations::new(&ops, &model, POSITIONS_MAX, 1)?;
        let geometry = KvGeometry {
            blocks: POSITIONS_MAX as usize / BLOCK_TOKENS,
            layers: spec.layers as usize,
            kv_heads: spec.kv_heads as usize,
            head_dim: spec.head_dim as usize,
            block_tokens: BLOCK_TOKENS,
            dtype: kv_dtype,
        };
        let memory = Region::from(Arc::new(HostMemory::new(geometry.pool_bytes(), Backing::Anonymous)?));
        let (kv, blocks) = (ops.kv(&memory, geometry, geometry.whole())?, geometry.blocks);
        Ok(ByHand { ops, model, space, kv, blocks, block_tokens: BLOCK_TOKENS, stored: 0 })
    }

    /// Appends tokens, and returns the logits after the last one. Blocks are used from the pool's end backwards.
    pub fn append(&mut self, tokens: &[u32]) -> Result<Vec<f32>> {
        let rows = tokens.len() as u32;
        let blocks_used = (self.stored + rows).div_ceil(self.block_tokens as u32);
        let blocks_total = self.blocks as u32;
        let blocks: Vec<u32> = (0..blocks_used).map(|index| blocks_total - 1 - index).collect();
        let sequence = BatchSequence { rows: 0..rows, blocks: 0..blocks_used, first_position: self.stored };
        let sequences = [sequence];
        let batch = Batch { sequences: &sequences, blocks: &blocks };
        let input = StepInput { tokens, batch, wanted: &[rows - 1] };
        self.model.run(&mut self.ops, &mut self.space, &self.kv, input)?;
        self.stored += rows;
        Ok(self.model.logits(&mut self.ops, &mut self.space)?.row(0).to_vec())
    }

    pub fn clear(&mut self) {
        self.stored = 0;
    }
}
