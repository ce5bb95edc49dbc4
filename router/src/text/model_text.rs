//! The files of a model that turn text into tokens and back, read from its directory; knows no weights.

use std::collections::BTreeMap;
use std::path::Path;

use model_files::keys::say_unknown;
use model_files::{Fields, Generation, JSON_BYTES_MAX, ModelConfig, ModelFileError, read_text};
use sched::TokenId;
use serde_json::Value;
use vocabulary::SpecialTokens;

use super::message::{Message, Role};
use super::template::{GenerationPrompt, TemplateError};
use super::turn_tokens::turn_tokens;
use super::{
    AddSpecials, ChatTemplate, ControlReading, ControlTokens, Effort, EncodeError, SamplingDefaults, Source, Tokenizer,
};
use crate::Error;
use crate::jinja::Rendered;
use crate::structure::Checked;

/// The textual side of a model.
#[derive(Debug, Clone)]
pub struct ModelText {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template; base models have none.
    pub template: Option<ChatTemplate>,
    /// Tokens that control the model.
    pub control: ControlTokens,
    /// Reading of control tokens that a client spells in `messages`.
    pub control_in_messages: ControlReading,
    /// Reading of control tokens that a client spells in a raw prompt.
    pub control_in_prompts: ControlReading,
    /// Tokens that end an answer, sorted.
    pub end_tokens: Vec<TokenId>,
    /// Rows of the output matrix; every valid token id is smaller.
    pub vocab_size: u32,
    /// Tokens that prompt and answer may have together, as in training.
    pub context_tokens: u32,
    /// Sampling parameters where a client sets none.
    pub defaults: SamplingDefaults,
    /// Grammars of structured answers, as workers will compile them.
    pub(crate) grammars: Checked,
}

impl ModelText {
    /// Reads `config.json`, `tokenizer.json`, `tokenizer_config.json`, `special_tokens_map.json`, `added_tokens.json`,
    /// `chat_template.jinja` and `generation_config.json`; only the first two must exist. `model_files::keys` says what
    /// each key does.
    ///
    /// # Errors
    /// When a file cannot be read or says something that this build does not support; the error names file and key.
    pub fn load(dir: &Path) -> Result<ModelText, Error> {
        let folder = model_files::open(dir)?;
        let config = ModelConfig::read(&folder)?;
        say_unknown(config.fields.file(), &config.unknown);
        let generation = Generation::read(&folder, &config)?;
        say_unknown(generation.fields.file(), &generation.unknown);
        let tokenizer_config = Fields::read(&folder.join(TOKENIZER_CONFIG))?;
        let mut specials = SpecialTokens::read(&folder, tokenizer_config.as_ref())?;
        let tokenizer = Tokenizer::from_file(&folder.join("tokenizer.json"), &mut specials)?;
        let template = load_template(&folder, tokenizer_config.as_ref(), &specials)?;
        let vocab_size = config.vocab()?;
        let mut end_tokens: Vec<TokenId> = generation.end_tokens(&config)?.into_iter().map(TokenId).collect();
        end_tokens.extend(named_end(&specials, &tokenizer, vocab_size, &folder)?);
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
            vocab_size,
            context_tokens: config.context_tokens()?,
            defaults: SamplingDefaults::of(&generation.fields)?,
            grammars: Checked::default(),
        })
    }

    /// Prepares a raw prompt for encoding.
    #[must_use]
    pub fn raw<'a>(&self, text: &'a str) -> Source<'a> {
        let all = || std::iter::once(0..text.len()).collect::<Vec<_>>();
        let given = if self.control_in_prompts == ControlReading::Text { all() } else { Vec::new() };
        Source { text, given: given.into() }
    }

    /// Returns why no chat can be answered, if a plain question fails for a reason that no client can change: the
    /// template fails, or writes a token that the model does not have.
    #[must_use]
    pub fn chat_trouble(&self) -> Option<String> {
        let question = [Message::text(Role::User, "Hello!")];
        match self.template.as_ref()?.try_prompt(&question, GenerationPrompt::Add) {
            Ok(prompt) => {
                let tokens = self.encode_within(&self.chat(&prompt), AddSpecials::No, &Effort::unbounded());
                tokens.err().map(|error| error.to_string())
            }
            // The template wants another conversation, and says which.
            Err(TemplateError::Refused(_)) => None,
            Err(
                error @ (TemplateError::Failed(_)
                | TemplateError::Unbounded(_)
                | TemplateError::Lack(_)
                | TemplateError::Stopped(_)),
            ) => Some(error.to_string()),
        }
    }

    /// Returns why no raw prompt can be answered, if a plain word fails for a reason that no client can change.
    #[must_use]
    pub fn text_trouble(&self) -> Option<String> {
        match self.encode_within(&self.raw("Hello"), AddSpecials::Yes, &Effort::unbounded()) {
            Ok(tokens) if tokens.is_empty() => Some("the tokenizer gives it none".to_owned()),
            Ok(_) => None,
            Err(error) => Some(error.to_string()),
        }
    }

    /// Prepares the output of the chat template for encoding.
    #[must_use]
    pub fn chat<'a>(&self, prompt: &'a Rendered) -> Source<'a> {
        let given = if self.control_in_messages == ControlReading::Text { &prompt.given[..] } else { &[] };
        Source { text: &prompt.text, given: given.into() }
    }

    /// Returns the token ids of a text, all within the model's vocabulary. Some tokenizers have tokens, added for
    /// training, for which the model has no row.
    ///
    /// # Errors
    /// When a part of the text has no token or one that the model does not have, or a bound of `effort` is reached.
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

const TOKENIZER_CONFIG: &str = "tokenizer_config.json";

/// Returns the end token that the tokenizer's files name. An id outside the vocabulary is an error, as no worker could
/// look up such a stop token.
fn named_end(
    specials: &SpecialTokens,
    tokenizer: &Tokenizer,
    vocab_size: u32,
    folder: &Path,
) -> Result<Option<TokenId>, ModelFileError> {
    let Some(named) = specials.get("eos_token") else { return Ok(None) };
    match tokenizer.token_id(&named.content) {
        Some(id) if id.0 >= vocab_size => Err(ModelFileError::Key {
            file: folder.join(TOKENIZER_CONFIG),
            key: "eos_token".to_owned(),
            problem: format!(
                "is {:?} with the id {}, which is not below vocab_size {vocab_size} of config.json",
                named.content, id.0
            ),
        }),
        id => Ok(id),
    }
}

/// Prefers `chat_template.jinja` to `tokenizer_config.json`.
fn load_template(
    folder: &Path,
    config: Option<&Fields>,
    specials: &SpecialTokens,
) -> Result<Option<ChatTemplate>, Error> {
    let jinja = folder.join("chat_template.jinja");
    let tokens = specials.named().map(|(name, token)| (name.to_owned(), token.content.clone())).collect();
    if let Some(source) = read_text(&jinja, JSON_BYTES_MAX)? {
        let wrong = |error: TemplateError| ModelFileError::File { file: jinja, problem: error.to_string() };
        return compile(&source, tokens, wrong).map(Some);
    }
    let Some(config) = config else { return Ok(None) };
    let Some(source) = template_source(config)? else { return Ok(None) };
    compile(source, tokens, |error| config.problem(CHAT_TEMPLATE, format!("cannot be used: {error}"))).map(Some)
}

fn compile(
    source: &str,
    tokens: BTreeMap<String, String>,
    wrong: impl FnOnce(TemplateError) -> ModelFileError,
) -> Result<ChatTemplate, Error> {
    ChatTemplate::compile(source, tokens).map_err(|error| match error {
        TemplateError::Lack(lack) => Error::Lack(lack.to_string()),
        error => wrong(error).into(),
    })
}

const CHAT_TEMPLATE: &str = "chat_template";

/// Returns the only template, or `default` among several: a list of names and templates, or an object of them.
fn template_source(config: &Fields) -> Result<Option<&str>, ModelFileError> {
    const EXPECTED: &str = "a string, an object of strings by name, or a list of objects with name and template";
    let mut named: Vec<(&str, &str)> = Vec::new();
    match config.get(CHAT_TEMPLATE) {
        None => return Ok(None),
        Some(Value::String(source)) => return Ok(Some(source)),
        Some(Value::Array(list)) => {
            for (index, value) in list.iter().enumerate() {
                let wrong =
                    || config.wrong(&format!("{CHAT_TEMPLATE}[{index}]"), "an object with name and template", value);
                let text = |key: &str| value.get(key).and_then(Value::as_str);
                let both = text("name").zip(text("template"));
                named.push(both.ok_or_else(wrong)?);
            }
        }
        Some(Value::Object(map)) => {
            for (name, value) in map {
                let wrong = || config.wrong(&format!("{CHAT_TEMPLATE}.{name}"), "a string", value);
                named.push((name, value.as_str().ok_or_else(wrong)?));
            }
        }
        Some(other) => return Err(config.wrong(CHAT_TEMPLATE, EXPECTED, other)),
    }
    match named.iter().find(|(name, _)| *name == "default") {
        Some((_, source)) => Ok(Some(source)),
        None if named.is_empty() => Ok(None),
        None => {
            let names: Vec<&str> = named.iter().map(|(name, _)| *name).collect();
            Err(config.problem(CHAT_TEMPLATE, format!("has no template called default, only {}", names.join(", "))))
        }
    }
}

#[cfg(test)]
#[path = "model_text_tests.rs"]
pub(super) mod tests;
