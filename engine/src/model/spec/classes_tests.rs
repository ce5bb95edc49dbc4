//! Compares what transformers' classes read from many config.json with what is read here: equal, or refused by key.
//!
//! `tests/fixtures/make_configs.py` writes the cases with the reference itself.

use std::path::Path;

use serde_json::Value;

use super::tests::parse;
use super::{AttentionBias, MlpSpec, ModelSpec, Positions};

#[test]
fn every_file_is_read_as_its_class_reads_it_or_refused_by_key() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/configs.json");
    let cases: Vec<Value> = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    assert!(cases.len() > 100, "{}", cases.len());
    let mut served = 0;
    for case in &cases {
        let (config, expected) = (&case["config"], &case["expected"]);
        match (parse(config), expected) {
            (Ok(spec), Value::Object(_)) => {
                served += 1;
                compare(&spec, expected, config);
            }
            (Ok(_), _) => panic!("transformers refuses {config}: {expected}"),
            (Err(error), _) => {
                let said = error.to_string();
                let key = case["refused"].as_str().unwrap_or_else(|| panic!("{config} is refused: {said}"));
                assert!(said.starts_with(&format!("config.json: {key}")), "{config}: {said}");
            }
        }
    }
    assert!(served > 60, "{served}");
}

fn compare(spec: &ModelSpec, expected: &Value, config: &Value) {
    let counts = [
        ("vocab", spec.vocab),
        ("hidden", spec.hidden),
        ("layers", spec.layers),
        ("heads", spec.heads),
        ("kv_heads", spec.kv_heads),
        ("head_dim", spec.head_dim),
        ("context_max", spec.context_max),
    ];
    for (name, found) in counts {
        assert_eq!(Value::from(found), expected[name], "{name} of {config}");
    }
    let windows: Vec<Value> = spec.windows.iter().map(|window| window.map_or(Value::Null, Value::from)).collect();
    assert_eq!(Value::from(windows), expected["windows"], "windows of {config}");
    assert_eq!(Value::from(spec.tied_embeddings), expected["tied"], "tied embeddings of {config}");
    let bias = match spec.attention_bias {
        AttentionBias::None => "none",
        AttentionBias::Qkv => "qkv",
        AttentionBias::QkvOutput => "qkvo",
    };
    assert_eq!(expected["bias"], bias, "biases of {config}");
    assert_eq!(spec.norm_eps, expected["eps"].as_f64().unwrap() as f32, "epsilon of {config}");
    let experts: Vec<Value> = spec.mlps.iter().map(experts_of).collect();
    assert_eq!(Value::from(experts), expected["mlps"], "MLPs of {config}");
    if let Positions::Rope(rope) = &spec.positions {
        let frequencies = rope.inverse_frequencies(spec.head_dim);
        let expected: Vec<f64> = expected["inv_freq"].as_array().unwrap().iter().map(|f| f.as_f64().unwrap()).collect();
        assert_eq!(frequencies.len(), expected.len(), "{config}");
        for (found, expected) in frequencies.iter().zip(expected) {
            assert!((f64::from(*found) - expected).abs() <= 2e-6 * expected, "{found} for {expected} of {config}");
        }
    }
}

fn experts_of(mlp: &MlpSpec) -> Value {
    match mlp {
        MlpSpec::Gated { width } | MlpSpec::Relu { width } => Value::from(vec![*width]),
        MlpSpec::Experts { width, routing } => {
            Value::from(vec![*width, routing.experts as u32, routing.per_row as u32])
        }
    }
}
