//! From config.json to a `ModelSpec`, as the row of the architecture says; knows no architecture by name.

use kernels::{ExpertWeights, HEAD_DIM_MAX, HEAD_DIM_STEP, NormKind, Routing};

use super::architecture::{
    Architecture, BiasRule, ConfigRules, DenseRule, ExpertWeightRule, MlpRule, NormRule, PositionRule, WindowRule,
};
use super::{AttentionBias, MlpSpec, ModelSpec, Positions};
use crate::EngineError;
use crate::model::json::Fields;
use crate::model::rope::RopeSpec;

/// Bounds above every published model of these architectures. They hold before anything is allocated by layer or
/// position, and no product of two widths overflows below them.
pub(super) const LAYERS_MAX: u32 = 1024;
pub(super) const HEADS_MAX: u32 = 1024;
pub(super) const WIDTH_MAX: u32 = 1 << 20;
pub(super) const VOCAB_MAX: u32 = 1 << 22;
pub(super) const CONTEXT_MAX: u32 = 1 << 22;
pub(super) const EXPERTS_MAX: u32 = 1024;

/// The spec that `config` describes; `generation` is generation_config.json, where there is one.
pub(super) fn spec(config: &Fields, generation: Option<&Fields>) -> Result<ModelSpec, EngineError> {
    let architecture = architecture(config)?;
    let rules = &architecture.config;
    refuse_unsupported(config, rules)?;
    let (heads, kv_heads, head_dim) = head_shape(config)?;
    let layers = config.count_to("num_hidden_layers", LAYERS_MAX)?;
    let (norm, norm_eps) = norm(config, rules)?;
    let spec = ModelSpec {
        architecture,
        vocab: config.count_to("vocab_size", VOCAB_MAX)?,
        hidden: config.count_to("hidden_size", WIDTH_MAX)?,
        layers,
        heads,
        kv_heads,
        head_dim,
        mlps: mlps(config, rules, layers)?,
        norm,
        norm_eps,
        positions: positions(config, rules, head_dim)?,
        context_max: config.count_to("max_position_embeddings", CONTEXT_MAX)?,
        windows: windows(config, rules, layers)?,
        attention_bias: attention_bias(config, rules)?,
        qk_norm: rules.qk_norm,
        tied_embeddings: config.flag("tie_word_embeddings", rules.tied_embeddings)?,
        eos: end_tokens(config, generation)?,
    };
    check(&spec, config)?;
    Ok(spec)
}

fn architecture(config: &Fields) -> Result<&'static Architecture, EngineError> {
    let named = config.texts_opt("architectures")?.ok_or_else(|| config.problem("architectures", "is missing"))?;
    let known = named.iter().find_map(|name| Architecture::ALL.into_iter().find(|known| known.name == *name));
    known.ok_or_else(|| {
        let supported = Architecture::ALL.map(|known| known.name).join(", ");
        config.problem("architectures", format!("{named:?} is not supported; supported are {supported}"))
    })
}

/// Relations between fields that single keys cannot show.
fn check(spec: &ModelSpec, config: &Fields) -> Result<(), EngineError> {
    if !spec.heads.is_multiple_of(spec.kv_heads) {
        let problem = format!("is {}, which does not divide num_attention_heads {}", spec.kv_heads, spec.heads);
        return Err(config.problem("num_key_value_heads", problem));
    }
    if let Some(id) = spec.eos.iter().find(|id| **id >= spec.vocab) {
        let problem = format!("names token {id}, the vocabulary has {} entries", spec.vocab);
        return Err(config.problem("eos_token_id", problem));
    }
    Ok(())
}

/// Features that change the maths and are not built: better an error than wrong tokens.
fn refuse_unsupported(config: &Fields, rules: &ConfigRules) -> Result<(), EngineError> {
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.text_opt("quant_method")?.unwrap_or("unknown");
        let problem = format!("asks for quantised weights ({method}); supported are f32, f16 and bf16 weights");
        return Err(config.problem("quantization_config", problem));
    }
    for (key, built) in rules.flags {
        let found = config.flag(key, *built)?;
        if found != *built {
            return Err(config.problem(key, format!("{found} is not supported")));
        }
    }
    for key in rules.as_wide_as_hidden {
        let (width, hidden) = (config.count_opt(key)?, config.count_to("hidden_size", WIDTH_MAX)?);
        if let Some(width) = width.filter(|width| *width != hidden) {
            let problem = format!("is {width}, other than hidden_size {hidden}, which is not supported");
            return Err(config.problem(key, problem));
        }
    }
    let (key, built) = rules.activation;
    match config.text_opt(key)? {
        Some(other) if !built.contains(&other) => {
            Err(config.problem(key, format!("{other:?} is not supported; supported is {:?}", built[0])))
        }
        None | Some(_) => Ok(()),
    }
}

fn head_shape(config: &Fields) -> Result<(u32, u32, u32), EngineError> {
    let heads = config.count_to("num_attention_heads", HEADS_MAX)?;
    let kv_heads = config.count_to_opt("num_key_value_heads", HEADS_MAX)?.unwrap_or(heads);
    if let Some(head_dim) = config.count_opt("head_dim")? {
        let served = is_served(head_dim);
        return if served { Ok((heads, kv_heads, head_dim)) } else { Err(head_dim_problem(config, head_dim, "")) };
    }
    let hidden = config.count_to("hidden_size", WIDTH_MAX)?;
    if !hidden.is_multiple_of(heads) {
        let problem = format!("is {hidden}, no multiple of num_attention_heads {heads}, and there is no head_dim");
        return Err(config.problem("hidden_size", problem));
    }
    match hidden / heads {
        head_dim if is_served(head_dim) => Ok((heads, kv_heads, head_dim)),
        head_dim => Err(head_dim_problem(config, head_dim, ", which is hidden_size / num_attention_heads")),
    }
}

/// Whether the kernels have this width of a head.
fn is_served(head_dim: u32) -> bool {
    let head_dim = head_dim as usize;
    head_dim.is_multiple_of(HEAD_DIM_STEP) && head_dim <= HEAD_DIM_MAX
}

fn head_dim_problem(config: &Fields, head_dim: u32, origin: &str) -> EngineError {
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
        PositionRule::Rope { theta } => Ok(Positions::Rope(RopeSpec::of(config, theta, head_dim)?)),
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
    let key = keys.iter().find(|key| config.get(key).is_some()).unwrap_or(&keys[0]);
    let experts = config.count_to(key, EXPERTS_MAX)?;
    let per_row = config.count_to("num_experts_per_tok", EXPERTS_MAX)?;
    if per_row > experts {
        return Err(config.problem("num_experts_per_tok", format!("is {per_row}, {key} is {experts}")));
    }
    let weights = match weights {
        ExpertWeightRule::Always(weights) => *weights,
        ExpertWeightRule::Asked if config.flag("norm_topk_prob", false)? => ExpertWeights::AmongChosen,
        ExpertWeightRule::Asked => ExpertWeights::AmongAll,
    };
    Ok(Routing { experts: experts as usize, per_row: per_row as usize, weights })
}

/// Experts in every `decoder_sparse_step`th layer that is not one of `mlp_only_layers`.
fn with_dense(config: &Fields, experts: MlpSpec, key: &str, layers: u32) -> Result<Vec<MlpSpec>, EngineError> {
    let only = config.whole_list("mlp_only_layers")?;
    if let Some(layer) = only.iter().find(|layer| **layer >= layers) {
        return Err(config.problem("mlp_only_layers", format!("names layer {layer} of {layers}")));
    }
    let step = config.count_opt("decoder_sparse_step")?.unwrap_or(1);
    let is_dense = |layer: &u32| only.contains(layer) || !(layer + 1).is_multiple_of(step);
    if !(0..layers).any(|layer| is_dense(&layer)) {
        return Ok(vec![experts; layers as usize]);
    }
    let dense = MlpSpec::Gated { width: config.count_to(key, WIDTH_MAX)? };
    Ok((0..layers).map(|layer| if is_dense(&layer) { dense } else { experts }).collect())
}

fn windows(config: &Fields, rules: &ConfigRules, layers: u32) -> Result<Vec<Option<u32>>, EngineError> {
    let window = config.count_opt("sliding_window")?;
    let switched = config.flag("use_sliding_window", false)?;
    let all = |window| Ok(vec![window; layers as usize]);
    match rules.windows {
        WindowRule::None => all(None),
        WindowRule::All => all(window),
        WindowRule::AllSwitched => all(window.filter(|_| switched)),
        WindowRule::Switched => {
            let (Some(window), true) = (window, switched) else { return all(None) };
            if let Some(types) = config.texts_opt("layer_types")? {
                return windows_by_type(config, &types, window, layers);
            }
            let first = config.whole_opt("max_window_layers")?.unwrap_or(layers);
            Ok((0..layers).map(|layer| (layer >= first).then_some(window)).collect())
        }
    }
}

fn windows_by_type(config: &Fields, types: &[&str], window: u32, layers: u32) -> Result<Vec<Option<u32>>, EngineError> {
    if types.len() != layers as usize {
        let problem = format!("has {} entries for {layers} layers", types.len());
        return Err(config.problem("layer_types", problem));
    }
    let windows = types.iter().map(|name| match *name {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(Some(window)),
        other => Err(config.problem("layer_types", format!("{other:?} is not supported"))),
    });
    windows.collect()
}

fn attention_bias(config: &Fields, rules: &ConfigRules) -> Result<AttentionBias, EngineError> {
    match rules.attention_bias {
        BiasRule::Always(bias) => Ok(bias),
        BiasRule::Asked => {
            let all = config.flag("attention_bias", false)?;
            Ok(if all { AttentionBias::QkvOutput } else { AttentionBias::None })
        }
    }
}

fn end_tokens(config: &Fields, generation: Option<&Fields>) -> Result<Vec<u32>, EngineError> {
    let mut eos = match generation {
        Some(generation) => generation.token_ids("eos_token_id")?,
        None => Vec::new(),
    };
    if eos.is_empty() {
        eos = config.token_ids("eos_token_id")?;
    }
    eos.sort_unstable();
    eos.dedup();
    Ok(eos)
}
