//! Folders of models whose files say anything: read, or refused with an error; knows no request.
//!
//! The first byte chooses the file, the rest is its contents; the other files are those of a small model.

#![no_main]

use std::path::{Path, PathBuf};
use std::sync::{Once, OnceLock};

use engine::model::{ModelSpec, WeightFiles};
use libfuzzer_sys::fuzz_target;
use router::text::ModelText;
use vocabulary::Grammars;

const CONFIG: &[u8] = br#"{"model_type": "llama", "architectures": ["LlamaForCausalLM"], "vocab_size": 300,
    "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "max_position_embeddings": 64, "rms_norm_eps": 1e-5}"#;
const TOKENIZER: &[u8] = br#"{"version": "1.0", "added_tokens": [], "decoder": {"type": "ByteLevel",
    "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
    "model": {"type": "BPE", "vocab": {"a": 0, "b": 1, "ab": 2}, "merges": ["a b"]}}"#;
/// Files, with their contents where another is looked at; `None` for those that need not exist.
const FILES: [(&str, Option<&[u8]>); 8] = [
    ("config.json", Some(CONFIG)),
    ("tokenizer.json", Some(TOKENIZER)),
    ("tokenizer_config.json", None),
    ("generation_config.json", None),
    ("special_tokens_map.json", None),
    ("added_tokens.json", None),
    ("chat_template.jinja", None),
    ("model.safetensors", None),
];

fn folder() -> &'static Path {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(|| {
        let folder = std::env::temp_dir().join(format!("baton-fuzz-folders-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
        folder
    })
}

/// Panics of the tokenizer library are contained by the readers, so they must not end this process before that: those
/// that are not contained do it.
fn contain_panics() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| std::panic::set_hook(Box::new(|info| eprintln!("{info}"))));
}

fuzz_target!(|data: &[u8]| {
    contain_panics();
    let Some((chosen, contents)) = data.split_first() else { return };
    let folder = folder();
    for (index, (file, usual)) in FILES.iter().enumerate() {
        let path = folder.join(file);
        let contents = if index == usize::from(*chosen) % FILES.len() { Some(contents) } else { *usual };
        match contents {
            Some(contents) => std::fs::write(path, contents).expect("the file can be written"),
            None if path.exists() => std::fs::remove_file(path).expect("the file can be removed"),
            None => {}
        }
    }
    let _ = ModelText::load(folder);
    let _ = Grammars::read(folder);
    let spec = ModelSpec::read(folder);
    if let Ok(weights) = WeightFiles::open(folder) {
        let _ = spec.map(|spec| spec.as_stored(&weights));
    }
});
