//! Cuts a text into windows of tokens; knows no engine.

use std::path::Path;

use anyhow::{Context, Result, anyhow, ensure};
use serde_json::Value;
use tokenizers::Tokenizer;

/// Tokens of the text, cut before every beginning-of-text token and after `window` tokens. A window has at least 2.
pub(crate) fn windows(model: &Path, text: &Path, window: usize) -> Result<Vec<Vec<u32>>> {
    let path = model.join("tokenizer.json");
    let tokenizer = Tokenizer::from_file(&path).map_err(|error| anyhow!("{}: {error}", path.display()))?;
    let text = std::fs::read_to_string(text).with_context(|| text.display().to_string())?;
    let encoded = tokenizer.encode(text, false).map_err(|error| anyhow!("tokenising: {error}"))?;
    let windows = cut(encoded.get_ids(), beginning(model)?, window);
    ensure!(!windows.is_empty(), "the text has less than two tokens");
    Ok(windows)
}

/// Token that texts begin with, if the model has one.
fn beginning(model: &Path) -> Result<Option<u32>> {
    let path = model.join("config.json");
    let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let config: Value = serde_json::from_str(&text).with_context(|| path.display().to_string())?;
    Ok(config["bos_token_id"].as_u64().and_then(|id| u32::try_from(id).ok()))
}

fn cut(tokens: &[u32], beginning: Option<u32>, window: usize) -> Vec<Vec<u32>> {
    let documents = tokens.chunk_by(|_, next| Some(*next) != beginning);
    let windows = documents.flat_map(|document| document.chunks(window));
    windows.filter(|window| window.len() > 1).map(<[u32]>::to_vec).collect()
}
