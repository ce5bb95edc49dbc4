//! tokenizer.json: its bounds, its keys, and the part that is wrong; knows no text.
//!
//! The tokenizer library says of a wrong file only that it "did not match any variant". Here the parts are tried one by
//! one, so that the message names the part and its contents.

use std::fmt::Display;
use std::path::Path;

use model_files::keys::{TOKENIZER, say_unknown};
use model_files::{Fields, ModelFileError, TOKENIZER_BYTES_MAX, read_bytes};
use sched::contained::contained;
use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::Value;
use serde_json::error::Category;
use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper, PreTokenizerWrapper,
};

use crate::SpecialTokens;

/// Reads `tokenizer.json` and adds the tokens of the model's other files. The padding token becomes the `pad_token` where
/// no file names one.
///
/// # Errors
/// When a part of the file is wrong or not supported; the error names it.
pub fn read_tokenizer(file: &Path, tokens: &mut SpecialTokens) -> Result<tokenizers::Tokenizer, ModelFileError> {
    by_library(file, || read_with_tokens(file, tokens))
}

/// Calls the tokenizer library, whose panic is a fault of the file.
fn by_library<T>(file: &Path, read: impl FnOnce() -> Result<T, ModelFileError>) -> Result<T, ModelFileError> {
    contained(read).unwrap_or_else(|panic| {
        let problem = format!("holds something that the tokenizer library fails at: {panic}");
        Err(ModelFileError::File { file: file.to_path_buf(), problem })
    })
}

fn read_with_tokens(file: &Path, tokens: &mut SpecialTokens) -> Result<tokenizers::Tokenizer, ModelFileError> {
    let mut tokenizer = read(file)?;
    if let Some(padding) = tokenizer.get_padding() {
        let token = AddedToken::from(padding.pad_token.as_str(), true);
        if tokens.get("pad_token").is_none() {
            tokens.name("pad_token", Some(token));
        }
    }
    tokens.add_to(&mut tokenizer).map_err(|problem| ModelFileError::File { file: file.to_path_buf(), problem })?;
    tokens.say_moved(&tokenizer);
    Ok(tokenizer)
}

fn read(file: &Path) -> Result<tokenizers::Tokenizer, ModelFileError> {
    let bytes = read_bytes(file, TOKENIZER_BYTES_MAX)?;
    let missing = || ModelFileError::Read { file: file.to_path_buf(), reason: "there is no such file".to_owned() };
    let bytes = bytes.ok_or_else(missing)?;
    // The library panics at some texts that are none.
    std::str::from_utf8(&bytes).map_err(|error| ModelFileError::File {
        file: file.to_path_buf(),
        problem: format!("is not UTF-8: {error}"),
    })?;
    check_keys(file, &bytes)?;
    let parsed = tokenizers::Tokenizer::from_bytes(&bytes);
    let tokenizer = parsed.map_err(|error| wrong_part(file, &bytes, &error))?;
    check_chance(file, tokenizer.get_model())?;
    check_growth(file, tokenizer.get_normalizer())?;
    Ok(tokenizer)
}

/// Refuses a tokenizer that draws random numbers, as in training: a text would have different tokens each time.
fn check_chance(file: &Path, model: &ModelWrapper) -> Result<(), ModelFileError> {
    let (key, chance) = match model {
        ModelWrapper::BPE(model) => ("model.dropout", model.dropout.map(f64::from)),
        ModelWrapper::Unigram(model) => ("model.alpha", model.alpha),
        ModelWrapper::WordPiece(_) | ModelWrapper::WordLevel(_) => return Ok(()),
    };
    match chance {
        Some(chance) if chance != 0.0 => Err(ModelFileError::Key {
            file: file.to_path_buf(),
            key: key.to_owned(),
            problem: format!("is {chance}, with which the same text has other tokens each time: set it to null"),
        }),
        Some(_) | None => Ok(()),
    }
}

/// Times by which a normaliser may lengthen a text. The sentencepiece mark, three bytes for a space, makes 3.
const GROWTH_MAX: usize = 64;

fn check_growth(file: &Path, normalizer: Option<&NormalizerWrapper>) -> Result<(), ModelFileError> {
    let growth = normalizer.map_or(Ok(1), |normalizer| serde_json::to_value(normalizer).map(|spec| growth_of(&spec)));
    let problem = match growth {
        Ok(growth) if growth <= GROWTH_MAX => return Ok(()),
        Ok(growth) => format!("could make a text {growth} times longer, the limit is {GROWTH_MAX}"),
        Err(error) => format!("cannot be read: {error}"),
    };
    Err(ModelFileError::Key { file: file.to_path_buf(), key: "normalizer".to_owned(), problem })
}

/// Returns the largest growth by replacement; a pattern matches at least one byte.
fn growth_of(spec: &Value) -> usize {
    if let Some(stages) = spec.get("normalizers").and_then(Value::as_array) {
        return stages.iter().map(growth_of).fold(1, usize::saturating_mul);
    }
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map_or(0, str::len);
    let replaced = text(spec.get("pattern").and_then(|pattern| pattern.get("String"))).max(1);
    let written = text(spec.get("content")).max(text(spec.get("prepend")));
    written.div_ceil(replaced).max(1)
}

/// Checks the keys at the top level, each of which may occur once; the library reads what is under them.
fn check_keys(file: &Path, bytes: &[u8]) -> Result<(), ModelFileError> {
    let problem = |problem: String| ModelFileError::File { file: file.to_path_buf(), problem };
    let Keys(names) = serde_json::from_slice(bytes).map_err(|error| problem(not_an_object(&error)))?;
    let map = names.into_iter().map(|name| (name, Value::Bool(true))).collect();
    say_unknown(file, &TOKENIZER.check(&Fields::of(file, map))?);
    Ok(())
}

/// Returns why the file is no JSON object with distinct keys.
fn not_an_object(error: &serde_json::Error) -> String {
    match error.classify() {
        Category::Data => error.to_string(),
        Category::Syntax | Category::Eof | Category::Io => format!("is not valid JSON: {error}"),
    }
}

struct Keys(Vec<String>);

impl<'de> Deserialize<'de> for Keys {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Keys, D::Error> {
        deserializer.deserialize_map(KeysVisitor).map(Keys)
    }
}

struct KeysVisitor;

impl<'de> Visitor<'de> for KeysVisitor {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Vec<String>, A::Error> {
        let mut names: Vec<String> = Vec::new();
        while let Some(name) = entries.next_key::<String>()? {
            if names.contains(&name) {
                return Err(serde::de::Error::custom(format!("{name} occurs twice")));
            }
            entries.next_value::<IgnoredAny>()?;
            names.push(name);
        }
        Ok(names)
    }
}

/// Finds the wrong part of a file that the library has refused with `error`.
fn wrong_part(file: &Path, bytes: &[u8], error: &dyn Display) -> ModelFileError {
    let whole = || ModelFileError::File { file: file.to_path_buf(), problem: plain(error) };
    let Ok(Value::Object(map)) = serde_json::from_slice(bytes) else { return whole() };
    let fields = Fields::of(file, map);
    let found = part::<NormalizerWrapper>(&fields, "normalizer", "normalizers")
        .or_else(|| part::<PreTokenizerWrapper>(&fields, "pre_tokenizer", "pretokenizers"))
        .or_else(|| part::<PostProcessorWrapper>(&fields, "post_processor", "processors"))
        .or_else(|| part::<DecoderWrapper>(&fields, "decoder", "decoders"))
        .or_else(|| model(&fields));
    found.unwrap_or_else(whole)
}

/// Returns what is wrong with an optional part, or with the first wrong element of its sequence.
fn part<T: DeserializeOwned>(fields: &Fields, key: &str, elements: &str) -> Option<ModelFileError> {
    let value = fields.get(key)?;
    let problem = refused::<T>(value)?;
    if let Some(list) = value.get(elements).and_then(Value::as_array) {
        let wrong = list.iter().enumerate().find_map(|(index, value)| Some((index, refused::<T>(value)?)));
        if let Some((index, problem)) = wrong {
            return Some(fields.problem(&format!("{key}.{elements}[{index}]"), problem));
        }
    }
    Some(fields.problem(key, problem))
}

fn model(fields: &Fields) -> Option<ModelFileError> {
    let Some(value) = fields.get("model") else { return Some(fields.problem("model", "is missing")) };
    refused::<ModelWrapper>(value).map(|problem| fields.problem("model", problem))
}

/// Returns why `value` is no `T`; `None` if it is one.
fn refused<T: DeserializeOwned>(value: &Value) -> Option<String> {
    let error = T::deserialize(value).err()?;
    let kind = match value {
        Value::Object(map) => match map.get("type") {
            Some(Value::String(kind)) => format!("of type {kind:?}"),
            Some(other) => format!("with a type that is {other}, not a string"),
            None => "without a type".to_owned(),
        },
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) | Value::Array(_) => "no object".to_owned(),
    };
    Some(format!("is {kind}, which cannot be read: {}", plain(&error)))
}

/// Returns the library's message without the names of its types.
fn plain(error: &dyn Display) -> String {
    let text = error.to_string();
    match text.contains("did not match any variant of untagged enum") {
        true => "a key is missing or has a value of the wrong type".to_owned(),
        false => text,
    }
}

#[cfg(test)]
mod tests {
    use sched::contained::is_contained;

    use super::*;

    /// Found by fuzzing: a key of the decoder that is no UTF-8, at which the library panics.
    #[test]
    fn a_file_that_the_library_panics_at_is_refused() {
        let decoder = br#"{"decoder": {"type": "ByteLevel", ""#;
        let rest = br#"regex": true}, "model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}}"#;
        let file = std::env::temp_dir().join(format!("baton-tokenizer-{}.json", std::process::id()));
        std::fs::write(&file, [&decoder[..], b"\xff\xff", rest].concat()).unwrap();
        let refused = read_tokenizer(&file, &mut SpecialTokens::default()).unwrap_err().to_string();
        std::fs::remove_file(&file).unwrap();
        assert!(refused.contains("is not UTF-8"), "{refused}");
    }

    /// The hook of the process asks the same question: at the start of a worker such a panic was logged as a defect of
    /// ours.
    #[test]
    fn the_hook_knows_that_a_panic_is_a_fault_of_the_file() {
        let panics = || -> Result<(), ModelFileError> { panic!("contained: {}", is_contained()) };
        let refused = by_library(Path::new("x/tokenizer.json"), panics).unwrap_err().to_string();
        assert!(refused.ends_with("holds something that the tokenizer library fails at: contained: true"), "{refused}");
    }
}
