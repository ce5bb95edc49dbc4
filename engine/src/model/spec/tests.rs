//! config.json of every kind, right and wrong.

use std::path::Path;

use expect_test::{Expect, expect};
use kernels::ExpertWeights;
use serde_json::{Value, json};

use model_files::{CONTEXT_MAX, Fields, Generation, ModelConfig, VOCAB_MAX};

use super::read::{HEADS_MAX, LAYERS_MAX, WIDTH_MAX};
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

pub(super) fn parse(config: &Value) -> Result<ModelSpec, EngineError> {
    let config = ModelConfig::of(Fields::parse(Path::new("config.json"), &config.to_string())?)?;
    read::spec(&config, &Generation::of(None, &config)?)
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
    assert!(matches!(new.positions, Positions::Rope(RopeSpec { scaling: RopeScaling::Llama3 { .. }, .. })));
}

#[test]
fn frequencies_that_are_no_numbers_are_refused() {
    refused(
        &json!({"rope_scaling": {"type": "linear", "factor": 1e-39}}),
        &expect!["config.json: rope_scaling imply a frequency of inf"],
    );
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
    refused(&json!({"head_dim": 8}), &expect!["config.json: head_dim must be a multiple of 16, at most 256, found 8"]);
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
            r#"config.json: architectures ["MambaForCausalLM"] is not supported; supported are LlamaForCausalLM, MistralForCausalLM, Qwen2ForCausalLM, Qwen3ForCausalLM, MixtralForCausalLM, Qwen3MoeForCausalLM, OPTForCausalLM"#
        ]],
    );
    refused(
        &json!({"quantization_config": {"quant_method": "gptq"}}),
        &expect![[
            r#"config.json: quantization_config asks for quantised weights (gptq); supported are f32, f16 and bf16 weights: take the original checkpoint (`engine.dtype = "int8"` halves its memory)"#
        ]],
    );
    refused(&json!({"hidden_size": null}), &expect!["config.json: hidden_size must not be null"]);
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

fn experts(changes: &Value) -> Value {
    let mut config =
        with(&json!({"architectures": ["Qwen3MoeForCausalLM"], "num_experts": 8, "num_experts_per_tok": 2,
        "moe_intermediate_size": 48}));
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn experts_and_dense_layers_are_told_apart() {
    let sparse = |weights| MlpSpec::Experts { width: 48, routing: Routing { experts: 8, per_row: 2, weights } };
    let (all, chosen, dense) =
        (sparse(ExpertWeights::AmongAll), sparse(ExpertWeights::AmongChosen), MlpSpec::Gated { width: 256 });
    for (changes, expected) in [
        (json!({}), [all; 4]),
        (json!({"norm_topk_prob": true}), [chosen; 4]),
        (json!({"num_local_experts": 8}), [all; 4]),
        (json!({"mlp_only_layers": [0, 2]}), [dense, all, dense, all]),
        (json!({"decoder_sparse_step": 2}), [dense, all, dense, all]),
        (json!({"decoder_sparse_step": 2, "mlp_only_layers": [3]}), [dense, all, dense, dense]),
    ] {
        assert_eq!(parse(&experts(&changes)).unwrap().mlps, expected, "{changes}");
    }
    let mixtral = json!({"architectures": ["MixtralForCausalLM"], "num_local_experts": 8, "num_experts": null,
        "intermediate_size": 48, "moe_intermediate_size": null});
    assert_eq!(parse(&experts(&mixtral)).unwrap().mlps, [chosen; 4]);
    let spec = parse(&experts(&json!({}))).unwrap();
    let fewer = parse(&llama()).unwrap().multiplied_parameters() - spec.multiplied_parameters();
    assert_eq!(fewer, 4 * 128 * (3 * 256 - 8 - 2 * 3 * 48), "a router and two experts in place of a dense MLP");
}

#[test]
fn wrong_experts_are_named() {
    let refused = |changes: Value, expected: Expect| {
        expected.assert_eq(&parse(&experts(&changes)).unwrap_err().to_string());
    };
    refused(json!({"num_experts": null}), expect!["config.json: num_experts must not be null"]);
    refused(json!({"num_experts": 5000}), expect!["config.json: num_experts must be at most 1024, found 5000"]);
    refused(json!({"num_experts_per_tok": 9}), expect!["config.json: num_experts_per_tok is 9, num_experts is 8"]);
    refused(json!({"mlp_only_layers": [4]}), expect!["config.json: mlp_only_layers names layer 4 of 4"]);
    refused(
        json!({"mlp_only_layers": "all"}),
        expect![[r#"config.json: mlp_only_layers must be a list of whole numbers below 2^32, found "all""#]],
    );
    refused(json!({"decoder_sparse_step": 0}), expect!["config.json: decoder_sparse_step must be at least 1, found 0"]);
}

fn opt(changes: &Value) -> Value {
    let mut config = json!({
        "architectures": ["OPTForCausalLM"], "vocab_size": 1024, "hidden_size": 128, "ffn_dim": 512,
        "num_hidden_layers": 2, "num_attention_heads": 8, "max_position_embeddings": 512, "eos_token_id": 2,
        "word_embed_proj_dim": 128, "do_layer_norm_before": true, "activation_function": "relu"
    });
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
    config
}

#[test]
fn opt_is_a_row_like_the_others() {
    let spec = parse(&opt(&json!({}))).unwrap();
    assert_eq!((spec.norm, spec.norm_eps, spec.positions), (NormKind::Layer, 1e-5, Positions::Learned { offset: 2 }));
    assert_eq!((spec.attention_bias, spec.tied_embeddings), (AttentionBias::QkvOutput, true));
    assert_eq!((spec.kv_heads, spec.mlps.as_slice()), (8, [MlpSpec::Relu { width: 512 }; 2].as_slice()));
}

#[test]
fn opt_of_other_shapes_is_refused() {
    let refused = |changes: Value, expected: Expect| {
        expected.assert_eq(&parse(&opt(&changes)).unwrap_err().to_string());
    };
    refused(
        json!({"word_embed_proj_dim": 64}),
        expect!["config.json: word_embed_proj_dim is 64, other than hidden_size 128, which is not supported"],
    );
    refused(
        json!({"do_layer_norm_before": false}),
        expect![
            "config.json: do_layer_norm_before false is not supported (norms behind attention and MLP (opt-350m)); supported is true"
        ],
    );
    refused(
        json!({"enable_bias": false}),
        expect!["config.json: enable_bias false is not supported; supported is true"],
    );
    refused(
        json!({"activation_function": "gelu"}),
        expect![[r#"config.json: activation_function "gelu" is not supported; supported is "relu""#]],
    );
}
