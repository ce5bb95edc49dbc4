//! Broken model directories get an error that names file, key or tensor; nothing starts.

mod support;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use engine::model::{ModelSpec, WeightFiles};
use engine::{Blame, Config, EngineError, TransportChoice, WeightsDtype, open_backend};
use sched::SamplingParams;
use serde_json::{Value, json};

use support::requests::{request, tokens};
use support::workers::Workers;

/// A copy of a fixture, removed on drop.
struct Copy(PathBuf);

impl Copy {
    fn of(family: &str, name: &str) -> Result<Copy> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/families").join(family);
        let target = std::env::temp_dir().join(format!("baton-bad-model-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&target)?;
        for entry in std::fs::read_dir(source)? {
            let entry = entry?;
            std::fs::copy(entry.path(), target.join(entry.file_name()))?;
        }
        Ok(Copy(target))
    }

    fn file(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn edit(&self, name: &str, change: impl FnOnce(&mut Value)) -> Result<()> {
        let mut value = serde_json::from_str(&std::fs::read_to_string(self.file(name))?)?;
        change(&mut value);
        Ok(std::fs::write(self.file(name), serde_json::to_string(&value)?)?)
    }

    /// Rewrites the header of the weight file, keeping its length.
    fn edit_header(&self, change: impl FnOnce(&mut Value)) -> Result<()> {
        let path = self.file("model.safetensors");
        let bytes = std::fs::read(&path)?;
        let (prefix, rest) = bytes.split_first_chunk::<8>().context("no prefix")?;
        let (header, data) = rest.split_at(u64::from_le_bytes(*prefix) as usize);
        let mut value = serde_json::from_slice(header)?;
        change(&mut value);
        let mut header = serde_json::to_vec(&value)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_slice(), data];
        Ok(std::fs::write(path, parts.concat())?)
    }

    /// Turns an F32 tensor into a BF16 one with half the bytes; the bytes behind it move up.
    fn narrow(&self, tensor: &str) -> Result<()> {
        let path = self.file("model.safetensors");
        let bytes = std::fs::read(&path)?;
        let (prefix, rest) = bytes.split_first_chunk::<8>().context("no prefix")?;
        let (header, data) = rest.split_at(u64::from_le_bytes(*prefix) as usize);
        let mut value: Value = serde_json::from_slice(header)?;
        let offset = |entry: &Value, index: usize| entry["data_offsets"][index].as_u64().context("no offset");
        let (start, end) = (offset(&value[tensor], 0)?, offset(&value[tensor], 1)?);
        let gone = (end - start) / 2;
        value[tensor]["dtype"] = json!("BF16");
        for (name, entry) in value.as_object_mut().context("no header")? {
            if name != "__metadata__" {
                let moved = |offset: u64| if offset >= end { offset - gone } else { offset };
                entry["data_offsets"] = json!([moved(offset(entry, 0)?), moved(offset(entry, 1)?)]);
            }
        }
        let (head, tail) = (&data[..(end - gone) as usize], &data[end as usize..]);
        let mut header = serde_json::to_vec(&value)?;
        header.resize(header.len().next_multiple_of(8), b' ');
        let parts = [&(header.len() as u64).to_le_bytes(), header.as_slice(), head, tail];
        Ok(std::fs::write(path, parts.concat())?)
    }

    /// Overwrites the elements of an F32 tensor from `first` to its end.
    fn overwrite(&self, tensor: &str, first: usize, value: f32) -> Result<()> {
        let path = self.file("model.safetensors");
        let mut bytes = std::fs::read(&path)?;
        let header_end = 8 + u64::from_le_bytes(*bytes.first_chunk::<8>().context("no prefix")?) as usize;
        let header: Value = serde_json::from_slice(&bytes[8..header_end])?;
        anyhow::ensure!(header[tensor]["dtype"] == "F32", "{tensor} is not F32");
        let offset = |index: usize| header[tensor]["data_offsets"][index].as_u64().context("no offset");
        let data = &mut bytes[header_end + offset(0)? as usize..header_end + offset(1)? as usize];
        data.as_chunks_mut::<4>().0[first..].fill(value.to_le_bytes());
        Ok(std::fs::write(path, bytes)?)
    }

    fn config(&self) -> Config {
        Config {
            model_dir: self.0.clone(),
            kv_pool: engine::KvPool::Blocks(64),
            threads: 1,
            context_max: 256,
            transport: TransportChoice::InProcess,
            weights_cache: "off".to_owned(),
            ..Config::default()
        }
    }

    /// Error of opening it, without the directory's name.
    fn error(&self) -> String {
        let error = open_backend(&self.config(), std::sync::Arc::new(|| {})).err().map(|error| error.to_string());
        error.unwrap_or_else(|| "no error".to_owned()).replace(&format!("{}", self.0.display()), "DIR")
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        let _left_for_the_system = std::fs::remove_dir_all(&self.0);
    }
}

const QUERY: &str = "model.layers.1.self_attn.q_proj.weight";

#[test]
fn the_copy_itself_is_fine() -> Result<()> {
    assert_eq!(Copy::of("llama", "fine")?.error(), "no error");
    assert_eq!(Copy::of("qwen2", "fine-sharded")?.error(), "no error");
    Ok(())
}

/// As in transformers, an output projection in the files wins over config.json.
#[test]
fn an_output_projection_of_its_own_is_used_whatever_config_json_says() -> Result<()> {
    let model = Copy::of("llama", "own-head")?;
    model.edit("config.json", |config| config["tie_word_embeddings"] = json!(true))?;
    let opened = open_backend(&model.config(), std::sync::Arc::new(|| {}))?;
    assert!(!opened.spec.tied_embeddings);
    Ok(())
}

#[test]
fn layers_that_config_json_does_not_have_are_seen() -> Result<()> {
    let model = Copy::of("llama", "fewer-layers")?;
    model.edit("config.json", |config| config["num_hidden_layers"] = json!(1))?;
    let spec = ModelSpec::read(&model.0)?;
    let stored = spec.layers_stored(&WeightFiles::open(&model.0)?);
    assert!((spec.layers, stored) == (1, 2), "{stored}");
    Ok(())
}

#[test]
fn missing_files_are_named() -> Result<()> {
    let model = Copy::of("llama", "no-config")?;
    std::fs::remove_file(model.file("config.json"))?;
    assert_eq!(model.error(), "DIR: has no config.json; name a folder with config.json and .safetensors files");
    let model = Copy::of("llama", "no-weights")?;
    std::fs::remove_file(model.file("model.safetensors"))?;
    assert!(model.error().starts_with("DIR: has no weights: neither model.safetensors nor"), "{}", model.error());
    let model = Copy::of("qwen2", "no-shard")?;
    std::fs::remove_file(model.file("model-00002-of-00002.safetensors"))?;
    let expected = "DIR/model.safetensors.index.json: weight_map names model-00002-of-00002.safetensors, which is not \
                    there (1 of 2 files are missing): the download is incomplete";
    assert_eq!(model.error(), expected);
    Ok(())
}

#[test]
fn broken_json_is_named() -> Result<()> {
    let model = Copy::of("llama", "cut-config")?;
    std::fs::write(model.file("config.json"), "{\"vocab_size\": 12")?;
    assert!(model.error().starts_with("DIR/config.json: is not valid JSON: EOF"), "{}", model.error());
    let model = Copy::of("llama", "list-config")?;
    std::fs::write(model.file("config.json"), "[]")?;
    assert_eq!(model.error(), "DIR/config.json: must be a JSON object, found a list");
    let model = Copy::of("qwen2", "escape")?;
    model.edit("model.safetensors.index.json", |index| index["weight_map"][QUERY] = json!("../elsewhere"))?;
    let expected =
        "DIR/model.safetensors.index.json: weight_map names \"../elsewhere\", which is not a plain file name";
    assert_eq!(model.error(), expected);
    Ok(())
}

#[test]
fn truncated_weights_say_how_much_is_missing() -> Result<()> {
    let model = Copy::of("llama", "truncated")?;
    let bytes = std::fs::read(model.file("model.safetensors"))?;
    std::fs::write(model.file("model.safetensors"), &bytes[..bytes.len() - 1000])?;
    assert!(model.error().ends_with("bytes, 1000 are missing"), "{}", model.error());
    std::fs::write(model.file("model.safetensors"), &bytes[..100])?;
    assert!(model.error().contains("its header should have"), "{}", model.error());
    std::fs::write(model.file("model.safetensors"), [])?;
    assert_eq!(model.error(), "DIR/model.safetensors: is 0 bytes long, a safetensors file has at least 8");
    std::fs::write(model.file("model.safetensors"), [0xff; 64])?;
    assert!(model.error().contains("its header should have 18446744073709551615 bytes"), "{}", model.error());
    let mut garbled = bytes;
    garbled[8] = b'x';
    std::fs::write(model.file("model.safetensors"), garbled)?;
    assert_eq!(model.error(), "DIR/model.safetensors: its header is not valid JSON: expected value at line 1 column 1");
    Ok(())
}

#[test]
fn wrong_tensors_are_named() -> Result<()> {
    let model = Copy::of("llama", "shape")?;
    model.edit("config.json", |config| config["intermediate_size"] = json!(192))?;
    let expected = "DIR/model.safetensors: tensor model.layers.0.mlp.gate_proj.weight has shape [128, 64], \
                    config.json implies [192, 64]";
    assert_eq!(model.error(), expected);
    let model = Copy::of("llama", "missing-tensor")?;
    model.edit_header(|header| {
        let map = header.as_object_mut().unwrap();
        let entry = map.remove(QUERY).unwrap();
        map.insert("renamed".to_owned(), entry);
    })?;
    assert_eq!(model.error(), format!("DIR: no tensor {QUERY} in any weight file"));
    let model = Copy::of("llama", "dtype")?;
    model.edit_header(|header| header[QUERY]["dtype"] = json!("I32"))?;
    let expected = format!("DIR/model.safetensors: tensor {QUERY} is I32; supported are F32, F16 and BF16");
    assert_eq!(model.error(), expected);
    let model = Copy::of("llama", "unknown-dtype")?;
    model.edit_header(|header| header[QUERY]["dtype"] = json!("Q4"))?;
    assert!(model.error().starts_with("DIR/model.safetensors: "), "{}", model.error());
    assert!(model.error().contains("Q4"), "{}", model.error());
    Ok(())
}

#[test]
fn wrong_experts_and_positions_are_named() -> Result<()> {
    for (family, key, value, expected) in [
        (
            "mixtral",
            "num_local_experts",
            json!(7),
            "DIR/model.safetensors: tensor model.layers.0.block_sparse_moe.gate.weight has shape [6, 64], \
             config.json implies [7, 64]",
        ),
        (
            "qwen3moe",
            "moe_intermediate_size",
            json!(48),
            "DIR/model.safetensors: tensor model.layers.0.mlp.experts.0.gate_proj.weight has shape [32, 64], \
             config.json implies [48, 64]",
        ),
        ("qwen3moe", "mlp_only_layers", json!([]), "DIR: no tensor model.layers.1.mlp.gate.weight in any weight file"),
        (
            "opt",
            "max_position_embeddings",
            json!(512),
            "DIR/model.safetensors: tensor model.decoder.embed_positions.weight has shape [1026, 64], \
             config.json implies [514, 64]",
        ),
        (
            "opt",
            "do_layer_norm_before",
            json!(false),
            "DIR/config.json: do_layer_norm_before false is not supported (norms behind attention and MLP (opt-350m)); supported is true",
        ),
    ] {
        let model = Copy::of(family, &format!("{family}-{key}"))?;
        model.edit("config.json", |config| config[key] = value)?;
        assert_eq!(model.error(), expected);
    }
    let model = Copy::of("mixtral", "missing-expert")?;
    let gone = "model.layers.1.block_sparse_moe.experts.5.w2.weight";
    model.edit_header(|header| {
        let map = header.as_object_mut().unwrap();
        let entry = map.remove(gone).unwrap();
        map.insert("renamed".to_owned(), entry);
    })?;
    assert_eq!(model.error(), format!("DIR: no tensor {gone} in any weight file"));
    Ok(())
}

#[test]
fn mixed_dtypes_in_one_matrix_are_named() -> Result<()> {
    for (tensor, first) in [
        ("model.layers.1.self_attn.k_proj.weight", QUERY),
        ("model.layers.1.mlp.up_proj.weight", "model.layers.1.mlp.gate_proj.weight"),
    ] {
        let model = Copy::of("llama", "mixed-dtypes")?;
        model.narrow(tensor)?;
        let error = open_backend(&model.config(), std::sync::Arc::new(|| {})).err().context("it opens")?;
        assert!(matches!(error, EngineError::TensorDtype { .. }), "{error}");
        assert_eq!(error.blame(), Blame::Model);
        let text = error.to_string();
        assert!(text.contains(tensor) && text.contains(first), "{text}");
    }
    Ok(())
}

#[test]
fn faults_of_the_configuration_are_blamed_on_it() -> Result<()> {
    let model = Copy::of("llama", "config-faults")?;
    let base = || Config { threads: 0, ..model.config() };
    let on = |cores: &[usize]| Config { cores: cores.to_vec(), ..base() };
    let faults = [
        ("engine.cores is [4095]: worker threads: core 4095 must be less than 1024", on(&[4095])),
        ("engine.cores is [0, 1023]: worker threads: pin to core 1023: ", on(&[0, 1023])),
        ("engine.cores is [1023]: worker threads: pin to core 1023: ", on(&[1023])),
        ("engine.block_tokens must be", Config { block_tokens: 144, ..base() }),
        ("engine.kernel_set is \"mmx\"", Config { kernel_set: "mmx".to_owned(), ..base() }),
    ];
    for (expected, config) in faults {
        let error = open_backend(&config, std::sync::Arc::new(|| {})).err().context("it opens")?;
        assert!(error.to_string().starts_with(expected), "{error}");
        assert_eq!(error.blame(), Blame::Config);
    }
    Ok(())
}

#[test]
fn unsupported_models_are_named() -> Result<()> {
    let model = Copy::of("llama", "architecture")?;
    model.edit("config.json", |config| config["architectures"] = json!(["RwkvForCausalLM"]))?;
    assert!(model.error().starts_with("DIR/config.json: architectures [\"RwkvForCausalLM\"] is not supported"));
    let model = Copy::of("llama", "context")?;
    model.edit("config.json", |config| config["max_position_embeddings"] = json!(100))?;
    assert_eq!(model.error(), "engine.context_max is 256, the model was made for 100");
    Ok(())
}

#[test]
fn weights_that_are_not_finite_are_named() -> Result<()> {
    let up = "model.layers.1.mlp.up_proj.weight";
    for (tensor, first, value, expected) in [
        (QUERY, 64 + 7, f32::NAN, "is NaN at [1, 7]; weights must be finite numbers"),
        (up, 0, f32::NEG_INFINITY, "is -inf at [0, 0]; weights must be finite numbers"),
        ("lm_head.weight", 384 * 64 - 1, f32::INFINITY, "is inf at [383, 63]; weights must be finite numbers"),
        ("model.norm.weight", 63, f32::NAN, "is NaN at [63]; weights must be finite numbers"),
    ] {
        let model = Copy::of("llama", "not-finite")?;
        model.overwrite(tensor, first, value)?;
        assert_eq!(model.error(), format!("DIR/model.safetensors: tensor {tensor} {expected}"));
        let error = open_backend(&model.config(), std::sync::Arc::new(|| {})).err().context("it opens")?;
        assert_eq!(error.blame(), Blame::Model);
    }
    Ok(())
}

#[test]
fn weights_that_only_their_format_can_hold_are_named() -> Result<()> {
    let model = Copy::of("llama", "beyond-bf16")?;
    model.overwrite(QUERY, 5, f32::MAX)?;
    assert_eq!(model.error(), "no error");
    let config = Config { dtype: WeightsDtype::Bf16, ..model.config() };
    let error = open_backend(&config, std::sync::Arc::new(|| {})).err().context("it opens")?.to_string();
    assert!(
        error.ends_with(&format!("tensor {QUERY} is 3.4028235e38 at [0, 5], which is infinite as bf16")),
        "{error}"
    );
    Ok(())
}

#[test]
fn sums_that_overflow_fail_the_request() -> Result<()> {
    let model = Copy::of("llama", "overflow")?;
    model.overwrite("model.norm.weight", 0, f32::MAX)?;
    let mut workers = Workers::aggregated(&model.config())?;
    let prompt = request(1, tokens(1, 20, 384), 1, SamplingParams::default());
    let error = workers.run(&[prompt]).expect_err("nothing can be sampled").to_string();
    let said = "the model gave logits that no token can be sampled from: the logit of token ";
    assert!(error.contains(said), "{error}");
    Ok(())
}

/// The leader of the ranks reads only its own part.
#[test]
fn what_another_rank_finds_is_named_and_blamed_likewise() -> Result<()> {
    let model = Copy::of("llama", "other-rank")?;
    model.overwrite(QUERY, 5, f32::NAN)?;
    for (tp, pp) in [(1, 1), (1, 2), (2, 2)] {
        let config = Config { tp, pp, ..model.config() };
        let error = open_backend(&config, std::sync::Arc::new(|| {})).err().context("it has no layer 1")?;
        assert_eq!(error.blame(), Blame::Model, "tp {tp}, pp {pp}: {error}");
        assert!(error.to_string().contains(QUERY), "tp {tp}, pp {pp}: {error}");
    }
    Ok(())
}
