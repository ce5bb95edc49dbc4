//! Tiny tokenizers of each family, built by hand for tests.

use serde_json::{Value, json};

use super::Tokenizer;

/// Byte-level BPE (GPT-2, Llama 3, Qwen): all 256 bytes, a few words, two control tokens.
pub(crate) fn byte_level_json() -> Value {
    let mut vocab = serde_json::Map::new();
    let alphabet = (0x21..=0x7e).chain(0xa1..=0xac).chain(0xae..=0xff).chain(0x100..=0x143);
    for (id, code) in alphabet.enumerate() {
        vocab.insert(char::from_u32(code).unwrap().to_string(), json!(id));
    }
    let merges = ["h e", "l l", "he ll", "hell o", "Ġ w", "o r", "l d", "Ġw or", "Ġwor ld", "Ġ hello"];
    for merge in merges {
        let id = vocab.len();
        vocab.insert(merge.replace(' ', ""), json!(id));
    }
    let specials = ["<|begin|>", "<|end|>", "<|user|>", "<|assistant|>"];
    let added: Vec<Value> =
        specials.iter().enumerate().map(|(index, content)| added_token(vocab.len() + index, content)).collect();
    let begin = vocab.len();
    json!({
        "version": "1.0",
        "added_tokens": added,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "post_processor": begin_with("<|begin|>", begin),
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    })
}

pub(crate) fn byte_level() -> Tokenizer {
    Tokenizer::from_json(byte_level_json().to_string().as_bytes()).unwrap()
}

/// SentencePiece BPE with byte fallback (Llama 2, Mistral 7B).
pub(crate) fn sentencepiece_json() -> Value {
    let mut vocab = serde_json::Map::new();
    for name in ["<unk>", "<s>", "</s>"] {
        vocab.insert(name.to_owned(), json!(vocab.len()));
    }
    for byte in 0..=255u8 {
        vocab.insert(format!("<0x{byte:02X}>"), json!(vocab.len()));
    }
    for letter in "▁abcdefghijklmnopqrstuvwxyz".chars() {
        vocab.insert(letter.to_string(), json!(vocab.len()));
    }
    let merges = ["▁ w", "o r", "l d", "▁w or", "▁wor ld", "▁ a"];
    for merge in merges {
        vocab.insert(merge.replace(' ', ""), json!(vocab.len()));
    }
    json!({
        "version": "1.0",
        "added_tokens": [added_token(0, "<unk>"), added_token(1, "<s>"), added_token(2, "</s>")],
        "normalizer": {"type": "Sequence", "normalizers": [
            {"type": "Prepend", "prepend": "▁"},
            {"type": "Replace", "pattern": {"String": " "}, "content": "▁"},
        ]},
        "post_processor": begin_with("<s>", 1),
        "decoder": {"type": "Sequence", "decoders": [
            {"type": "Replace", "pattern": {"String": "▁"}, "content": " "},
            {"type": "ByteFallback"},
            {"type": "Fuse"},
            {"type": "Strip", "content": " ", "start": 1, "stop": 0},
        ]},
        "model": {"type": "BPE", "unk_token": "<unk>", "fuse_unk": true, "byte_fallback": true, "vocab": vocab, "merges": merges},
    })
}

pub(crate) fn sentencepiece() -> Tokenizer {
    Tokenizer::from_json(sentencepiece_json().to_string().as_bytes()).unwrap()
}

/// The same vocabulary with the newer `Metaspace` decoder.
pub(crate) fn metaspace() -> Tokenizer {
    let mut json = sentencepiece_json();
    json["decoder"] = json!({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": false});
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn added_token(id: usize, content: &str) -> Value {
    json!({"id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false, "normalized": false, "special": true})
}

fn begin_with(name: &str, id: usize) -> Value {
    json!({
        "type": "TemplateProcessing",
        "single": [{"SpecialToken": {"id": name, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [{"Sequence": {"id": "A", "type_id": 0}}, {"Sequence": {"id": "B", "type_id": 0}}],
        "special_tokens": {name: {"id": name, "ids": [id], "tokens": [name]}},
    })
}
