//! Everything about a model that turns text into tokens and back, read from its directory; knows no weights.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use sched::TokenId;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::turn_tokens::turn_tokens;
use super::{
    AddSpecials, ChatTemplate, ControlReading, ControlTokens, Effort, EncodeError, SamplingDefaults, Source, Tokenizer,
};
use crate::Error;
use crate::jinja::Rendered;

/// The textual side of a model.
#[derive(Debug, Clone)]
pub struct ModelText {
    /// Its tokenizer.
    pub tokenizer: Tokenizer,
    /// Its chat template; base models have none.
    pub template: Option<ChatTemplate>,
    /// Which tokens control the model.
    pub control: ControlTokens,
    /// How what a client says in `messages` is read where it spells a control token.
    pub control_in_messages: ControlReading,
    /// How a raw prompt is read where it spells a control token.
    pub control_in_prompts: ControlReading,
    /// Tokens that end an answer. Sorted.
    pub end_tokens: Vec<TokenId>,
    /// Rows of the output matrix: every valid token id is below.
    pub vocab_size: u32,
    /// Tokens that prompt and answer may have together, as the model was trained.
    pub context_tokens: u32,
    /// Sampling parameters for what a client leaves open.
    pub defaults: SamplingDefaults,
}

impl ModelText {
    /// Reads `config.json`, `tokenizer.json`, `tokenizer_config.json`, `chat_template.jinja` and
    /// `generation_config.json`; only the first two must exist.
    ///
    /// # Errors
    /// When a file cannot be read or says something that this build does not support; the error names it.
    pub fn load(dir: &Path) -> Result<ModelText, Error> {
        let config_path = dir.join("config.json");
        let config: ModelConfig = read_json(&config_path)?.ok_or_else(|| missing(&config_path))?;
        let tokenizer_path = dir.join("tokenizer.json");
        if !tokenizer_path.exists() {
            return Err(missing(&tokenizer_path));
        }
        let tokenizer = Tokenizer::from_file(&tokenizer_path)?;
        let tokenizer_config: TokenizerConfig = read_json(&dir.join("tokenizer_config.json"))?.unwrap_or_default();
        let generation_path = dir.join("generation_config.json");
        let generation: GenerationConfig = read_json(&generation_path)?.unwrap_or_default();
        let defaults = SamplingDefaults::of(&generation.rest)
            .map_err(|reason| Error::ModelFile { path: generation_path.clone(), reason })?;
        let template = load_template(dir, &tokenizer_config)?;

        let (ends_path, ends) = match generation.eos_token_id {
            Some(ends) => (generation_path, Some(ends)),
            None => (config_path, config.eos_token_id),
        };
        let mut end_tokens = ends.map_or_else(Vec::new, TokenIds::into_vec);
        within(&end_tokens, config.vocab_size, ends_path, "eos_token_id")?;
        let eos = tokenizer_config.special_tokens().remove("eos_token").and_then(|name| tokenizer.token_id(&name));
        within(eos.as_slice(), config.vocab_size, tokenizer_path, "the eos_token's id")?;
        end_tokens.extend(eos);
        end_tokens.sort_unstable();
        end_tokens.dedup();

        let turns = template.as_ref().map(|template| turn_tokens(template, &tokenizer)).unwrap_or_default();
        Ok(ModelText {
            control: ControlTokens::of(&tokenizer, &turns)?,
            control_in_messages: ControlReading::Text,
            control_in_prompts: ControlReading::Token,
            tokenizer,
            template,
            end_tokens,
            vocab_size: config.vocab_size,
            context_tokens: config.max_position_embeddings,
            defaults,
        })
    }

    /// A raw prompt, to be encoded.
    #[must_use]
    pub fn raw<'a>(&self, text: &'a str) -> Source<'a> {
        let all = || std::iter::once(0..text.len()).collect::<Vec<_>>();
        let given = if self.control_in_prompts == ControlReading::Text { all() } else { Vec::new() };
        Source { text, given: given.into() }
    }

    /// What the chat template made, to be encoded.
    #[must_use]
    pub fn chat<'a>(&self, prompt: &'a Rendered) -> Source<'a> {
        let given = if self.control_in_messages == ControlReading::Text { &prompt.given[..] } else { &[] };
        Source { text: &prompt.text, given: given.into() }
    }

    /// Token ids of a text, all within the model's vocabulary. Some tokenizers have tokens, added for training, that
    /// the model has no row for.
    ///
    /// # Errors
    /// When a part of the text has no token, or one that the model does not have, or a bound of `effort` is reached.
    pub fn encode_within(
        &self,
        source: &Source<'_>,
        specials: AddSpecials,
        effort: &Effort,
    ) -> Result<Vec<TokenId>, EncodeError> {
        let guard = source.guard(&self.control);
        let tokens = self.tokenizer.encode_guarded(source.text, guard, specials, effort)?;
        if let Some(token) = tokens.iter().find(|token| token.0 >= self.vocab_size) {
            let name = self.tokenizer.token_name(*token).unwrap_or_default();
            return Err(EncodeError::Tokenizer(format!(
                "the text has token {} ({name:?}), but this model's token ids end at {}",
                token.0,
                self.vocab_size.saturating_sub(1)
            )));
        }
        Ok(tokens)
    }
}

#[derive(Debug, Deserialize)]
struct ModelConfig {
    vocab_size: u32,
    max_position_embeddings: u32,
    eos_token_id: Option<TokenIds>,
}

#[derive(Debug, Default, Deserialize)]
struct GenerationConfig {
    eos_token_id: Option<TokenIds>,
    #[serde(flatten)]
    rest: Map<String, Value>,
}

/// Files write one end token as a number and several as a list.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TokenIds {
    One(u32),
    Many(Vec<u32>),
}

impl TokenIds {
    fn into_vec(self) -> Vec<TokenId> {
        match self {
            TokenIds::One(id) => vec![TokenId(id)],
            TokenIds::Many(ids) => ids.into_iter().map(TokenId).collect(),
        }
    }
}

#[derive(Debug, Default, Deserialize)]
struct TokenizerConfig {
    chat_template: Option<TemplateSource>,
    bos_token: Option<SpecialToken>,
    eos_token: Option<SpecialToken>,
    unk_token: Option<SpecialToken>,
    pad_token: Option<SpecialToken>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum TemplateSource {
    One(String),
    Named(Vec<NamedTemplate>),
}

#[derive(Debug, Deserialize)]
struct NamedTemplate {
    name: String,
    template: String,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum SpecialToken {
    Text(String),
    Object { content: String },
}

impl TokenizerConfig {
    /// The special tokens under the names that templates use.
    fn special_tokens(&self) -> BTreeMap<String, String> {
        let named = [
            ("bos_token", &self.bos_token),
            ("eos_token", &self.eos_token),
            ("unk_token", &self.unk_token),
            ("pad_token", &self.pad_token),
        ];
        named
            .into_iter()
            .filter_map(|(name, token)| match token {
                Some(SpecialToken::Text(content) | SpecialToken::Object { content }) => {
                    Some((name.to_owned(), content.clone()))
                }
                None => None,
            })
            .collect()
    }
}

/// `chat_template.jinja` wins over `tokenizer_config.json`, where of several named ones `default` is meant.
fn load_template(dir: &Path, config: &TokenizerConfig) -> Result<Option<ChatTemplate>, Error> {
    let jinja = dir.join("chat_template.jinja");
    let (path, source) = match (std::fs::read_to_string(&jinja), &config.chat_template) {
        (Ok(source), _) => (jinja, source),
        (Err(error), _) if error.kind() != std::io::ErrorKind::NotFound => return Err(unreadable(jinja, &error)),
        (Err(_), None) => return Ok(None),
        (Err(_), Some(TemplateSource::One(source))) => (dir.join("tokenizer_config.json"), source.clone()),
        (Err(_), Some(TemplateSource::Named(named))) => {
            let path = dir.join("tokenizer_config.json");
            let Some(default) = named.iter().find(|one| one.name == "default").or(named.first()) else {
                return Ok(None);
            };
            (path, default.template.clone())
        }
    };
    let template = ChatTemplate::compile(&source, config.special_tokens()).map_err(|error| unreadable(path, &error))?;
    Ok(Some(template))
}

/// `None` when there is no such file.
fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, Error> {
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(path.to_owned(), &error)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(path.to_owned(), &error)),
    }
}

/// An end token that the model cannot say would be a request's stop token that no worker can look up.
fn within(tokens: &[TokenId], vocab_size: u32, path: PathBuf, what: &str) -> Result<(), Error> {
    match tokens.iter().find(|token| token.0 >= vocab_size) {
        Some(token) => {
            let reason = format!("{what} {} is not below vocab_size {vocab_size} of config.json", token.0);
            Err(Error::ModelFile { path, reason })
        }
        None => Ok(()),
    }
}

fn unreadable(path: PathBuf, error: &dyn std::error::Error) -> Error {
    Error::ModelFile { path, reason: error.to_string() }
}

fn missing(path: &Path) -> Error {
    Error::ModelFile { path: path.to_owned(), reason: "there is no such file".to_owned() }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::text::{AddSpecials, Detokenizer, GenerationPrompt, Message, Role, SpecialText, samples};

    /// A directory of model files that is gone when dropped.
    struct Dir(PathBuf);

    impl Dir {
        fn with(name: &str, files: &[(&str, &str)]) -> Dir {
            let path = std::env::temp_dir().join(format!("baton-model-text-{}-{name}", std::process::id()));
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("tokenizer.json"), samples::byte_level_json().to_string()).unwrap();
            fs::write(
                path.join("config.json"),
                r#"{"vocab_size": 300, "max_position_embeddings": 64, "eos_token_id": 7}"#,
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

        let dir = Dir::with(
            "file",
            &[("tokenizer_config.json", named), ("chat_template.jinja", "{{ messages[0].content }}")],
        );
        assert_eq!(hi(&ModelText::load(&dir.0).unwrap()), "hi");
    }

    #[test]
    fn broken_files_are_named() {
        let fails = |name: &str, files: &[(&str, &str)]| {
            let dir = Dir::with(name, files);
            ModelText::load(&dir.0).unwrap_err().to_string()
        };
        assert!(fails("a", &[("config.json", "{}")]).contains("config.json: missing field `vocab_size`"));
        assert!(fails("b", &[("tokenizer.json", "{")]).contains("tokenizer.json"));
        assert!(
            fails("c", &[("chat_template.jinja", "{% if %}")])
                .contains("chat_template.jinja: the chat template failed")
        );
        assert!(fails("d", &[("generation_config.json", r#"{"top_k": "x"}"#)]).contains("generation_config.json"));
    }

    #[test]
    fn tokens_that_the_model_has_no_row_for_are_named() {
        // The byte-level sample has 266 tokens and then four control tokens.
        let small = r#"{"vocab_size": 268, "max_position_embeddings": 64}"#;
        let dir = Dir::with("small", &[("config.json", small)]);
        let model = ModelText::load(&dir.0).unwrap();
        assert_eq!(
            model.encode_within(&model.raw("<|end|>"), AddSpecials::No, &Effort::unbounded()).unwrap(),
            [TokenId(267)]
        );
        let said = model
            .encode_within(&model.raw("hi<|user|>"), AddSpecials::Yes, &Effort::unbounded())
            .unwrap_err()
            .to_string();
        assert_eq!(said, r#"tokenizer: the text has token 268 ("<|user|>"), but this model's token ids end at 267"#);
    }

    #[test]
    fn end_tokens_that_the_model_has_no_row_for_are_refused() {
        let fails = |name: &str, files: &[(&str, &str)]| {
            let dir = Dir::with(name, files);
            ModelText::load(&dir.0).unwrap_err().to_string()
        };
        let said = fails("gen", &[("generation_config.json", r#"{"eos_token_id": [1, 300]}"#)]);
        assert!(said.contains("generation_config.json: eos_token_id 300 is not below vocab_size 300"), "{said}");
        let small = r#"{"vocab_size": 267, "max_position_embeddings": 64}"#;
        let eos = r#"{"eos_token": "<|end|>"}"#;
        let said = fails("eos", &[("config.json", small), ("tokenizer_config.json", eos)]);
        assert!(said.contains("tokenizer.json: the eos_token's id 267 is not below vocab_size 267"), "{said}");
    }

    #[test]
    fn recommended_sampling_is_checked_like_a_requests() {
        let dir = Dir::with("zero", &[("generation_config.json", r#"{"repetition_penalty": 0}"#)]);
        let said = ModelText::load(&dir.0).unwrap_err().to_string();
        let expected = "generation_config.json: repetition_penalty must be a number above 0 to 100, but is 0";
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
        assert_eq!(error, "cannot use model file /nowhere/config.json: there is no such file");
    }
}
