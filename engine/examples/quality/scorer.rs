//! The engine's predictions at every position of a given text; knows no other engine to compare with.
//!
//! The text is forced through the sampler: a bias that no logit can match decides each row's token, and the reported
//! log-probabilities are those of the unbiased distribution.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use engine::{Config, TransportChoice};
use sched::{SampleRow, SampledToken, SamplingParams, SlotId, SlotInit, StepPlan, TokenId};
use serde_json::Value;

use crate::driver::{BLOCK_TOKENS, Driver, push_rows};

/// Bias on the token that must be drawn.
const FORCING_BIAS: f32 = 1e6;

/// One loaded format of weights and KV.
pub(crate) struct Scorer {
    driver: Driver,
}

/// Distribution after one position, as far as the engine reports it.
#[derive(Debug, Clone)]
pub(crate) struct Prediction {
    /// Log-probability of the token that comes next in the text.
    pub(crate) logprob: f64,
    /// The likeliest tokens, in order, with their log-probabilities.
    pub(crate) top: Vec<(u32, f64)>,
}

impl Scorer {
    /// Loads the model; `pair` is `weights/KV`.
    pub(crate) fn open(model: &Path, pair: &str, window: usize, engine: &[(String, Value)]) -> Result<Scorer> {
        let (dtype, kv_dtype) = pair.split_once('/').with_context(|| format!("{pair:?} is not weights/KV"))?;
        let rows = window as u32;
        let config = Config {
            model_dir: model.to_path_buf(),
            kv_pool: engine::KvPool::Blocks(rows.div_ceil(BLOCK_TOKENS)),
            block_tokens: BLOCK_TOKENS,
            sequences_max: rows,
            step_tokens_max: rows,
            transport: TransportChoice::InProcess,
            // A model that is converted for one measurement is not worth a file.
            weights_cache: "off".to_owned(),
            ..Config::default()
        };
        let mut keys = serde_json::to_value(config)?;
        (keys["dtype"], keys["kv_dtype"]) = (dtype.into(), kv_dtype.into());
        for (key, value) in engine {
            keys[key] = value.clone();
        }
        Ok(Scorer { driver: Driver::open(&serde_json::from_value(keys)?)? })
    }

    /// Distributions that predict `tokens[1..]`.
    pub(crate) fn predict(&mut self, tokens: &[u32]) -> Result<Vec<Prediction>> {
        let Some((_, targets)) = tokens.split_first() else { return Ok(Vec::new()) };
        let rows = targets.len() as u32;
        let mut plan = StepPlan { layers: 0..self.driver.spec().layers, ..StepPlan::default() };
        plan.tokens.extend(tokens[..targets.len()].iter().map(|token| TokenId(*token)));
        push_rows(&mut plan, 0, 0..rows);
        plan.admit = (0..).zip(targets).map(|(slot, target)| forced(slot, TokenId(*target))).collect();
        plan.sample = (0..rows).map(|row| SampleRow { row, slot: SlotId(row) }).collect();
        let ran = self.driver.run([plan])?;
        let samples = ran.results.into_iter().flat_map(|result| result.samples);
        let predictions: Vec<Prediction> =
            samples.zip(targets).map(|(sample, target)| prediction(&sample?, *target)).collect::<Result<_>>()?;
        ensure!(predictions.len() == targets.len(), "{} of {} rows were sampled", predictions.len(), targets.len());
        Ok(predictions)
    }
}

fn forced(slot: u32, target: TokenId) -> SlotInit {
    let params = SamplingParams {
        temperature: 0.0,
        logprobs: Some(u8::MAX),
        logit_bias: vec![(target, FORCING_BIAS)],
        ..SamplingParams::default()
    };
    SlotInit {
        slot: SlotId(slot),
        params: Arc::new(params),
        seed: 0,
        prompt: [TokenId(0)].into(),
        generated: Vec::new(),
    }
}

fn prediction(sample: &SampledToken, target: u32) -> Result<Prediction> {
    ensure!(sample.token == TokenId(target), "drew {} where the text has {target}", sample.token);
    let logprob = f64::from(sample.logprob.context("no log-probability")?);
    let top = sample.top.iter().map(|(token, logprob)| (token.0, f64::from(*logprob))).collect();
    Ok(Prediction { logprob, top })
}
