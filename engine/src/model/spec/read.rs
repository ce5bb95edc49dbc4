//! Reads a `ModelSpec` from config.json by the rules of the architecture; knows no architecture by name.

use kernels::{ExpertWeights, HEAD_DIM_MAX, HEAD_DIM_STEP, NormKind, Routing};

use model_files::{Fields, Generation, ModelConfig, ModelFileError};

use super::architecture::{
    Architecture, BiasRule, ConfigRules, DenseRule, ExpertWeightRule, HeadRule, MlpRule, NormRule, PositionRule,
};
use super::{AttentionBias, MlpSpec, ModelSpec, Positions, windows};
use crate::EngineError;
use crate::model::rope::RopeSpec;

/// Bounds above every published model of these architectures. They are checked before anything is allocated per layer
/// or position; no product of two widths below them overflows.
pub(super) const LAYERS_MAX: u32 = 1024;
pub(super) const HEADS_MAX: u32 = 1024;
pub(super) const WIDTH_MAX: u32 = 1 << 20;
pub(super) const EXPERTS_MAX: u32 = 1024;

/// Spec that config.json describes, with the end tokens that `generation` names.
pub(super) fn spec(model: &ModelConfig, generation: &Generation) -> Result<ModelSpec, EngineError> {
    let architecture = Architecture::of(model.family);
    let (config, rules) = (&model.fields, &architecture.config);
    refuse_unsupported(config, rules)?;
    let (heads, kv_heads, head_dim) = head_shape(config, rules)?;
    let layers = config.count_to("num_hidden_layers", LAYERS_MAX)?;
    let (norm, norm_eps) = norm(config, rules)?;
    Ok(ModelSpec {
        architecture,
        vocab: model.vocab()?,
        hidden: config.count_to("hidden_size", WIDTH_MAX)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        mlps: mlps(config, rules, layers)?,
        norm,
        norm_eps,
        positions: positions(config, rules, head_dim)?,
        context_max: model.context_tokens()?,
        windows: windows::of(config, &rules.windows, layers)?,
        attention_bias: attention_bias(config, rules)?,
        qk_norm: rules.qk_norm,
        tied_embeddings: config.flag("tie_word_embeddings")?,
        eos: generation.end_tokens(model)?,
    })
}

/// Refuses features that change the maths and are not built, beyond the table of keys: an error beats wrong tokens.
fn refuse_unsupported(config: &Fields, rules: &ConfigRules) -> Result<(), EngineError> {
    for key in rules.as_wide_as_hidden {
        let (width, hidden) = (config.count_opt(key)?, config.count_to("hidden_size", WIDTH_MAX)?);
        if let Some(width) = width.filter(|width| *width != hidden) {
            let problem = format!("is {width}, other than hidden_size {hidden}, which is not supported");
            return Err(config.problem(key, problem).into());
        }
    }
    let (key, built) = rules.activation;
    match config.text_opt(key)? {
        Some(name) if built.contains(&name) => Ok(()),
        Some(other) => {
            Err(config.problem(key, format!("{other:?} is not supported; supported is {:?}", built[0])).into())
        }
        None => Err(config.problem(key, "is missing").into()),
    }
}

fn head_shape(config: &Fields, rules: &ConfigRules) -> Result<(u32, u32, u32), EngineError> {
    let heads = config.count_to("num_attention_heads", HEADS_MAX)?;
    let (kv_heads, head_dim) = match rules.heads {
        HeadRule::Asked => (config.count_to_opt("num_key_value_heads", HEADS_MAX)?, config.count_opt("head_dim")?),
        HeadRule::Plain => (None, None),
    };
    let kv_heads = kv_heads.unwrap_or(heads);
    if !heads.is_multiple_of(kv_heads) {
        let problem = format!("is {kv_heads}, which does not divide num_attention_heads {heads}");
        return Err(config.problem("num_key_value_heads", problem).into());
    }
    if let Some(head_dim) = head_dim {
        let served = is_served(head_dim);
        return if served {
            Ok((heads, kv_heads, head_dim))
        } else {
            Err(head_dim_problem(config, head_dim, "").into())
        };
    }
    let hidden = config.count_to("hidden_size", WIDTH_MAX)?;
    if !hidden.is_multiple_of(heads) {
        let problem = format!("is {hidden}, no multiple of num_attention_heads {heads}, and there is no head_dim");
        return Err(config.problem("hidden_size", problem).into());
    }
    match hidden / heads {
        head_dim if is_served(head_dim) => Ok((heads, kv_heads, head_dim)),
        head_dim => Err(head_dim_problem(config, head_dim, ", which is hidden_size / num_attention_heads").into()),
    }
}

fn is_served(head_dim: u32) -> bool {
    let head_dim = head_dim as usize;
    head_dim.is_multiple_of(HEAD_DIM_STEP) && head_dim <= HEAD_DIM_MAX
}

fn head_dim_problem(config: &Fields, head_dim: u32, origin: &str) -> ModelFileError {
    let problem = format!("must be a multiple of {HEAD_DIM_STEP}, at most {HEAD_DIM_MAX}, found {head_dim}{origin}");
    config.problem("head_dim", problem)
}

fn norm(config: &Fields, rules: &ConfigRules) -> Result<(NormKind, f32), EngineError> {
    match rules.norm {
        NormRule::Rms(eps) => Ok((NormKind::Rms, config.positive(eps)? as f32)),
        NormRule::Layer(eps) => Ok((NormKind::Layer, eps)),
    }
}

fn positions(config: &Fields, rules: &ConfigRules, head_dim: u32) -> Result<Positions, EngineError> {
    match rules.positions {
        PositionRule::Rope => Ok(Positions::Rope(RopeSpec::of(config, head_dim)?)),
        PositionRule::Learned { offset } => Ok(Positions::Learned { offset }),
    }
}

fn mlps(config: &Fields, rules: &ConfigRules, layers: u32) -> Result<Vec<MlpSpec>, EngineError> {
    let width = |key| config.count_to(key, WIDTH_MAX);
    let all = |mlp| Ok(vec![mlp; layers as usize]);
    match &rules.mlp {
        MlpRule::Gated { width: key } => all(MlpSpec::Gated { width: width(key)? }),
        MlpRule::Relu { width: key } => all(MlpSpec::Relu { width: width(key)? }),
        MlpRule::Experts { experts, width: key, weights, dense } => {
            let routing = routing(config, experts, weights)?;
            let experts = MlpSpec::Experts { width: width(key)?, routing };
            match dense {
                DenseRule::None => all(experts),
                DenseRule::Asked(key) => with_dense(config, experts, key, layers),
            }
        }
    }
}

fn routing(config: &Fields, keys: &[&str], weights: &ExpertWeightRule) -> Result<Routing, EngineError> {
    let key = expert_key(config, keys)?;
    let experts = config.count_to(key, EXPERTS_MAX)?;
    let per_row = config.count_to("num_experts_per_tok", EXPERTS_MAX)?;
    if per_row > experts {
        return Err(config.problem("num_experts_per_tok", format!("is {per_row}, {key} is {experts}")).into());
    }
    let weights = match weights {
        ExpertWeightRule::Always(weights) => *weights,
        ExpertWeightRule::Asked if config.flag("norm_topk_prob")? => ExpertWeights::AmongChosen,
        ExpertWeightRule::Asked => ExpertWeights::AmongAll,
    };
    Ok(Routing { experts: experts as usize, per_row: per_row as usize, weights })
}

/// Key of the number of experts that the file has, out of several names; refuses two that disagree.
fn expert_key<'a>(config: &Fields, keys: &[&'a str]) -> Result<&'a str, ModelFileError> {
    let given: Vec<&str> = keys.iter().copied().filter(|key| config.is_given(key)).collect();
    let disagreeing = given.iter().find(|key| config.get(key) != config.get(given[0]));
    match disagreeing {
        Some(key) => Err(config.problem(key, format!("is another number than {}", given[0]))),
        None => Ok(given.first().copied().unwrap_or(keys[0])),
    }
}

/// MLPs with experts in every `decoder_sparse_step`th layer that is not one of `mlp_only_layers`.
fn with_dense(config: &Fields, experts: MlpSpec, key: &str, layers: u32) -> Result<Vec<MlpSpec>, EngineError> {
    let only = config.whole_list("mlp_only_layers")?;
    if let Some(layer) = only.iter().find(|layer| **layer >= layers) {
        return Err(config.problem("mlp_only_layers", format!("names layer {layer} of {layers}")).into());
    }
    let step = config.count_opt("decoder_sparse_step")?.unwrap_or(1);
    let is_dense = |layer: &u32| only.contains(layer) || !(layer + 1).is_multiple_of(step);
    if !(0..layers).any(|layer| is_dense(&layer)) {
        return Ok(vec![experts; layers as usize]);
    }
    let dense = MlpSpec::Gated { width: config.count_to(key, WIDTH_MAX)? };
    Ok((0..layers).map(|layer| if is_dense(&layer) { dense } else { experts }).collect())
}

fn attention_bias(config: &Fields, rules: &ConfigRules) -> Result<AttentionBias, EngineError> {
    match rules.attention_bias {
        BiasRule::Always(bias) => Ok(bias),
        BiasRule::Asked => {
            let all = config.flag("attention_bias")?;
            Ok(if all { AttentionBias::QkvOutput } else { AttentionBias::None })
        }
    }
}
