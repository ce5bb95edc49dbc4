//! Logits and greedy tokens against Hugging Face transformers, for every family and weight format.

mod support;

use std::path::Path;
use std::sync::Arc;

use anyhow::Result;
use engine::model::Precision;
use kernels::reference::ReferenceOps;
use kernels::{CpuOps, Dtype, KernelSet, KvDtype, Ops, Placement, Pool};

use support::{Answer, ByHand, answers, demo, family};

/// Greatest difference of a logit from the reference, in f32.
const TOLERANCE_F32: f32 = 2e-3;
/// The same, with weights, activations and keys rounded to bf16; the logits are about 8 at most.
const TOLERANCE_BF16: f32 = 0.25;

/// Error relative to the size of all logits, with int8 weights and activations: median of a family, and one prompt.
const MEDIAN_ERROR_INT8: f32 = 0.1;
const LARGEST_ERROR_INT8: f32 = 0.5;

const FAMILIES_F32: [&str; 8] = ["llama", "llama3rope", "mistral", "qwen2", "qwen3", "mixtral", "qwen3moe", "opt"];

fn difference(ours: &[f32], theirs: &[(u32, f32)]) -> f32 {
    theirs.iter().map(|(token, theirs)| (ours[*token as usize] - theirs).abs()).fold(0.0, f32::max)
}

fn argmax(logits: &[f32]) -> u32 {
    (0..)
        .zip(logits)
        .fold((0, f32::NEG_INFINITY), |best, (id, logit)| if *logit > best.1 { (id, *logit) } else { best })
        .0
}

/// Checks the logits of the prompt, then of every greedy step with the reference's own tokens as input.
fn check<O: Ops>(by_hand: &mut ByHand<O>, answer: &Answer, tolerance: f32, context: &str) -> Result<()> {
    by_hand.clear();
    let mut logits = by_hand.append(&answer.prompt)?;
    let prompt_difference = difference(&logits, &answer.last_logits);
    assert!(prompt_difference <= tolerance, "{context} {}: prompt logits differ by {prompt_difference}", answer.name);
    for (step, token) in answer.greedy.iter().enumerate() {
        if let Some(theirs) = &answer.greedy_logits {
            let step_difference = difference(&logits, &[(*token, theirs[step])]);
            assert!(
                step_difference <= tolerance,
                "{context} {} step {step}: differs by {step_difference}",
                answer.name
            );
        }
        if answer.top2_gap[step] > 2.0 * tolerance {
            assert_eq!(argmax(&logits), *token, "{context} {} step {step}", answer.name);
        }
        logits = by_hand.append(&[*token])?;
    }
    Ok(())
}

/// CPU operations on two threads.
fn cpu() -> Result<CpuOps> {
    Ok(CpuOps::new(Arc::new(Pool::new(&Placement::Floating(2))?), KernelSet::best())?)
}

fn check_family<O: Ops>(ops: O, name: &str, precision: Precision, kv: KvDtype, tolerance: f32) -> Result<()> {
    check_directory(ops, &family(name), precision, kv, tolerance)
}

fn check_directory<O: Ops>(ops: O, directory: &Path, precision: Precision, kv: KvDtype, tolerance: f32) -> Result<()> {
    let mut by_hand = ByHand::new(ops, directory, precision, kv)?;
    let context = directory.display().to_string();
    answers(directory)?.iter().try_for_each(|answer| check(&mut by_hand, answer, tolerance, &context))
}

#[test]
fn reference_agrees_in_f32() -> Result<()> {
    for name in FAMILIES_F32 {
        check_family(ReferenceOps::default(), name, Precision::AsStored, KvDtype::F32, TOLERANCE_F32)?;
    }
    for name in ["llama-f16", "llama-bf16"] {
        check_family(ReferenceOps::default(), name, Precision::Converted(Dtype::F32), KvDtype::F32, TOLERANCE_F32)?;
    }
    check_family(ReferenceOps::default(), "llama-f16", Precision::AsStored, KvDtype::F32, TOLERANCE_F32)
}

#[test]
fn reference_agrees_in_bf16() -> Result<()> {
    check_family(ReferenceOps::default(), "llama-bf16", Precision::AsStored, KvDtype::Bf16, TOLERANCE_BF16)
}

#[test]
fn cpu_agrees_in_f32() -> Result<()> {
    for name in FAMILIES_F32 {
        check_family(cpu()?, name, Precision::AsStored, KvDtype::F32, TOLERANCE_F32)?;
    }
    for name in ["llama-f16", "llama-bf16"] {
        check_family(cpu()?, name, Precision::Converted(Dtype::F32), KvDtype::F32, TOLERANCE_F32)?;
    }
    check_family(cpu()?, "llama-f16", Precision::AsStored, KvDtype::F32, TOLERANCE_F32)
}

#[test]
fn cpu_agrees_in_bf16() -> Result<()> {
    check_family(cpu()?, "llama-bf16", Precision::AsStored, KvDtype::Bf16, TOLERANCE_BF16)?;
    check_family(cpu()?, "llama", Precision::Converted(Dtype::Bf16), KvDtype::Bf16, 2.0 * TOLERANCE_BF16)?;
    check_family(cpu()?, "opt", Precision::Converted(Dtype::Bf16), KvDtype::Bf16, 2.0 * TOLERANCE_BF16)
}

/// Int8 is coarse for these small models with their exaggerated norms, so logits are compared as a whole. Rounding may
/// change an attention weight or the choice of an expert, so single prompts get a wide bound.
#[test]
fn cpu_agrees_in_int8() -> Result<()> {
    for name in FAMILIES_F32 {
        let mut by_hand = ByHand::new(cpu()?, &family(name), Precision::Int8, KvDtype::F32)?;
        let mut errors = Vec::new();
        for answer in answers(&family(name))? {
            by_hand.clear();
            errors.push(relative_error(&by_hand.append(&answer.prompt)?, &answer.last_logits));
        }
        errors.sort_by(f32::total_cmp);
        let (least, median, most) = (errors[0], errors[errors.len() / 2], errors[errors.len() - 1]);
        assert!(least > 0.0, "{name}: int8 weights round something");
        assert!(median <= MEDIAN_ERROR_INT8, "{name}: logits are off by {errors:?} of their size");
        assert!(most <= LARGEST_ERROR_INT8, "{name}: logits are off by {errors:?} of their size");
    }
    Ok(())
}

/// Root of the squared differences over the root of the squares.
fn relative_error(ours: &[f32], theirs: &[(u32, f32)]) -> f32 {
    let differences: f32 = theirs.iter().map(|(token, theirs)| (ours[*token as usize] - theirs).powi(2)).sum();
    (differences / theirs.iter().map(|(_, theirs)| theirs.powi(2)).sum::<f32>()).sqrt()
}

#[test]
fn the_bundled_model_agrees() -> Result<()> {
    check_directory(cpu()?, &demo(), Precision::Converted(Dtype::F32), KvDtype::F32, TOLERANCE_F32)?;
    check_directory(cpu()?, &demo(), Precision::AsStored, KvDtype::Bf16, TOLERANCE_BF16)
}
