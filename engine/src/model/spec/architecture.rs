//! Supported architectures, one row of data each. Knows no value of a model and no tensor's bytes.
//!
//! To support another architecture, add a row; `docs/models.md` walks through it.

use std::fmt;

use kernels::ExpertWeights;
use model_files::Family;

use super::AttentionBias;

/// A supported architecture: how to read its config.json, and the names of its tensors.
pub struct Architecture {
    /// Family, which decides the keys and defaults of config.json.
    pub family: Family,
    pub(super) config: ConfigRules,
    pub(in crate::model) tensors: TensorNames,
}

/// How to read config.json. Defaults, and keys that may not be set, are in `model_files::keys`.
pub(super) struct ConfigRules {
    pub(super) mlp: MlpRule,
    /// Key of the activation, and the names of the supported one.
    pub(super) activation: (&'static str, &'static [&'static str]),
    pub(super) norm: NormRule,
    pub(super) positions: PositionRule,
    pub(super) heads: HeadRule,
    pub(super) attention_bias: BiasRule,
    /// True if queries and keys are normed per head.
    pub(super) qk_norm: bool,
    pub(super) windows: WindowRule,
    /// Keys of widths that must equal `hidden_size` if present.
    pub(super) as_wide_as_hidden: &'static [&'static str],
}

/// Form of the MLPs, with the keys of their widths.
pub(super) enum MlpRule {
    /// `down · (silu(gate) * up)`.
    Gated { width: &'static str },
    /// `down · relu(up)`, with biases.
    Relu { width: &'static str },
    /// Gated MLPs behind a router.
    Experts {
        /// Keys of the number of experts; the first that is present counts.
        experts: &'static [&'static str],
        width: &'static str,
        weights: ExpertWeightRule,
        dense: DenseRule,
    },
}

/// Normalisation of the weights of chosen experts.
pub(super) enum ExpertWeightRule {
    Always(ExpertWeights),
    /// Among the chosen experts if `norm_topk_prob` is true, else among all.
    Asked,
}

/// Layers with a dense MLP in place of experts.
pub(super) enum DenseRule {
    None,
    /// Layers in `mlp_only_layers` and all but every `decoder_sparse_step`th; the string is the key of their width.
    Asked(&'static str),
}

/// Norm of all layers, with its epsilon.
pub(super) enum NormRule {
    /// RMS norm; the string is the key of the epsilon.
    Rms(&'static str),
    /// Layer norm with biases; the epsilon is in no file.
    Layer(f32),
}

/// Encoding of positions.
pub(super) enum PositionRule {
    /// Rotation of queries and keys.
    Rope,
    /// A table added to the embedding; position 0 is row `offset`.
    Learned { offset: u32 },
}

/// Number of key/value heads, and width of a head.
pub(super) enum HeadRule {
    /// From `num_key_value_heads` and `head_dim`.
    Asked,
    /// As many as query heads, which split the hidden width.
    Plain,
}

/// Attention projections with a bias.
pub(super) enum BiasRule {
    Always(AttentionBias),
    /// All four projections if `attention_bias` is true.
    Asked,
}

/// Layers that see only the latest `sliding_window` positions.
pub(super) enum WindowRule {
    None,
    /// All layers, if there is a window.
    All,
    /// All layers, if there is a window and `use_sliding_window` is true.
    AllSwitched,
    /// If `use_sliding_window` is true: the layers that `layer_types` names, or those from `max_window_layers` on.
    Switched,
}

/// Names of tensors without `.weight` or `.bias`. Layer tensors follow `layers.N.`; all but the head follow a prefix.
pub(in crate::model) struct TensorNames {
    /// Possible prefixes; the first under which there is an embedding counts.
    pub(in crate::model) prefixes: &'static [&'static str],
    pub(in crate::model) embedding: &'static str,
    pub(in crate::model) norm: &'static str,
    pub(in crate::model) head: &'static str,
    pub(in crate::model) attention_norm: &'static str,
    pub(in crate::model) qkv: [&'static str; 3],
    pub(in crate::model) qk_norms: [&'static str; 2],
    pub(in crate::model) output: &'static str,
    pub(in crate::model) mlp_norm: &'static str,
    /// Gate and up of a gated MLP.
    pub(in crate::model) gate_up: [&'static str; 2],
    /// Up of an MLP without a gate.
    pub(in crate::model) up: &'static str,
    pub(in crate::model) down: &'static str,
    /// Table of learned positions.
    pub(in crate::model) positions: &'static str,
    /// Possible names; those whose router exists first count.
    pub(in crate::model) experts: &'static [ExpertNames],
}

/// Names of a router and its experts; names of one expert's tensors follow `{experts}.N.`.
pub(in crate::model) struct ExpertNames {
    pub(in crate::model) router: &'static str,
    pub(in crate::model) experts: &'static str,
    pub(in crate::model) gate_up: [&'static str; 2],
    pub(in crate::model) down: &'static str,
}

impl Architecture {
    /// Architecture of a family.
    #[must_use]
    pub fn of(family: Family) -> &'static Architecture {
        match family {
            Family::Llama => &LLAMA,
            Family::Mistral => &MISTRAL,
            Family::Qwen2 => &QWEN2,
            Family::Qwen3 => &QWEN3,
            Family::Mixtral => &MIXTRAL,
            Family::Qwen3Moe => &QWEN3_MOE,
            Family::Opt => &OPT,
        }
    }
}

const LLAMA_CONFIG: ConfigRules = ConfigRules {
    mlp: MlpRule::Gated { width: "intermediate_size" },
    activation: ("hidden_act", &["silu", "swish"]),
    norm: NormRule::Rms("rms_norm_eps"),
    positions: PositionRule::Rope,
    heads: HeadRule::Asked,
    attention_bias: BiasRule::Asked,
    qk_norm: false,
    windows: WindowRule::None,
    as_wide_as_hidden: &[],
};

const LLAMA_TENSORS: TensorNames = TensorNames {
    prefixes: &["model."],
    embedding: "embed_tokens",
    norm: "norm",
    head: "lm_head",
    attention_norm: "input_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate_up: ["mlp.gate_proj", "mlp.up_proj"],
    up: "mlp.up_proj",
    down: "mlp.down_proj",
    positions: "embed_positions",
    experts: &[MLP_EXPERTS],
};

const MLP_EXPERTS: ExpertNames =
    ExpertNames { router: "mlp.gate", experts: "mlp.experts", gate_up: ["gate_proj", "up_proj"], down: "down_proj" };

/// Names in the published Mixtral.
const BLOCK_SPARSE_EXPERTS: ExpertNames = ExpertNames {
    router: "block_sparse_moe.gate",
    experts: "block_sparse_moe.experts",
    gate_up: ["w1", "w3"],
    down: "w2",
};

/// Llama 2 and 3.
static LLAMA: Architecture = Architecture { family: Family::Llama, config: LLAMA_CONFIG, tensors: LLAMA_TENSORS };

/// Mistral with its sliding window.
static MISTRAL: Architecture = Architecture {
    family: Family::Mistral,
    config: ConfigRules {
        attention_bias: BiasRule::Always(AttentionBias::None),
        windows: WindowRule::All,
        ..LLAMA_CONFIG
    },
    tensors: LLAMA_TENSORS,
};

/// Qwen2 and Qwen2.5: biases on queries, keys and values.
static QWEN2: Architecture = Architecture {
    family: Family::Qwen2,
    config: ConfigRules {
        attention_bias: BiasRule::Always(AttentionBias::Qkv),
        windows: WindowRule::Switched,
        ..LLAMA_CONFIG
    },
    tensors: LLAMA_TENSORS,
};

/// Qwen3: norms on queries and keys.
static QWEN3: Architecture = Architecture {
    family: Family::Qwen3,
    config: ConfigRules { qk_norm: true, windows: WindowRule::Switched, ..LLAMA_CONFIG },
    tensors: LLAMA_TENSORS,
};

/// Mixtral: experts in every layer, weights among the chosen.
static MIXTRAL: Architecture = Architecture {
    family: Family::Mixtral,
    config: ConfigRules {
        mlp: MlpRule::Experts {
            experts: &["num_local_experts", "num_experts"],
            width: "intermediate_size",
            weights: ExpertWeightRule::Always(ExpertWeights::AmongChosen),
            dense: DenseRule::None,
        },
        attention_bias: BiasRule::Always(AttentionBias::None),
        windows: WindowRule::All,
        ..LLAMA_CONFIG
    },
    tensors: TensorNames { experts: &[BLOCK_SPARSE_EXPERTS, MLP_EXPERTS], ..LLAMA_TENSORS },
};

/// Qwen3-MoE: Qwen3 with experts in all or some layers.
static QWEN3_MOE: Architecture = Architecture {
    family: Family::Qwen3Moe,
    config: ConfigRules {
        mlp: MlpRule::Experts {
            experts: &["num_experts", "num_local_experts"],
            width: "moe_intermediate_size",
            weights: ExpertWeightRule::Asked,
            dense: DenseRule::Asked("intermediate_size"),
        },
        qk_norm: true,
        windows: WindowRule::AllSwitched,
        ..LLAMA_CONFIG
    },
    tensors: LLAMA_TENSORS,
};

/// OPT: learned positions, layer norms before attention and MLP, biases everywhere.
static OPT: Architecture = Architecture {
    family: Family::Opt,
    config: ConfigRules {
        mlp: MlpRule::Relu { width: "ffn_dim" },
        activation: ("activation_function", &["relu"]),
        norm: NormRule::Layer(1e-5),
        positions: PositionRule::Learned { offset: 2 },
        heads: HeadRule::Plain,
        attention_bias: BiasRule::Always(AttentionBias::QkvOutput),
        qk_norm: false,
        windows: WindowRule::None,
        as_wide_as_hidden: &["word_embed_proj_dim"],
    },
    tensors: TensorNames {
        prefixes: &["model.decoder.", "decoder."],
        norm: "final_layer_norm",
        attention_norm: "self_attn_layer_norm",
        output: "self_attn.out_proj",
        mlp_norm: "final_layer_norm",
        up: "fc1",
        down: "fc2",
        ..LLAMA_TENSORS
    },
};

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.family.architecture())
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Architecture) -> bool {
        self.family == other.family
    }
}
