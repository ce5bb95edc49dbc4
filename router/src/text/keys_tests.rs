//! Walks the tables of keys in the files that the router reads: honoured keys have an effect, refused keys are refused
//! by file and key, keys without effect change nothing.

use model_files::keys::{
    ADDED_TOKENS, Effect, GENERATION, Key, SPECIAL_TOKENS_MAP, TOKENIZER, TOKENIZER_CONFIG, Table,
};
use serde_json::{Map, Value, json};

use super::model_text::tests::Dir;
use super::{AddSpecials, Effort, GenerationPrompt, ModelText, samples};

const TEMPLATE: &str = "{{ bos_token }},{{ eos_token }},{{ unk_token }},{{ sep_token }},{{ pad_token }},{{ cls_token }},{{ mask_token }},{{ image_token }}";
const TEXT: &str = "Hello hello<|user|> <new> WORLD world";

/// Contents of `file` before a key is changed.
fn base(file: &str) -> Value {
    match file {
        "tokenizer.json" => samples::byte_level_json(),
        "tokenizer_config.json" => json!({"chat_template": TEMPLATE}),
        _ => json!({}),
    }
}

/// Returns everything that a model's files can change, with one key set.
fn seen(file: &str, key: &str, value: &Value) -> Result<String, String> {
    let mut json = base(file);
    json[key] = value.clone();
    seen_of(file, &json)
}

/// Returns everything that a model's files can change, as text; or the error.
fn seen_of(file: &str, json: &Value) -> Result<String, String> {
    let config = base("tokenizer_config.json").to_string();
    let files = [("tokenizer_config.json", config.as_str()), (file, &json.to_string())];
    let dir = Dir::with("keys", &files);
    let prefix = format!("{}/", dir.0.display());
    let model = ModelText::load(&dir.0).map_err(|error| error.to_string().replace(&prefix, ""))?;
    let shown = model.template.as_ref().map(|template| template.render(&[], GenerationPrompt::Add, &Map::new()));
    let ids = model
        .encode_within(&model.raw(TEXT), AddSpecials::Yes, &Effort::unbounded())
        .map_err(|error| error.to_string())?;
    let special: Vec<bool> = ids.iter().map(|id| model.tokenizer.pieces().is_special(*id)).collect();
    let bytes: Vec<&[u8]> = ids.iter().map(|id| model.tokenizer.pieces().bytes(*id)).collect();
    Ok(format!("{:?} {:?} {shown:?} {ids:?} {special:?} {bytes:?}", model.end_tokens, model.defaults))
}

fn unchanged(file: &str) -> String {
    seen_of(file, &base(file)).unwrap()
}

/// Returns a value of `key` whose effect must show.
fn telling(file: &str, key: &str) -> Value {
    let all = match file {
        "generation_config.json" => json!({"eos_token_id": [8], "do_sample": false, "temperature": 0.5, "top_k": 3,
            "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.5, "max_new_tokens": 5, "max_length": 30,
            "min_new_tokens": 2, "min_length": 30}),
        "tokenizer.json" => json!({"added_tokens": [], "normalizer": {"type": "Lowercase"},
            "pre_tokenizer": {"type": "Whitespace"}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []},
            "post_processor": null, "decoder": null,
            "padding": {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": null, "pad_id": 0,
                "pad_type_id": 0, "pad_token": "<|user|>"}}),
        "added_tokens.json" => json!({"<new>": 270}),
        _ => json!({"extra_special_tokens": ["hello"], "additional_special_tokens": ["hello"],
            "model_specific_special_tokens": {"image_token": "<|user|>"}, "image_token": "<|user|>",
            "chat_template": "other", "added_tokens_decoder": {"270": {"content": "<new>"}}}),
    };
    match all.get(key) {
        Some(value) => value.clone(),
        None if key.ends_with("_token") => json!("<|user|>"),
        None => panic!("{file}: {key} has no telling value"),
    }
}

fn values() -> [Value; 7] {
    [json!(null), json!(true), json!(0), json!(-2.5), json!("x"), json!([1]), json!({"x": [{}]})]
}

/// Name under which a row is tried: its own, or one with the same ending.
fn name(table: &Table, key: &Key) -> String {
    match table.file {
        "added_tokens.json" => "<new>".to_owned(),
        _ if key.name.starts_with('_') && table.endings.contains(key) => format!("image{}", key.name),
        _ => key.name.to_owned(),
    }
}

fn every_key(test: impl Fn(&'static str, &str, Effect)) {
    for table in [GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS, TOKENIZER] {
        let rows = table.keys().chain(table.endings);
        rows.for_each(|key| test(table.file, &name(&table, key), key.effect));
    }
}

#[test]
fn what_is_honoured_shows() {
    every_key(|file, key, effect| {
        let Effect::Honoured { .. } = effect else { return };
        match seen(file, key, &telling(file, key)) {
            Ok(seen) => assert_ne!(seen, unchanged(file), "{file}: {key} has no effect"),
            Err(said) => assert!(said.starts_with(file) && said.contains(key), "{file}: {key}: {said}"),
        }
    });
}

#[test]
fn a_value_of_the_wrong_type_is_named_with_file_and_key() {
    every_key(|file, key, effect| {
        let Effect::Honoured { .. } = effect else { return };
        for value in values() {
            if let Err(said) = seen(file, key, &value) {
                let is_named = said.starts_with(file) && (said.contains(key) || file == "tokenizer.json");
                assert!(is_named && !said.contains("untagged"), "{file}: {key}: {value}: {said}");
            }
        }
    });
}

#[test]
fn what_is_refused_is_refused_by_file_and_key_unless_it_asks_for_nothing() {
    every_key(|file, key, effect| {
        let Effect::Refused { unless } = effect else { return };
        let neutral: Vec<Value> = unless.iter().map(|text| serde_json::from_str(text).unwrap()).collect();
        for value in [json!(null), json!(true), json!(0), json!(1.0), json!("x")] {
            let is_same = |one: &Value| *one == value || (one.is_number() && one.as_f64() == value.as_f64());
            let is_neutral = neutral.iter().any(is_same);
            match seen(file, key, &value) {
                Ok(seen) => {
                    assert!(is_neutral, "{file}: {key} {value} is not refused");
                    assert_eq!(seen, unchanged(file), "{file}: {key} {value}");
                }
                Err(said) => {
                    assert!(said.starts_with(&format!("{file}: {key} ")), "{file}: {key} {value}: {said}");
                    assert!(!is_neutral, "{said}");
                }
            }
        }
    });
}

#[test]
fn what_is_without_effect_changes_nothing() {
    for table in [GENERATION, TOKENIZER_CONFIG, SPECIAL_TOKENS_MAP, ADDED_TOKENS] {
        for value in [json!(true), json!("x"), json!({"x": [7]})] {
            let mut all = base(table.file);
            for key in table.keys().filter(|key| key.effect == Effect::Ignored) {
                all[key.name] = value.clone();
            }
            assert_eq!(seen_of(table.file, &all), Ok(unchanged(table.file)), "{}: {value}", table.file);
        }
    }
    let truncation = json!({"max_length": 3, "strategy": "LongestFirst", "stride": 0, "direction": "Right"});
    for (key, value) in [("version", json!("1.0")), ("truncation", truncation)] {
        assert_eq!(TOKENIZER.key(key).map(|key| key.effect), Some(Effect::Ignored));
        assert_eq!(seen(TOKENIZER.file, key, &value), Ok(unchanged(TOKENIZER.file)), "{key}");
    }
    assert_eq!(TOKENIZER.keys().filter(|key| key.effect == Effect::Ignored).count(), 2);
}
