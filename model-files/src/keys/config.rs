//! Keys of config.json by family, with the defaults of the classes of transformers 5.24.0.
//!
//! Defaults, and whether null is allowed, were read from the classes themselves; `tests/fixtures/configs.json` holds
//! what the classes read from many files. A class attribute that is in no list of its family is refused when set.

use super::{GENERATION, Key, Table, honoured, ignored, nullable, refused};
use crate::Family;

pub(super) fn table(family: Family) -> Table {
    let groups: &'static [&'static [Key]] = match family {
        Family::Llama => &[LLAMA, ROPE_10K, DENSE, BASE],
        Family::Mistral => &[MISTRAL, ROPE_10K, NO_BIAS, DENSE, BASE],
        Family::Qwen2 => &[QWEN2, ROPE_10K, DENSE, BASE],
        Family::Qwen3 => &[QWEN3, ROPE_10K, DENSE, BASE],
        Family::Mixtral => &[MIXTRAL, ROPE_1M, NO_BIAS, BASE],
        Family::Qwen3Moe => &[QWEN3_MOE, ROPE_10K, BASE],
        Family::Opt => &[OPT, NO_BIAS, DENSE, BASE],
    };
    Table { file: "config.json", groups, endings: &[], classes: CLASSES }
}

/// Keys of all classes. transformers ignores a key of one family in a file of another; here it is refused, because its
/// author meant another model than this one.
const CLASSES: &[&[Key]] = &[LLAMA, MISTRAL, QWEN2, QWEN3, MIXTRAL, QWEN3_MOE, OPT, ROPE_10K];

const HEADS: &str = "number of key/value heads; null is one per query head";
const HEAD_DIM: &str = "width of a head; null is `hidden_size / num_attention_heads`";
const TIED: &str = "whether the output projection is the embedding; weight files that hold another `lm_head` win";
const LAYER_TYPES: &str = "must say what is computed: `full_attention`, or `sliding_attention` where there is a window";
const WINDOW: &str = "positions that a query sees; null is all";

const LLAMA: &[Key] = &[
    honoured("vocab_size", "32000", ""),
    honoured("hidden_size", "4096", ""),
    honoured("intermediate_size", "11008", ""),
    honoured("num_hidden_layers", "32", ""),
    honoured("num_attention_heads", "32", ""),
    nullable("num_key_value_heads", "null", HEADS),
    nullable("head_dim", "null", HEAD_DIM),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "2048", ""),
    honoured("rms_norm_eps", "1e-6", ""),
    honoured("tie_word_embeddings", "false", TIED),
    honoured("attention_bias", "false", "biases on all four projections"),
    refused("mlp_bias", &["false"], "biases in the MLP"),
    nullable("layer_types", "null", LAYER_TYPES),
    refused("sliding_window", &["null"], "a Llama has no window"),
    ignored("use_sliding_window", "a Llama has no window"),
    ignored("max_window_layers", "a Llama has no window"),
    refused("rope_interleaved", &["false", "null"], "pairs of neighbours are rotated"),
    ignored("is_llama_config", ""),
];

const MISTRAL: &[Key] = &[
    honoured("vocab_size", "32000", ""),
    honoured("hidden_size", "4096", ""),
    honoured("intermediate_size", "14336", ""),
    honoured("num_hidden_layers", "32", ""),
    honoured("num_attention_heads", "32", ""),
    honoured("num_key_value_heads", "8", ""),
    nullable("head_dim", "null", HEAD_DIM),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "131072", ""),
    honoured("rms_norm_eps", "1e-6", ""),
    honoured("tie_word_embeddings", "false", TIED),
    nullable("sliding_window", "4096", WINDOW),
    nullable("layer_types", "null", LAYER_TYPES),
    ignored("use_sliding_window", "the class does not read it"),
    ignored("max_window_layers", "the class does not read it"),
];

const QWEN2: &[Key] = &[
    honoured("vocab_size", "151936", ""),
    honoured("hidden_size", "4096", ""),
    honoured("intermediate_size", "22016", ""),
    honoured("num_hidden_layers", "32", ""),
    honoured("num_attention_heads", "32", ""),
    nullable("num_key_value_heads", "32", HEADS),
    nullable("head_dim", "null", HEAD_DIM),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "32768", ""),
    honoured("rms_norm_eps", "1e-6", ""),
    honoured("tie_word_embeddings", "false", TIED),
    honoured("use_sliding_window", "false", "whether there is a window at all"),
    nullable("sliding_window", "4096", WINDOW),
    honoured("max_window_layers", "28", "without `layer_types`: the first layer with a window"),
    nullable("layer_types", "null", "`full_attention` or `sliding_attention` per layer"),
    ignored("attention_bias", "Qwen2 has biases on queries, keys and values, whatever this says"),
    refused("mlp_bias", &["false", "null"], "biases in the MLP"),
    ignored("qkv_bias", "Qwen2 has biases on queries, keys and values, whatever this says"),
    refused("use_mrope", &["false", "null"], "positions of images"),
];

const QWEN3: &[Key] = &[
    honoured("vocab_size", "151936", ""),
    honoured("hidden_size", "4096", ""),
    honoured("intermediate_size", "22016", ""),
    honoured("num_hidden_layers", "32", ""),
    honoured("num_attention_heads", "32", ""),
    nullable("num_key_value_heads", "32", HEADS),
    honoured("head_dim", "128", "width of a head"),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "32768", ""),
    honoured("rms_norm_eps", "1e-6", ""),
    honoured("tie_word_embeddings", "false", TIED),
    honoured("attention_bias", "false", "biases on all four projections"),
    honoured("use_sliding_window", "false", "whether there is a window at all"),
    nullable("sliding_window", "4096", WINDOW),
    honoured("max_window_layers", "28", "without `layer_types`: the first layer with a window"),
    nullable("layer_types", "null", "`full_attention` or `sliding_attention` per layer"),
    refused("mlp_bias", &["false", "null"], "biases in the MLP"),
    refused("qkv_bias", &["false", "null"], "biases are `attention_bias`"),
    refused("use_qk_norm", &["true", "null"], "Qwen3 norms queries and keys"),
    refused("use_mrope", &["false", "null"], "positions of images"),
];

const MIXTRAL: &[Key] = &[
    honoured("vocab_size", "32000", ""),
    honoured("hidden_size", "4096", ""),
    honoured("intermediate_size", "14336", "width of one expert"),
    honoured("num_hidden_layers", "32", ""),
    honoured("num_attention_heads", "32", ""),
    honoured("num_key_value_heads", "8", ""),
    nullable("head_dim", "null", HEAD_DIM),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "131072", ""),
    honoured("rms_norm_eps", "1e-5", ""),
    honoured("tie_word_embeddings", "false", TIED),
    nullable("sliding_window", "null", WINDOW),
    honoured("num_experts_per_tok", "2", ""),
    honoured("num_local_experts", "8", ""),
    nullable("num_experts", "null", "the same as `num_local_experts`"),
    nullable("layer_types", "null", LAYER_TYPES),
    ignored("use_sliding_window", "the class does not read it"),
    ignored("max_window_layers", "the class does not read it"),
    ignored("output_router_logits", "for training"),
    ignored("router_aux_loss_coef", "for training"),
    ignored("router_jitter_noise", "for training"),
];

const QWEN3_MOE: &[Key] = &[
    honoured("vocab_size", "151936", ""),
    honoured("hidden_size", "2048", ""),
    honoured("intermediate_size", "6144", "width of the MLP of layers without experts"),
    honoured("num_hidden_layers", "24", ""),
    honoured("num_attention_heads", "32", ""),
    honoured("num_key_value_heads", "4", ""),
    nullable("head_dim", "null", HEAD_DIM),
    honoured("hidden_act", "\"silu\"", "`silu` (or `swish`) only"),
    honoured("max_position_embeddings", "32768", ""),
    honoured("rms_norm_eps", "1e-6", ""),
    honoured("tie_word_embeddings", "false", TIED),
    honoured("attention_bias", "false", "biases on all four projections"),
    honoured("use_sliding_window", "false", "whether there is a window at all"),
    nullable("sliding_window", "4096", WINDOW),
    nullable("layer_types", "null", LAYER_TYPES),
    honoured("decoder_sparse_step", "1", "every how many layers there are experts"),
    honoured("moe_intermediate_size", "768", "width of one expert"),
    honoured("num_experts_per_tok", "8", ""),
    honoured("num_experts", "128", ""),
    nullable("num_local_experts", "null", "the same as `num_experts`"),
    honoured("norm_topk_prob", "false", "whether weights are a softmax over the chosen experts"),
    nullable("mlp_only_layers", "null", "layers without experts"),
    ignored("max_window_layers", "the class does not read it"),
    ignored("output_router_logits", "for training"),
    ignored("router_aux_loss_coef", "for training"),
    refused("mlp_bias", &["false", "null"], "biases in the MLP"),
    refused("qkv_bias", &["false", "null"], "biases are `attention_bias`"),
    refused("use_qk_norm", &["true", "null"], "Qwen3-MoE norms queries and keys"),
    refused("shared_expert_intermediate_size", &["0", "null"], "there is no shared expert"),
];

const OPT: &[Key] = &[
    honoured("vocab_size", "50272", ""),
    honoured("hidden_size", "768", ""),
    honoured("num_hidden_layers", "12", ""),
    honoured("ffn_dim", "3072", "width of the MLP"),
    honoured("max_position_embeddings", "2048", ""),
    honoured("num_attention_heads", "12", ""),
    honoured("activation_function", "\"relu\"", "`relu` only"),
    honoured("tie_word_embeddings", "true", TIED),
    nullable("word_embed_proj_dim", "null", "must be `hidden_size`; null is"),
    refused("do_layer_norm_before", &["true"], "norms behind attention and MLP (opt-350m)"),
    refused("_remove_final_layer_norm", &["false"], ""),
    refused("enable_bias", &["true"], ""),
    refused("layer_norm_elementwise_affine", &["true"], ""),
    ignored("dropout", "for training"),
    ignored("layerdrop", "for training"),
    ignored("init_std", "for training"),
];

macro_rules! rope {
    ($theta:literal) => {
        &[
            nullable("rope_parameters", "null", "see below"),
            nullable("rope_scaling", "null", "the older name; where it is not empty, `rope_parameters` does not count"),
            nullable("rope_theta", $theta, "where the parameters of the rotation name none"),
            refused("partial_rotary_factor", &["1", "null"], "all of a head is rotated"),
            nullable(
                "original_max_position_embeddings",
                "null",
                "with `llama3`: wins over the one inside the parameters of the rotation",
            ),
        ]
    };
}

const ROPE_10K: &[Key] = rope!("10000.0");
const ROPE_1M: &[Key] = rope!("1000000.0");

const NO_BIAS: &[Key] = &[
    refused("attention_bias", &["false", "null"], "biases are fixed by the family"),
    refused("mlp_bias", &["false", "null"], "biases are fixed by the family"),
];

/// Keys of experts, in a family that has none.
const DENSE: &[Key] = &[
    refused("num_local_experts", &["0", "1", "null"], "the family has no experts"),
    refused("num_experts", &["0", "1", "null"], "the family has no experts"),
    ignored("num_experts_per_tok", "the family has no experts"),
];

/// Keys of every family.
const BASE: &[Key] = &[
    nullable("architectures", "null", "names the family; without it `model_type` does"),
    nullable("model_type", "null", "must fit `architectures`"),
    nullable("eos_token_id", "null", "ends answers where generation_config.json names no token"),
    refused("quantization_config", &["null"], "quantised weights"),
    refused("quantization", &["null"], "quantised weights (MLX)"),
    refused("compression_config", &["null"], "quantised weights"),
    refused("is_encoder_decoder", &["false", "null"], ""),
    refused("add_cross_attention", &["false", "null"], ""),
    refused("per_layer_config", &["null", "{}"], "layers of different shapes"),
    refused("pruned_heads", &["null", "{}"], "layers of different shapes"),
    ignored("is_decoder", "every family here is one"),
    ignored("transformers_version", ""),
    ignored("dtype", "the weight files say what they hold; `engine.dtype` what is computed with"),
    ignored("torch_dtype", "as `dtype`"),
    ignored("bos_token_id", "the tokenizer says what begins a text"),
    ignored("pad_token_id", "nothing is padded"),
    ignored("sep_token_id", ""),
    ignored("decoder_start_token_id", ""),
    ignored("use_cache", "there is always a KV cache"),
    ignored("attention_dropout", "for training"),
    ignored("initializer_range", "for training"),
    ignored("pretraining_tp", "how it was trained"),
    ignored("chunk_size_feed_forward", "changes memory, not results"),
    ignored("output_hidden_states", "what Python code gets back"),
    ignored("output_attentions", "what Python code gets back"),
    ignored("return_dict", "what Python code gets back"),
    ignored("tie_last_hidden_states", "what Python code gets back"),
    ignored("use_return_dict", "what Python code gets back"),
    ignored("id2label", "for classifiers"),
    ignored("label2id", "for classifiers"),
    ignored("num_labels", "for classifiers"),
    ignored("problem_type", "for classifiers"),
    ignored("finetuning_task", "for classifiers"),
    ignored("task_specific_params", ""),
    ignored("tie_encoder_decoder", ""),
    ignored("cross_attention_hidden_size", ""),
    ignored("torchscript", ""),
    ignored("use_bfloat16", ""),
    ignored("tf_legacy_loss", ""),
    ignored("prefix", ""),
    ignored("tokenizer_class", "tokenizer.json says all"),
    ignored("auto_map", "code of the folder is never run"),
    ignored("_name_or_path", ""),
    ignored("name_or_path", ""),
    ignored("_commit_hash", ""),
    ignored("attn_implementation", "`engine.backend` says what computes"),
    ignored("_attn_implementation", "`engine.backend` says what computes"),
    ignored("_attn_implementation_internal", "`engine.backend` says what computes"),
    ignored("_attn_implementation_autoset", "`engine.backend` says what computes"),
    ignored("_flash_attn_2_enabled", "`engine.backend` says what computes"),
    ignored("experts_implementation", "`engine.backend` says what computes"),
    ignored("_experts_implementation", "`engine.backend` says what computes"),
    ignored("_experts_implementation_internal", "`engine.backend` says what computes"),
    ignored("unsloth_version", ""),
    ignored("unsloth_fixed", ""),
    ignored("transformers.js_config", ""),
];

/// True for a key of text generation, which config.json may hold if there is no generation_config.json.
pub(super) fn is_generation(name: &str) -> bool {
    GENERATION.key(name).is_some()
}
