//! Tests every key of config.json: honoured ones change the spec, refused ones are named, others change nothing.

use std::collections::BTreeMap;

use model_files::Family;
use model_files::keys::{Effect, Key, Table};
use serde_json::{Value, json};

use super::tests::parse;

/// A small config.json of a family in which a change of any honoured key shows.
fn base(family: Family) -> Value {
    let mut config = json!({"architectures": [family.architecture()], "vocab_size": 1024, "hidden_size": 128,
        "num_hidden_layers": 4, "num_attention_heads": 8, "max_position_embeddings": 512});
    let own = match family {
        Family::Llama => json!({"intermediate_size": 256, "num_key_value_heads": 4}),
        Family::Mistral => json!({"intermediate_size": 256, "num_key_value_heads": 4, "sliding_window": 16}),
        Family::Qwen2 | Family::Qwen3 => json!({"intermediate_size": 256, "num_key_value_heads": 4, "head_dim": 16,
            "use_sliding_window": true, "sliding_window": 16, "max_window_layers": 2}),
        Family::Mixtral => json!({"intermediate_size": 64, "num_key_value_heads": 4}),
        Family::Qwen3Moe => json!({"intermediate_size": 256, "moe_intermediate_size": 64, "num_key_value_heads": 4,
            "num_experts_per_tok": 2,
            "use_sliding_window": true, "sliding_window": 16, "mlp_only_layers": [0]}),
        Family::Opt => json!({"ffn_dim": 256}),
    };
    merge(&mut config, &own);
    if family != Family::Opt {
        let llama3 = json!({"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0});
        merge(&mut config, &json!({"rope_parameters": llama3}));
    }
    config
}

fn merge(config: &mut Value, changes: &Value) {
    for (key, value) in changes.as_object().unwrap() {
        config[key] = value.clone();
    }
}

/// For every honoured key, a value that changes the spec.
fn telling() -> BTreeMap<&'static str, Value> {
    let all = json!({
        "architectures": ["GrandmotherForCausalLM"], "model_type": "grandmother", "vocab_size": 1000, "hidden_size": 256,
        "intermediate_size": 320, "moe_intermediate_size": 96, "ffn_dim": 320, "num_hidden_layers": 5,
        "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 32, "hidden_act": "gelu",
        "activation_function": "gelu", "max_position_embeddings": 256, "rms_norm_eps": 1e-3, "attention_bias": true,
        "layer_types": ["sliding_attention", "full_attention", "full_attention", "full_attention"], "sliding_window": 8,
        "use_sliding_window": false, "max_window_layers": 1, "num_experts_per_tok": 1, "num_local_experts": 4,
        "num_experts": 4, "norm_topk_prob": true, "mlp_only_layers": [1], "decoder_sparse_step": 2,
        "word_embed_proj_dim": 64, "rope_parameters": {"rope_type": "linear", "factor": 2.0},
        "rope_scaling": {"type": "linear", "factor": 2.0}, "rope_theta": 500_000.0, "original_max_position_embeddings": 64,
        "eos_token_id": [7]
    });
    let map = all.as_object().unwrap().clone();
    map.into_iter().map(|(key, value)| (&*key.leak(), value)).collect()
}

/// Values of all types; a refused key must refuse each of them that it does not allow by name.
fn values() -> [Value; 11] {
    [
        Value::Null,
        json!(true),
        json!(false),
        json!(0),
        json!(1),
        json!(2.5),
        json!("x"),
        json!([]),
        json!([1]),
        json!({}),
        json!({"quant_method": "gptq", "factor": 2}),
    ]
}

fn changed(family: Family, key: &str, value: &Value) -> Result<super::ModelSpec, String> {
    let mut config = base(family);
    config[key] = value.clone();
    parse(&config).map_err(|error| error.to_string())
}

fn every_key(test: impl Fn(Family, &'static Key)) {
    for family in Family::ALL {
        Table::config(family).keys().for_each(|key| test(family, key));
    }
}

#[test]
fn what_is_honoured_changes_the_model_or_is_refused_by_name() {
    let telling = telling();
    every_key(|family, key| {
        let Effect::Honoured { .. } = key.effect else { return };
        let value = match key.name {
            "tie_word_embeddings" => json!(family != Family::Opt),
            name => telling.get(name).unwrap_or_else(|| panic!("{name} has no telling value")).clone(),
        };
        match changed(family, key.name, &value) {
            Ok(spec) => assert_ne!(spec, parse(&base(family)).unwrap(), "{family}: {} has no effect", key.name),
            Err(said) => assert!(said.starts_with(&format!("config.json: {}", key.name)), "{family}: {said}"),
        }
    });
}

#[test]
fn an_absent_key_is_its_default_and_null_what_the_class_makes_of_it() {
    every_key(|family, key| {
        let Effect::Honoured { default, null } = key.effect else { return };
        let default: Value = serde_json::from_str(default).unwrap();
        let mut absent = base(family);
        absent.as_object_mut().unwrap().remove(key.name);
        if !default.is_null() {
            let mut named = absent.clone();
            named[key.name] = default;
            let said = |config: &Value| parse(config).map_err(|error| error.to_string());
            assert_eq!(said(&absent), said(&named), "{family}: {}", key.name);
        }
        if null == model_files::keys::Null::Refused {
            let said = changed(family, key.name, &Value::Null).unwrap_err();
            assert_eq!(said, format!("config.json: {} must not be null", key.name), "{family}");
        }
    });
}

#[test]
fn what_is_refused_is_refused_by_name_unless_it_asks_for_nothing() {
    every_key(|family, key| {
        let Effect::Refused { unless } = key.effect else { return };
        let neutral: Vec<Value> = unless.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for value in &neutral {
            let spec = changed(family, key.name, value).unwrap_or_else(|said| panic!("{family}: {said}"));
            assert_eq!(spec, parse(&base(family)).unwrap(), "{family}: {} {value}", key.name);
        }
        for value in values().iter().filter(|value| !neutral.contains(value)) {
            let said = changed(family, key.name, value).expect_err(key.name);
            assert!(said.starts_with(&format!("config.json: {} ", key.name)), "{family}: {value}: {said}");
        }
    });
}

#[test]
fn what_is_without_effect_changes_nothing() {
    every_key(|family, key| {
        if key.effect != Effect::Ignored {
            return;
        }
        for value in values() {
            let spec = changed(family, key.name, &value).unwrap_or_else(|said| panic!("{family}: {said}"));
            assert_eq!(spec, parse(&base(family)).unwrap(), "{family}: {} {value}", key.name);
        }
    });
}
