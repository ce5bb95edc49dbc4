//! Tests that read model folders of every kind, right and wrong.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Map, Value, json};

use super::*;
use crate::text::{AddSpecials, Detokenizer, GenerationPrompt, Message, Role, SpecialText, samples};

/// Directory of model files, removed when dropped.
pub(in crate::text) struct Dir(pub(in crate::text) PathBuf);

impl Dir {
    pub(in crate::text) fn with(name: &str, files: &[(&str, &str)]) -> Dir {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("baton-model-text-{}-{number}-{name}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        fs::write(path.join("tokenizer.json"), samples::byte_level_json().to_string()).unwrap();
        fs::write(
            path.join("config.json"),
            r#"{"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 64, "eos_token_id": 7}"#,
        )
        .unwrap();
        for (file, text) in files {
            fs::write(path.join(file), text).unwrap();
        }
        Dir(path)
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}

fn hi(model: &ModelText) -> String {
    let messages = [Message::text(Role::User, "hi")];
    let template = model.template.as_ref().unwrap();
    template.render(&messages, GenerationPrompt::Add, &Map::new()).unwrap().text
}

#[test]
fn end_tokens_come_from_all_three_files() {
    let dir = Dir::with(
        "ends",
        &[
            ("tokenizer_config.json", r#"{"eos_token": {"content": "<|end|>"}}"#),
            ("generation_config.json", r#"{"eos_token_id": [9, 8], "temperature": 0.5, "do_sample": true}"#),
        ],
    );
    let model = ModelText::load(&dir.0).unwrap();
    let end = model.tokenizer.token_id("<|end|>").unwrap();
    assert_eq!(model.end_tokens, [TokenId(8), TokenId(9), end]);
    assert_eq!(model.defaults.temperature, Some(0.5));
    assert!(model.template.is_none());
}

#[test]
fn the_template_file_wins_and_named_templates_work() {
    let named = r#"{"chat_template": [{"name": "rag", "template": "rag"}, {"name": "default", "template": "{{ bos_token }}named"}], "bos_token": "<b>"}"#;
    let dir = Dir::with("named", &[("tokenizer_config.json", named)]);
    assert_eq!(hi(&ModelText::load(&dir.0).unwrap()), "<b>named");

    let dir =
        Dir::with("file", &[("tokenizer_config.json", named), ("chat_template.jinja", "{{ messages[0].content }}")]);
    assert_eq!(hi(&ModelText::load(&dir.0).unwrap()), "hi");
}

#[test]
fn broken_files_are_named() {
    let fails = |name: &str, files: &[(&str, &str)]| {
        let dir = Dir::with(name, files);
        ModelText::load(&dir.0).unwrap_err().to_string()
    };
    assert!(fails("a", &[("config.json", "{}")]).contains("config.json: architectures is missing"));
    assert!(fails("b", &[("tokenizer.json", "{")]).contains("tokenizer.json"));
    assert!(
        fails("c", &[("chat_template.jinja", "{% if %}")]).contains("chat_template.jinja: the chat template failed")
    );
    assert!(fails("d", &[("generation_config.json", r#"{"top_k": "x"}"#)]).contains("generation_config.json"));
}

#[test]
fn tokens_that_the_model_has_no_row_for_are_named() {
    // The byte-level sample has 266 tokens and then four control tokens.
    let small = r#"{"model_type": "llama", "vocab_size": 268, "max_position_embeddings": 64}"#;
    let dir = Dir::with("small", &[("config.json", small)]);
    let model = ModelText::load(&dir.0).unwrap();
    assert_eq!(
        model.encode_within(&model.raw("<|end|>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
        [TokenId(267)]
    );
    let said =
        model.encode_within(&model.raw("hi<|user|>"), AddSpecials::Yes, &Effort::unbounded()).unwrap_err().to_string();
    assert_eq!(said, r#"tokenizer: the text has token 268 ("<|user|>"), but this model's token ids end at 267"#);
}

/// Found by trying: every chat was answered with 400, as if the client could do anything about it.
#[test]
fn a_model_whose_chats_must_fail_is_found_out() {
    let small = r#"{"model_type": "llama", "vocab_size": 268, "max_position_embeddings": 64}"#;
    let trouble = |name: &str, template: &str| {
        let dir = Dir::with(name, &[("config.json", small), ("chat_template.jinja", template)]);
        ModelText::load(&dir.0).unwrap().chat_trouble()
    };
    assert_eq!(trouble("fine", "{% for m in messages %}{{ m.content }}<|end|>{% endfor %}"), None);
    assert_eq!(trouble("picky", "{{ raise_exception('system first') }}"), None);
    assert!(trouble("no-row", "<|user|>{{ messages[0].content }}").unwrap().contains("token 268"));
    assert!(trouble("faulty", "{{ 1/0 }}").unwrap().contains("the chat template failed"));
    let endless = "{% for i in range(100000) %}{% for j in range(100000) %}x{% endfor %}{% endfor %}";
    assert!(trouble("endless", endless).unwrap().contains("too much"));
}

/// Found by trying: the tokens that such a template builds turns from were the client's to write.
#[test]
fn tags_are_text_where_the_template_does_not_say_which_it_uses() {
    let mut json = samples::byte_level_json();
    json["added_tokens"][2]["special"] = json!(false);
    let json = json.to_string();
    let turn = "<|user|>{{ messages[-1].content }}";
    let needs = "{% if not tenant %}{{ raise_exception('tenant is needed') }}{% endif %}";
    let slow = "{% for i in range(1000) %}{% for j in range(1000) %}{% endfor %}{% endfor %}";
    for before in ["", needs, slow] {
        let dir = Dir::with("tags", &[("tokenizer.json", &json), ("chat_template.jinja", &format!("{before}{turn}"))]);
        let model = ModelText::load(&dir.0).unwrap();
        let extra = json!({"tenant": "t"});
        let messages = [Message::text(Role::User, "a<|user|>")];
        let template = model.template.as_ref().unwrap();
        let prompt = template.render(&messages, GenerationPrompt::Omit, extra.as_object().unwrap()).unwrap();
        let tokens = model.encode_within(&model.chat(&prompt), AddSpecials::No, &Effort::unbounded()).unwrap();
        let user = model.tokenizer.token_id("<|user|>").unwrap();
        assert_eq!(tokens.iter().filter(|token| **token == user).count(), 1, "{before}");
    }
}

#[test]
fn a_model_that_no_text_can_be_given_to_is_found_out() {
    let trouble = |json: &Value| {
        let dir = Dir::with("text", &[("tokenizer.json", &json.to_string())]);
        ModelText::load(&dir.0).unwrap().text_trouble()
    };
    let mut json = samples::byte_level_json();
    assert_eq!(trouble(&json), None);
    json["added_tokens"][0]["id"] = json!(400);
    json["post_processor"]["single"] = json!([]);
    assert!(trouble(&json).is_some());
}

#[test]
fn end_tokens_that_the_model_has_no_row_for_are_refused() {
    let fails = |name: &str, files: &[(&str, &str)]| {
        let dir = Dir::with(name, files);
        ModelText::load(&dir.0).unwrap_err().to_string()
    };
    let said = fails("gen", &[("generation_config.json", r#"{"eos_token_id": [1, 300]}"#)]);
    assert!(
        said.contains("generation_config.json: eos_token_id names token 300, the vocabulary has 300 entries"),
        "{said}"
    );
    let small = r#"{"model_type": "llama", "vocab_size": 267, "max_position_embeddings": 64}"#;
    let eos = r#"{"eos_token": "<|end|>"}"#;
    let said = fails("eos", &[("config.json", small), ("tokenizer_config.json", eos)]);
    let expected = "tokenizer_config.json: eos_token is \"<|end|>\" with the id 267, which is not below vocab_size 267";
    assert!(said.contains(expected), "{said}");
}

#[test]
fn recommended_sampling_is_checked_like_a_requests() {
    let dir = Dir::with("zero", &[("generation_config.json", r#"{"repetition_penalty": 0}"#)]);
    let said = ModelText::load(&dir.0).unwrap_err().to_string();
    let expected = "generation_config.json: repetition_penalty must be a number from 0.01 to 100, found 0";
    assert!(said.ends_with(expected), "{said}");
    let dir = Dir::with("greedy", &[("generation_config.json", r#"{"do_sample": false, "temperature": 0.7}"#)]);
    assert_eq!(ModelText::load(&dir.0).unwrap().defaults.temperature, Some(0.0));
}

#[test]
fn the_bundled_model_talks() {
    let model = ModelText::load(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../models/demo"))).unwrap();
    let prompt = hi(&model);
    assert_eq!(prompt, "<|bos|><|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n");
    let tokens = model.tokenizer.encode(&prompt, AddSpecials::No).unwrap();
    assert_eq!(tokens.iter().filter(|token| model.tokenizer.pieces().is_special(**token)).count(), 4);
    assert_eq!(Detokenizer::decode(&model.tokenizer, SpecialText::Show, &tokens), prompt);
    let end = model.tokenizer.token_id("<|im_end|>").unwrap();
    assert!(model.end_tokens.contains(&end));
}

#[test]
fn a_missing_file_is_named() {
    let error = ModelText::load(Path::new("/nowhere")).unwrap_err().to_string();
    assert_eq!(error, "/nowhere: there is no such folder; name a folder with config.json and .safetensors files");
    let dir = Dir::with("no-tokenizer", &[]);
    fs::remove_file(dir.0.join("tokenizer.json")).unwrap();
    let said = ModelText::load(&dir.0).unwrap_err().to_string();
    assert!(said.ends_with("tokenizer.json: there is no such file"), "{said}");
}

fn said(name: &str, files: &[(&str, &str)]) -> String {
    let dir = Dir::with(name, files);
    ModelText::load(&dir.0).unwrap_err().to_string()
}

/// Template that shows every token variable.
const SHOW: &str = "{{ bos_token }},{{ eos_token }},{{ unk_token }},{{ sep_token }},{{ pad_token }},{{ cls_token }},{{ mask_token }},{{ image_token }}";

#[test]
fn tokens_that_only_special_tokens_map_names_reach_templates_and_end_answers() {
    let map = r#"{"bos_token": "<|begin|>", "eos_token": {"content": "<|end|>", "lstrip": false}, "sep_token": "<sep>",
        "cls_token": "<cls>", "mask_token": "<mask>", "image_token": "<img>", "add_bos_token": true}"#;
    let config = format!(r#"{{"chat_template": "{SHOW}", "unk_token": "<unk>", "bos_token": "<other>"}}"#);
    let dir = Dir::with("map", &[("special_tokens_map.json", map), ("tokenizer_config.json", &config)]);
    let model = ModelText::load(&dir.0).unwrap();
    assert_eq!(hi(&model), "<|begin|>,<|end|>,<unk>,<sep>,,<cls>,<mask>,<img>");
    assert_eq!(model.end_tokens, [TokenId(7), model.tokenizer.token_id("<|end|>").unwrap()]);
    assert_eq!(
        model.encode_within(&model.raw("<sep>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
        [model.tokenizer.token_id("<sep>").unwrap()]
    );

    // As in transformers, a list of added tokens in tokenizer_config.json closes the older files.
    let listed = format!(r#"{{"chat_template": "{SHOW}", "added_tokens_decoder": {{}}}}"#);
    let dir = Dir::with("map-closed", &[("special_tokens_map.json", map), ("tokenizer_config.json", &listed)]);
    assert_eq!(hi(&ModelText::load(&dir.0).unwrap()), ",,,,,,,");
}

#[test]
fn named_control_tokens_are_variables_and_unnamed_ones_are_added() {
    for extra in [
        r#""extra_special_tokens": {"image_token": "<img>"}"#,
        r#""model_specific_special_tokens": {"image_token": {"content": "<img>"}}"#,
        r#""image_token": "<img>""#,
    ] {
        let config = format!(r#"{{"chat_template": "{SHOW}", {extra}}}"#);
        let dir = Dir::with("named-extra", &[("tokenizer_config.json", &config)]);
        let model = ModelText::load(&dir.0).unwrap();
        assert_eq!(hi(&model), ",,,,,,,<img>", "{extra}");
        assert_eq!(
            model.encode_within(&model.raw("<img>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
            [TokenId(270)],
            "{extra}"
        );
    }
    for extra in [r#""extra_special_tokens": ["<img>", "<|end|>"]"#, r#""additional_special_tokens": ["<img>"]"#] {
        let config = format!("{{{extra}}}");
        let dir = Dir::with("extra", &[("tokenizer_config.json", &config)]);
        let model = ModelText::load(&dir.0).unwrap();
        let ids = model.encode_within(&model.raw("a<img>"), AddSpecials::No, &Effort::unbounded()).unwrap();
        assert_eq!(ids.last(), Some(&TokenId(270)), "{extra}");
        assert!(model.tokenizer.pieces().is_special(TokenId(270)), "{extra}");
    }
}

#[test]
fn tokens_that_only_other_files_have_are_added_as_transformers_does() {
    let listed = r#"{"added_tokens_decoder": {"271": {"content": "<two>", "special": false},
        "270": {"content": "<one>", "special": true}, "267": {"content": "<|end|>", "special": true}}}"#;
    let dir = Dir::with("listed", &[("tokenizer_config.json", listed), ("added_tokens.json", r#"{"<old>": 272}"#)]);
    let model = ModelText::load(&dir.0).unwrap();
    assert_eq!(
        model.encode_within(&model.raw("<one><two>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
        [TokenId(270), TokenId(271)]
    );
    assert!(model.tokenizer.pieces().is_special(TokenId(270)) && !model.tokenizer.pieces().is_special(TokenId(271)));
    assert_eq!(model.tokenizer.token_id("<old>"), None, "the list closes the older file");

    let named = r#"{"pad_token": "<old>"}"#;
    let files = [("tokenizer_config.json", named), ("added_tokens.json", r#"{"<old>": 270, "<plain>": 271}"#)];
    let dir = Dir::with("added", &files);
    let model = ModelText::load(&dir.0).unwrap();
    assert_eq!(
        model.encode_within(&model.raw("<plain><old>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
        [TokenId(271), TokenId(270)]
    );
    assert!(model.tokenizer.pieces().is_special(TokenId(270)) && !model.tokenizer.pieces().is_special(TokenId(271)));
}

#[test]
fn templates_of_every_shape() {
    let object = r#"{"chat_template": {"tool_use": "t", "default": "object"}}"#;
    let dir = Dir::with("object", &[("tokenizer_config.json", object)]);
    assert_eq!(hi(&ModelText::load(&dir.0).unwrap()), "object");
    for (template, expected) in [
        (
            "7",
            "chat_template must be a string, an object of strings by name, or a list of objects with name and template, found 7",
        ),
        (
            r#"[{"name": "default"}]"#,
            r#"chat_template[0] must be an object with name and template, found {"name":"default"}"#,
        ),
        (r#"{"default": 7}"#, "chat_template.default must be a string, found 7"),
        (r#"{"rag": "r", "tool_use": "t"}"#, "chat_template has no template called default, only rag, tool_use"),
        (r#""{% if %}""#, "chat_template cannot be used: the chat template failed"),
    ] {
        let said = said("shape", &[("tokenizer_config.json", &format!(r#"{{"chat_template": {template}}}"#))]);
        assert!(said.contains(&format!("tokenizer_config.json: {expected}")), "{said}");
    }
}

#[test]
fn wrong_tokens_are_named_with_file_and_key() {
    for (file, text, expected) in [
        (
            "tokenizer_config.json",
            r#"{"bos_token": 7}"#,
            "bos_token must be a token: a string, or an object with content, found 7",
        ),
        ("tokenizer_config.json", r#"{"bos_token": {"lstrip": true}}"#, "bos_token must be a token"),
        (
            "tokenizer_config.json",
            r#"{"bos_token": {"content": "x", "lstrip": 1}}"#,
            "bos_token.lstrip must be true or false, found 1",
        ),
        (
            "tokenizer_config.json",
            r#"{"extra_special_tokens": "x"}"#,
            "extra_special_tokens must be a list of tokens or an object",
        ),
        (
            "tokenizer_config.json",
            r#"{"extra_special_tokens": [null]}"#,
            "extra_special_tokens must be a list of tokens, found null",
        ),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": []}"#,
            "added_tokens_decoder must be an object, found []",
        ),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"x": {"content": "a"}}}"#,
            "added_tokens_decoder.x must have a token id as its name",
        ),
        (
            "tokenizer_config.json",
            r#"{"added_tokens_decoder": {"7": "a"}}"#,
            "added_tokens_decoder.7 must be an object with the content of a token, found \"a\"",
        ),
        ("tokenizer_config.json", r#"{"split_special_tokens": true}"#, "split_special_tokens true is not supported"),
        ("special_tokens_map.json", r#"{"eos_token": ["</s>"]}"#, "eos_token must be a token"),
        (
            "special_tokens_map.json",
            r#"{"additional_special_tokens": [7]}"#,
            "additional_special_tokens must be a token",
        ),
        ("added_tokens.json", r#"{"<x>": "7"}"#, "<x> must be a token id, found \"7\""),
        ("added_tokens.json", r#"["<x>"]"#, "must be a JSON object, found a list"),
        (
            "generation_config.json",
            r#"{"temperature": "hot"}"#,
            "temperature must be a number from 0 to 2, found \"hot\"",
        ),
        (
            "generation_config.json",
            r#"{"num_beams": 4}"#,
            "num_beams 4 is not supported (beam search); supported is 1 or null",
        ),
    ] {
        let said = said("tokens", &[(file, text)]);
        assert!(said.contains(&format!("{file}: {expected}")), "{text}: {said}");
    }
}

#[test]
fn the_wrong_part_of_a_tokenizer_is_named() {
    for (key, value, expected) in [
        ("normalizer", serde_json::json!({"type": "Magic"}), "normalizer is of type \"Magic\", which cannot be read"),
        ("normalizer", serde_json::json!({"type": 7}), "normalizer is with a type that is 7, not a string"),
        (
            "pre_tokenizer",
            serde_json::json!({"type": "Sequence", "pretokenizers": [{"type": "Whitespace"}, {"type": "Split"}]}),
            "pre_tokenizer.pretokenizers[1] is of type \"Split\", which cannot be read",
        ),
        ("post_processor", serde_json::json!("x"), "post_processor is no object, which cannot be read"),
        ("decoder", serde_json::json!({"type": "Nothing"}), "decoder is of type \"Nothing\", which cannot be read"),
        ("model", serde_json::json!({"type": "Mamba"}), "model is of type \"Mamba\", which cannot be read"),
        ("model", serde_json::json!(null), "model is missing"),
        ("added_tokens", serde_json::json!([{"id": "x"}]), "tokenizer.json: "),
        ("version", serde_json::json!("7.0"), "tokenizer.json: "),
    ] {
        let mut json = samples::byte_level_json();
        json[key] = value;
        let said = said("part", &[("tokenizer.json", &json.to_string())]);
        assert!(said.contains(expected) && !said.contains("untagged"), "{key}: {said}");
    }
    let null = said("null", &[("tokenizer.json", "null")]);
    assert!(null.contains("tokenizer.json: invalid type: null, expected a JSON object"), "{null}");
    let cut = said("cut", &[("tokenizer.json", r#"{"model""#)]);
    assert!(cut.contains("tokenizer.json: is not valid JSON: "), "{cut}");
    let said = said("twice", &[("tokenizer.json", r#"{"model": {}, "model": {}}"#)]);
    assert!(said.contains("tokenizer.json: model occurs twice"), "{said}");
}

/// Found by trying: the library panicked at the first ones, the others drew lots or grew without bound.
#[test]
fn a_tokenizer_that_cannot_serve_is_refused_by_its_file() {
    let long = |times: usize| "x".repeat(times);
    let replace = |pattern: Value, content: &str| json!({"type": "Replace", "pattern": pattern, "content": content});
    let string = |text: &str| json!({"String": text});
    let growing = json!({"type": "Sequence", "decoders": vec![replace(string("a"), &"a".repeat(1_000)); 3]});
    let twice = json!({"type": "Sequence", "normalizers": vec![replace(string(" "), &long(9)); 2]});
    for (key, value, expected) in [
        ("normalizer", json!({"type": "Prepend", "prepend": ""}), "fails at"),
        ("normalizer", replace(json!({"Regex": r"\b"}), "Z"), "fails at"),
        ("normalizer", json!({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "tokenizer.json: "),
        ("pre_tokenizer", json!({"type": "FixedLength", "length": 0}), "fails at"),
        ("normalizer", replace(string("aa"), &long(200)), "normalizer could make a text 100 times longer"),
        ("normalizer", replace(json!({"Regex": "aa"}), &long(65)), "normalizer could make a text 65 times longer"),
        ("normalizer", json!({"type": "Prepend", "prepend": long(65)}), "normalizer could make a text 65 times longer"),
        ("normalizer", twice, "normalizer could make a text 81 times longer"),
        ("decoder", growing, "longer than 65536 bytes"),
        ("model", json!({"dropout": 0.5}), "model.dropout is 0.5, with which the same text has other tokens each time"),
    ] {
        let mut json = samples::byte_level_json();
        match (key, value.as_object()) {
            ("model", Some(changes)) => changes.iter().for_each(|(name, value)| json["model"][name] = value.clone()),
            _ => json[key] = value.clone(),
        }
        let dir = Dir::with("unfit", &[("tokenizer.json", &json.to_string())]);
        let heard = match ModelText::load(&dir.0) {
            Err(error) => error.to_string(),
            // The fault shows only with a text: reported at start, and each text is refused.
            Ok(model) => format!("tokenizer.json: {}", model.text_trouble().unwrap()),
        };
        assert!(heard.contains("tokenizer.json") && heard.contains(expected), "{key} {value}: {heard}");
    }
    let mut json = samples::byte_level_json();
    json["model"]["dropout"] = json!(0.0);
    json["normalizer"] = replace(string(" "), &long(9));
    assert!(Tokenizer::from_json(json.to_string().as_bytes()).is_ok());
}

#[test]
fn a_text_that_the_library_panics_at_is_refused_and_nothing_else() {
    let mut json = samples::byte_level_json();
    json["normalizer"] = json!({"type": "Replace", "pattern": {"Regex": "(?=h)"}, "content": "Z"});
    let tokenizer = Tokenizer::from_json(json.to_string().as_bytes()).unwrap();
    for _ in 0..2 {
        let refused = tokenizer.encode("hello", AddSpecials::No).unwrap_err().to_string();
        assert!(refused.ends_with("it fails at this text"), "{refused}");
        assert!(tokenizer.encode("world", AddSpecials::No).is_ok());
    }
}

#[test]
fn tokens_and_variables_are_those_of_transformers() {
    let root = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    let cases = fs::read_to_string(root.join("tests/fixtures/tokens.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&cases).unwrap();
    assert!(cases.len() > 20, "{}", cases.len());
    let tokenizer = fs::read_to_string(root.join("models/demo/tokenizer.json")).unwrap();
    for case in &cases {
        let files = case["files"].as_object().unwrap();
        let texts: Vec<(&str, String)> = files.iter().map(|(name, value)| (name.as_str(), value.to_string())).collect();
        let mut all = vec![("tokenizer.json", tokenizer.as_str())];
        all.extend(texts.iter().map(|(name, text)| (*name, text.as_str())));
        let dir = Dir::with("transformers", &all);
        let config = Fields::read(&dir.0.join("tokenizer_config.json")).unwrap();
        let mut specials = SpecialTokens::read(&dir.0, config.as_ref()).unwrap();
        let tokenizer = Tokenizer::from_file(&dir.0.join("tokenizer.json"), &mut specials).unwrap();
        let ids = tokenizer.encode(case["text"].as_str().unwrap(), AddSpecials::No).unwrap();
        let found: Vec<u32> = ids.iter().map(|id| id.0).collect();
        assert_eq!(Value::from(found), case["ids"], "{}", case["files"]);
        let special: Vec<bool> = ids.iter().map(|id| tokenizer.pieces().is_special(*id)).collect();
        assert_eq!(Value::from(special), case["special"], "{}", case["files"]);
        let variables: Map<String, Value> =
            specials.named().map(|(name, token)| (name.to_owned(), token.content.clone().into())).collect();
        assert_eq!(Value::from(variables), case["variables"], "{}", case["files"]);
    }
}
