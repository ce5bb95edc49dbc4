//! The shape of a model as data, read from config.json; knows no weights and no numeric operations.
//!
//! One forward pass serves every supported architecture: what differs between them is a value here.

use std::path::Path;

use kernels::{HEAD_DIM_MAX, HEAD_DIM_STEP};

use super::json::Fields;
use super::rope::RopeSpec;
use crate::EngineError;

/// Bounds above every published model of these architectures. They hold before anything is allocated by layer or
/// position, and no product of two widths overflows below them.
const LAYERS_MAX: u32 = 1024;
const HEADS_MAX: u32 = 1024;
const WIDTH_MAX: u32 = 1 << 20;
const VOCAB_MAX: u32 = 1 << 22;
const CONTEXT_MAX: u32 = 1 << 22;

/// What the forward pass needs to know about a decoder-only transformer.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSpec {
    /// The family it was published as.
    pub architecture: Architecture,
    /// Entries of the vocabulary, as the embedding has rows.
    pub vocab: u32,
    /// Width of the residual stream.
    pub hidden: u32,
    /// Decoder layers.
    pub layers: u32,
    /// Query heads.
    pub heads: u32,
    /// Key/value heads; `heads` is a multiple of it.
    pub kv_heads: u32,
    /// Width of one head, a multiple of 16.
    pub head_dim: u32,
    /// Width of the gated MLP.
    pub mlp: u32,
    /// Epsilon of every RMS norm.
    pub norm_eps: f32,
    /// Rotary position embedding.
    pub rope: RopeSpec,
    /// Longest sequence the model was made for, in tokens.
    pub context_max: u32,
    /// Per layer: how many positions a query sees, its own included; `None` is all.
    pub windows: Vec<Option<u32>>,
    /// Which attention projections have a bias.
    pub attention_bias: AttentionBias,
    /// Whether queries and keys are RMS-normed per head before the rotation.
    pub qk_norm: bool,
    /// Whether the output projection is the embedding.
    pub tied_embeddings: bool,
    /// Tokens that end a text: generation_config.json, else config.json. Sorted.
    pub eos: Vec<u32>,
}

/// Families of models with one common forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// Llama 2 and 3.
    Llama,
    /// Mistral with its sliding window.
    Mistral,
    /// Qwen2 and Qwen2.5: biases on queries, keys and values.
    Qwen2,
    /// Qwen3: norms on queries and keys.
    Qwen3,
}

/// Which attention projections carry a bias.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AttentionBias {
    /// None of them.
    None,
    /// Queries, keys and values.
    Qkv,
    /// Queries, keys, values and the output.
    QkvOutput,
}

impl ModelSpec {
    /// Reads config.json and, where present, generation_config.json of `directory`.
    pub fn read(directory: &Path) -> Result<ModelSpec, EngineError> {
        let config = Fields::read(&directory.join("config.json"))?;
        let generation_file = directory.join("generation_config.json");
        let generation = if generation_file.exists() { Some(Fields::read(&generation_file)?) } else { None };
        ModelSpec::from_fields(&config, generation.as_ref())
    }

    fn from_fields(config: &Fields, generation: Option<&Fields>) -> Result<ModelSpec, EngineError> {
        let architecture = Architecture::of(config)?;
        refuse_unsupported(config)?;
        let (heads, kv_heads, head_dim) = head_shape(config)?;
        let layers = config.count_to("num_hidden_layers", LAYERS_MAX)?;
        let spec = ModelSpec {
            architecture,
            vocab: config.count_to("vocab_size", VOCAB_MAX)?,
            hidden: config.count_to("hidden_size", WIDTH_MAX)?,
            layers,
            heads,
            kv_heads,
            head_dim,
            mlp: config.count_to("intermediate_size", WIDTH_MAX)?,
            norm_eps: config.positive("rms_norm_eps")? as f32,
            rope: RopeSpec::of(config)?,
            context_max: config.count_to("max_position_embeddings", CONTEXT_MAX)?,
            windows: windows(config, architecture, layers)?,
            attention_bias: attention_bias(config, architecture)?,
            qk_norm: architecture == Architecture::Qwen3,
            tied_embeddings: config.flag("tie_word_embeddings", false)?,
            eos: end_tokens(config, generation)?,
        };
        spec.check(config)?;
        Ok(spec)
    }

    /// Relations between fields that single keys cannot show.
    fn check(&self, config: &Fields) -> Result<(), EngineError> {
        if !self.heads.is_multiple_of(self.kv_heads) {
            let problem = format!("is {}, which does not divide num_attention_heads {}", self.kv_heads, self.heads);
            return Err(config.problem("num_key_value_heads", problem));
        }
        if let Some(id) = self.eos.iter().find(|id| **id >= self.vocab) {
            let problem = format!("names token {id}, the vocabulary has {} entries", self.vocab);
            return Err(config.problem("eos_token_id", problem));
        }
        Ok(())
    }

    /// Width of all query heads together.
    #[must_use]
    pub fn q_width(&self) -> u32 {
        self.heads * self.head_dim
    }

    /// Width of all key (or value) heads together.
    #[must_use]
    pub fn kv_width(&self) -> u32 {
        self.kv_heads * self.head_dim
    }

    /// Parameters that a token is multiplied with, the embedding look-up not counted.
    #[must_use]
    pub fn multiplied_parameters(&self) -> u64 {
        let [hidden, q, kv, mlp] = [self.hidden, self.q_width(), self.kv_width(), self.mlp].map(u64::from);
        let layer = hidden * (q + 2 * kv) + q * hidden + 3 * hidden * mlp;
        u64::from(self.layers) * layer + hidden * u64::from(self.vocab)
    }
}

impl Architecture {
    const KNOWN: [(&'static str, Architecture); 4] = [
        ("LlamaForCausalLM", Architecture::Llama),
        ("MistralForCausalLM", Architecture::Mistral),
        ("Qwen2ForCausalLM", Architecture::Qwen2),
        ("Qwen3ForCausalLM", Architecture::Qwen3),
    ];

    fn of(config: &Fields) -> Result<Architecture, EngineError> {
        let named = config.texts_opt("architectures")?.ok_or_else(|| config.problem("architectures", "is missing"))?;
        let known = named.iter().find_map(|name| Self::KNOWN.iter().find(|(known, _)| known == name));
        known.map(|(_, architecture)| *architecture).ok_or_else(|| {
            let supported = Self::KNOWN.map(|(name, _)| name).join(", ");
            config.problem("architectures", format!("{named:?} is not supported; supported are {supported}"))
        })
    }
}

/// Features that change the maths and are not built: better an error than wrong tokens.
fn refuse_unsupported(config: &Fields) -> Result<(), EngineError> {
    if let Some(quantization) = config.object("quantization_config")? {
        let method = quantization.text_opt("quant_method")?.unwrap_or("unknown");
        let problem = format!("asks for quantised weights ({method}); supported are f32, f16 and bf16 weights");
        return Err(config.problem("quantization_config", problem));
    }
    if config.flag("mlp_bias", false)? {
        return Err(config.problem("mlp_bias", "true is not supported"));
    }
    match config.text_opt("hidden_act")? {
        None | Some("silu" | "swish") => Ok(()),
        Some(other) => Err(config.problem("hidden_act", format!("{other:?} is not supported; supported is \"silu\""))),
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

fn windows(config: &Fields, architecture: Architecture, layers: u32) -> Result<Vec<Option<u32>>, EngineError> {
    let window = config.count_opt("sliding_window")?;
    let all = |window| Ok(vec![window; layers as usize]);
    match architecture {
        Architecture::Llama => all(None),
        Architecture::Mistral => all(window),
        Architecture::Qwen2 | Architecture::Qwen3 => {
            let (Some(window), true) = (window, config.flag("use_sliding_window", false)?) else { return all(None) };
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

fn attention_bias(config: &Fields, architecture: Architecture) -> Result<AttentionBias, EngineError> {
    match architecture {
        Architecture::Qwen2 => Ok(AttentionBias::Qkv),
        Architecture::Mistral => Ok(AttentionBias::None),
        Architecture::Llama | Architecture::Qwen3 => {
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use expect_test::{Expect, expect};
    use serde_json::{Value, json};

    use super::*;
    use crate::model::rope::RopeScaling;

    fn llama() -> Value {
        json!({
            "architectures": ["LlamaForCausalLM"], "vocab_size": 1024, "hidden_size": 128, "intermediate_size": 256,
            "num_hidden_layers": 4, "num_attention_heads": 8, "num_key_value_heads": 2, "hidden_act": "silu",
            "max_position_embeddings": 512, "rms_norm_eps": 1e-5, "eos_token_id": 1
        })
    }

    fn with(changes: &Value) -> Value {
        let mut config = llama();
        for (key, value) in changes.as_object().unwrap() {
            config[key] = value.clone();
        }
        config
    }

    fn parse(config: &Value) -> Result<ModelSpec, EngineError> {
        ModelSpec::from_fields(&Fields::parse(Path::new("config.json"), &config.to_string()).unwrap(), None)
    }

    fn refused(changes: &Value, expected: &Expect) {
        expected.assert_eq(&parse(&with(changes)).unwrap_err().to_string());
    }

    #[test]
    fn old_and_new_rope_names_mean_the_same() {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 64});
        let mut nested = llama3.clone();
        nested["rope_theta"] = json!(500_000.0);
        let old = parse(&with(&json!({"rope_theta": 500_000.0, "rope_scaling": llama3}))).unwrap();
        let new = parse(&with(&json!({"rope_parameters": nested, "dtype": "bfloat16"}))).unwrap();
        assert_eq!(old, new);
        assert!(matches!(new.rope.scaling, RopeScaling::Llama3 { .. }));
    }

    #[test]
    fn architectures_differ_by_values_only() {
        let qwen2 = parse(&with(&json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 24}))).unwrap();
        assert_eq!((qwen2.attention_bias, qwen2.windows[0], qwen2.head_dim), (AttentionBias::Qkv, None, 16));
        let windowed = json!({"architectures": ["Qwen2ForCausalLM"], "sliding_window": 24,
            "use_sliding_window": true, "max_window_layers": 3});
        assert_eq!(parse(&with(&windowed)).unwrap().windows, [None, None, None, Some(24)]);
        let qwen3 = json!({"architectures": ["Qwen3ForCausalLM"], "head_dim": 32, "tie_word_embeddings": true});
        let qwen3 = parse(&with(&qwen3)).unwrap();
        assert!(qwen3.qk_norm && qwen3.tied_embeddings && qwen3.q_width() == 256);
        let mistral = json!({"architectures": ["MistralForCausalLM"], "sliding_window": 24});
        assert_eq!(parse(&with(&mistral)).unwrap().windows, vec![Some(24); 4]);
    }

    #[test]
    fn generation_config_wins_for_end_tokens() {
        let config = Fields::parse(Path::new("config.json"), &llama().to_string()).unwrap();
        let parse_generation = |text: &str| {
            let generation = Fields::parse(Path::new("generation_config.json"), text).unwrap();
            ModelSpec::from_fields(&config, Some(&generation)).map(|spec| spec.eos)
        };
        assert_eq!(parse_generation(r#"{"eos_token_id": [9, 7]}"#).unwrap(), [7, 9]);
        assert_eq!(parse_generation("{}").unwrap(), [1]);
        assert!(parse_generation(r#"{"eos_token_id": 5000}"#).is_err());
    }

    #[test]
    fn sizes_beyond_every_model_are_refused_before_they_are_used() {
        for (key, max) in [
            ("num_hidden_layers", LAYERS_MAX),
            ("num_attention_heads", HEADS_MAX),
            ("num_key_value_heads", HEADS_MAX),
            ("hidden_size", WIDTH_MAX),
            ("intermediate_size", WIDTH_MAX),
            ("vocab_size", VOCAB_MAX),
            ("max_position_embeddings", CONTEXT_MAX),
        ] {
            let found = 4_000_000_000_u32;
            let expected = format!("config.json: {key} must be at most {max}, found {found}");
            assert_eq!(parse(&with(&json!({ key: found }))).unwrap_err().to_string(), expected);
        }
        let largest = json!({"num_attention_heads": HEADS_MAX, "num_key_value_heads": HEADS_MAX, "head_dim": 256,
            "hidden_size": WIDTH_MAX, "intermediate_size": WIDTH_MAX, "num_hidden_layers": LAYERS_MAX,
            "vocab_size": VOCAB_MAX});
        let largest = parse(&with(&largest)).unwrap();
        assert_eq!(largest.q_width(), 1 << 18);
        assert!(largest.multiplied_parameters() > 1 << 51);
    }

    #[test]
    fn widths_of_heads_without_kernels_are_refused() {
        refused(
            &json!({"head_dim": 8}),
            &expect!["config.json: head_dim must be a multiple of 16, at most 256, found 8"],
        );
        refused(
            &json!({"head_dim": 300}),
            &expect!["config.json: head_dim must be a multiple of 16, at most 256, found 300"],
        );
        refused(
            &json!({"hidden_size": 64}),
            &expect![
                "config.json: head_dim must be a multiple of 16, at most 256, found 8, which is hidden_size / num_attention_heads"
            ],
        );
    }

    #[test]
    fn wrong_configurations_are_named() {
        refused(
            &json!({"architectures": ["MambaForCausalLM"]}),
            &expect![[
                r#"config.json: architectures ["MambaForCausalLM"] is not supported; supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM"#
            ]],
        );
        refused(
            &json!({"quantization_config": {"quant_method": "gptq"}}),
            &expect![
                "config.json: quantization_config asks for quantised weights (gptq); supported are f32, f16 and bf16 weights"
            ],
        );
        refused(&json!({"hidden_size": null}), &expect!["config.json: hidden_size is missing"]);
        refused(
            &json!({"vocab_size": "many"}),
            &expect![[r#"config.json: vocab_size must be a whole number below 2^32, found "many""#]],
        );
        refused(
            &json!({"num_key_value_heads": 3}),
            &expect!["config.json: num_key_value_heads is 3, which does not divide num_attention_heads 8"],
        );
        refused(
            &json!({"hidden_act": "gelu"}),
            &expect![[r#"config.json: hidden_act "gelu" is not supported; supported is "silu""#]],
        );
        refused(
            &json!({"rope_scaling": {"rope_type": "yarn", "factor": 4.0}}),
            &expect![[
                r#"config.json: rope_scaling.rope_type "yarn" is not supported; supported are default, linear and llama3"#
            ]],
        );
    }
}
