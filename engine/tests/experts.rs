//! Models with experts: both stored forms give one model, and every choice of an expert is counted.

mod support;

use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

use anyhow::{Context, Result};
use engine::model::{Precision, WeightFiles};
use engine::{Config, PrefixCacheChoice};
use kernels::KvDtype;
use kernels::reference::ReferenceOps;
use safetensors::SafeTensors;
use safetensors::tensor::TensorView;
use sched::SamplingParams;

use support::requests::{request, tokens};
use support::workers::{Workers, config};
use support::{ByHand, family};

/// A directory, removed on drop.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}

/// The Mixtral fixture as transformers 5 may write it: one tensor for all experts of a layer.
fn fused() -> Result<Scratch> {
    const EXPERTS: usize = 6;
    let (source, target) =
        (family("mixtral"), std::env::temp_dir().join(format!("baton-fused-experts-{}", std::process::id())));
    std::fs::create_dir_all(&target)?;
    let scratch = Scratch(target);
    std::fs::copy(source.join("config.json"), scratch.0.join("config.json"))?;
    let bytes = std::fs::read(source.join("model.safetensors"))?;
    let tensors = SafeTensors::deserialize(&bytes)?;
    let mut written: Vec<(String, Vec<usize>, Vec<u8>)> = Vec::new();
    for (name, view) in tensors.iter().filter(|(name, _)| !name.contains(".experts.")) {
        let name = name.replace("block_sparse_moe", "mlp");
        written.push((name, view.shape().to_vec(), view.data().to_vec()));
    }
    for layer in 0..2 {
        for (fused, parts) in [("gate_up_proj", ["w1", "w3"].as_slice()), ("down_proj", &["w2"])] {
            let (mut data, mut shape) = (Vec::new(), Vec::new());
            for expert in 0..EXPERTS {
                for part in parts {
                    let name = format!("model.layers.{layer}.block_sparse_moe.experts.{expert}.{part}.weight");
                    let view = tensors.tensor(&name)?;
                    data.extend_from_slice(view.data());
                    shape = vec![EXPERTS, parts.len() * view.shape()[0], view.shape()[1]];
                }
            }
            written.push((format!("model.layers.{layer}.mlp.experts.{fused}"), shape, data));
        }
    }
    let views = written.iter().map(|(name, shape, data)| {
        TensorView::new(safetensors::Dtype::F32, shape.clone(), data).map(|view| (name.clone(), view))
    });
    let views: Vec<_> = views.collect::<Result<_, _>>()?;
    safetensors::serialize_to_file(views, None, &scratch.0.join("model.safetensors"))?;
    Ok(scratch)
}

fn logits(directory: &Path) -> Result<Vec<u32>> {
    let mut by_hand = ByHand::new(ReferenceOps::default(), directory, Precision::AsStored, KvDtype::F32)?;
    let logits = by_hand.append(&[3, 70, 200, 11])?;
    Ok(logits.into_iter().map(f32::to_bits).collect())
}

#[test]
fn fused_and_separate_experts_are_one_model() -> Result<()> {
    let fused = fused()?;
    assert_eq!(logits(&fused.0)?, logits(&family("mixtral"))?);
    assert!(WeightFiles::open(&fused.0)?.contains("model.layers.1.mlp.experts.5.down_proj.weight"));
    Ok(())
}

#[test]
fn every_choice_is_counted_once_whoever_computes_it() -> Result<()> {
    for (tp, pp) in [(1, 1), (2, 1), (1, 2), (2, 2)] {
        choices_are_counted(tp, pp).with_context(|| format!("tp {tp}, pp {pp}"))?;
    }
    Ok(())
}

fn choices_are_counted(tp: u32, pp: u32) -> Result<()> {
    const PROMPT: usize = 60;
    const OUTPUT: u64 = 7;
    let base = Config {
        prefix_cache: PrefixCacheChoice::Off,
        step_tokens_max: 16,
        sequences_max: 8,
        tp,
        pp,
        ..config(&family("qwen3moe"))
    };
    let mut workers = Workers::aggregated(&base)?;
    let params = SamplingParams { max_tokens: OUTPUT as u32, ..SamplingParams::default() };
    let requests: Vec<_> = (0..3)
        .map(|id| request(id, tokens(id, PROMPT, 384), 1, SamplingParams { seed: id, ..params.clone() }))
        .collect();
    let generated: u64 = workers.run(&requests)?.values().map(|text| text.len() as u64).sum();
    let counts = workers.first.expert_counts.as_ref().context("a model with experts counts")?;
    assert_eq!((counts.layers.as_slice(), counts.experts), ([0, 2].as_slice(), 8), "layer 1 is dense");
    let rows = (*counts.rows).as_ref();
    let sums: Vec<u64> =
        rows.chunks(8).map(|layer| layer.iter().map(|rows| rows.load(Ordering::Relaxed)).sum()).collect();
    // The last token of a text is never an input, unless its row was surplus because the text ended early.
    let inputs = 3 * PROMPT as u64 + generated - 3;
    assert!((3 * inputs..=3 * (inputs + 3)).contains(&sums[0]), "tp {tp}, pp {pp}: {sums:?} choices of {inputs} rows");
    assert!((3 * generated..=3 * (generated + 3)).contains(&sums[1]), "{sums:?}: the last layer has wanted rows only");
    Ok(())
}
