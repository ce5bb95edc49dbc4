//! What every supported architecture is: one row of data each. Knows no value of a model and no tensor's bytes.
//!
//! To support another architecture, add a row; `docs/models.md` walks through it.

use std::fmt;

use super::AttentionBias;

/// One supported architecture: where its config.json and its weight files say what, and what they leave unsaid.
pub struct Architecture {
    /// Its name under `architectures` in config.json.
    pub name: &'static str,
    /// How its configuration is read.
    pub(super) config: ConfigRules,
    /// What its tensors are called.
    pub(in crate::model) tensors: TensorNames,
}

/// How a configuration is read: keys, and what holds without one.
pub(super) struct ConfigRules {
    /// Key of the width of the MLP.
    pub(super) mlp: &'static str,
    /// Key of the activation and the names of the one that is built.
    pub(super) activation: (&'static str, &'static [&'static str]),
    pub(super) norm_eps: &'static str,
    /// Base of the rotary embedding where the file names none.
    pub(super) rope_theta: f64,
    pub(super) attention_bias: BiasRule,
    /// Whether queries and keys are normed per head.
    pub(super) qk_norm: bool,
    pub(super) windows: WindowRule,
    /// Whether embeddings are tied where the file does not say.
    pub(super) tied_embeddings: bool,
    /// Truth values that other maths would hide behind: the only value that is built, which is also the one that an
    /// absent key means.
    pub(super) flags: &'static [(&'static str, bool)],
}

/// Which attention projections have a bias.
pub(super) enum BiasRule {
    Always(AttentionBias),
    /// All four if `attention_bias` is true.
    Asked,
}

/// Which layers see only the latest `sliding_window` positions.
pub(super) enum WindowRule {
    None,
    /// All, if there is a window.
    All,
    /// If `use_sliding_window` is true: those that `layer_types` names, or those from `max_window_layers` on.
    Switched,
}

/// Names of tensors without their ends `.weight` and `.bias`. Those of a layer follow `layers.N.`, and everything but the
/// head follows `prefix`.
pub(in crate::model) struct TensorNames {
    pub(in crate::model) prefix: &'static str,
    pub(in crate::model) embedding: &'static str,
    pub(in crate::model) norm: &'static str,
    pub(in crate::model) head: &'static str,
    pub(in crate::model) attention_norm: &'static str,
    /// Queries, keys, values.
    pub(in crate::model) qkv: [&'static str; 3],
    /// Norms of queries and keys.
    pub(in crate::model) qk_norms: [&'static str; 2],
    pub(in crate::model) output: &'static str,
    pub(in crate::model) mlp_norm: &'static str,
    pub(in crate::model) gate_up: [&'static str; 2],
    pub(in crate::model) down: &'static str,
}

impl Architecture {
    /// All that are supported.
    pub const ALL: [&'static Architecture; 4] = [&LLAMA, &MISTRAL, &QWEN2, &QWEN3];
}

const LLAMA_CONFIG: ConfigRules = ConfigRules {
    mlp: "intermediate_size",
    activation: ("hidden_act", &["silu", "swish"]),
    norm_eps: "rms_norm_eps",
    rope_theta: 10_000.0,
    attention_bias: BiasRule::Asked,
    qk_norm: false,
    windows: WindowRule::None,
    tied_embeddings: false,
    flags: &[("mlp_bias", false)],
};

const LLAMA_TENSORS: TensorNames = TensorNames {
    prefix: "model.",
    embedding: "embed_tokens",
    norm: "norm",
    head: "lm_head",
    attention_norm: "input_layernorm",
    qkv: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    qk_norms: ["self_attn.q_norm", "self_attn.k_norm"],
    output: "self_attn.o_proj",
    mlp_norm: "post_attention_layernorm",
    gate_up: ["mlp.gate_proj", "mlp.up_proj"],
    down: "mlp.down_proj",
};

/// Llama 2 and 3.
static LLAMA: Architecture = Architecture { name: "LlamaForCausalLM", config: LLAMA_CONFIG, tensors: LLAMA_TENSORS };

/// Mistral with its sliding window.
static MISTRAL: Architecture = Architecture {
    name: "MistralForCausalLM",
    config: ConfigRules {
        attention_bias: BiasRule::Always(AttentionBias::None),
        windows: WindowRule::All,
        ..LLAMA_CONFIG
    },
    tensors: LLAMA_TENSORS,
};

/// Qwen2 and Qwen2.5: biases on queries, keys and values.
static QWEN2: Architecture = Architecture {
    name: "Qwen2ForCausalLM",
    config: ConfigRules {
        attention_bias: BiasRule::Always(AttentionBias::Qkv),
        windows: WindowRule::Switched,
        ..LLAMA_CONFIG
    },
    tensors: LLAMA_TENSORS,
};

/// Qwen3: norms on queries and keys.
static QWEN3: Architecture = Architecture {
    name: "Qwen3ForCausalLM",
    config: ConfigRules { qk_norm: true, windows: WindowRule::Switched, ..LLAMA_CONFIG },
    tensors: LLAMA_TENSORS,
};

impl fmt::Debug for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl PartialEq for Architecture {
    fn eq(&self, other: &Architecture) -> bool {
        self.name == other.name
    }
}
