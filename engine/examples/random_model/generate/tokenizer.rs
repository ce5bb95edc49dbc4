//! Makes a tokenizer with as many entries as the model's vocabulary: another tokenizer padded, or plain bytes.

use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Map, Value, json};

use super::write_json;

const CHAT_TEMPLATE: &str = "{{ bos_token }}{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\n{% endfor %}{% if add_generation_prompt %}assistant: {% endif %}";

/// Copies the tokenizer of another model, and adds words until every token id has a text.
pub(super) fn copy(source: &Path, directory: &Path, vocab: usize) -> Result<()> {
    let path = source.join("tokenizer.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut tokenizer: Value = serde_json::from_str(&text)?;
    let words = tokenizer["model"]["vocab"].as_object_mut().context("tokenizer.json: model.vocab is not an object")?;
    pad(words, vocab);
    write_json(&directory.join("tokenizer.json"), &tokenizer)?;
    let config = source.join("tokenizer_config.json");
    std::fs::copy(&config, directory.join("tokenizer_config.json")).with_context(|| config.display().to_string())?;
    Ok(())
}

/// One token per byte, two special tokens, and padding.
pub(super) fn byte_level(directory: &Path, vocab: usize) -> Result<()> {
    let specials = ["<s>", "</s>"];
    let mut words = Map::new();
    for text in specials.iter().map(|special| (*special).to_owned()).chain((0..=255).map(byte_text)) {
        words.insert(text, json!(words.len()));
    }
    pad(&mut words, vocab);
    let added = specials.iter().enumerate().map(|(id, content)| {
        json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true})
    });
    let byte_level = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    let tokenizer = json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": added.collect::<Vec<_>>(),
        "normalizer": null, "pre_tokenizer": byte_level, "post_processor": null, "decoder": byte_level,
        "model": {"type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "vocab": words, "merges": []},
    });
    write_json(&directory.join("tokenizer.json"), &tokenizer)?;
    let config = json!({"bos_token": "<s>", "eos_token": "</s>", "chat_template": CHAT_TEMPLATE,
        "tokenizer_class": "PreTrainedTokenizerFast"});
    write_json(&directory.join("tokenizer_config.json"), &config)
}

/// Character that byte-level BPE writes for a byte: itself if printable, else one from U+0100 on.
fn byte_text(byte: u8) -> String {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let code = if printable(byte) {
        u32::from(byte)
    } else {
        256 + (0..byte).filter(|before| !printable(*before)).count() as u32
    };
    char::from_u32(code).map(String::from).unwrap_or_default()
}

/// Adds words that no merge produces: never encoded, but every id below `vocab` can be decoded.
fn pad(words: &mut Map<String, Value>, vocab: usize) {
    let first = words.values().filter_map(Value::as_u64).max().map_or(0, |last| last as usize + 1);
    for id in first..vocab {
        words.insert(format!("\u{120}w{id}"), json!(id));
    }
}
