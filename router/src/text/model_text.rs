//! The files of a model that turn text into tokens and back, read from its directory; knows no weights.

use std::path::Path;

use model_files::keys::say_unknown;
use model_files::{Fields, Generation, ModelConfig, ModelFileError};
use sched::TokenId;
use serde::{Deserialize, Serialize};
use vocabulary::SpecialTokens;

use super::message::{Message, Role};
use super::template::{GenerationPrompt, TemplateError};
use super::template_files::load_templates;
use super::turn_tokens::turn_tokens;
use super::{
    AddSpecials, ChatTemplate, ControlReading, ControlTokens, Effort, EncodeError, SamplingDefaults, Source, Tokenizer,
};
use crate::Error;
use crate::jinja::Rendered;
use crate::model_output::{Tags, ToolFormat, ToolFormatChoice};
use crate::structure::Checked;

/// The textual side of a model.
#[derive(Debug, Clone)]
pub struct ModelText {
    /// Tokenizer.
    pub tokenizer: Tokenizer,
    /// Chat template; base models have none.
    pub template: Option<ChatTemplate>,
    /// Chat template for conversations with tools, where the model has one of its own.
    pub tool_template: Option<ChatTemplate>,
    /// Reading of tool calls in answers.
    pub tool_calls: ToolCalls,
    /// Marks around thoughts in answers; `None` if they stay in the text.
    pub thought_tags: Option<Tags>,
    /// Control tokens that mark thoughts or calls.
    pub marks: Marks,
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
        let (template, tool_template) = load_templates(&folder, tokenizer_config.as_ref(), &specials)?;
        let vocab_size = config.vocab()?;
        let mut end_tokens: Vec<TokenId> = generation.end_tokens(&config)?.into_iter().map(TokenId).collect();
        end_tokens.extend(named_end(&specials, &tokenizer, vocab_size, &folder)?);
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let turns = template.as_ref().map(|template| turn_tokens(template, &tokenizer)).unwrap_or_default();
        let mut text = ModelText {
            control: ControlTokens::of(&tokenizer, &turns)?,
            control_in_messages: ControlReading::Text,
            control_in_prompts: ControlReading::Token,
            tokenizer,
            template,
            tool_template,
            tool_calls: ToolCalls::Unknown,
            thought_tags: None,
            marks: Marks::default(),
            end_tokens,
            vocab_size,
            context_tokens: config.context_tokens()?,
            defaults: SamplingDefaults::of(&generation.fields)?,
            grammars: Checked::default(),
        };
        text.read_answers(ToolFormatChoice::Auto, ReasoningFormat::Auto);
        Ok(text)
    }

    /// Sets how answers are taken apart.
    pub fn read_answers(&mut self, tools: ToolFormatChoice, reasoning: ReasoningFormat) {
        let of_template = self.template_for(Tooling::Offered).and_then(ChatTemplate::tool_format);
        self.tool_calls = match (tools, of_template) {
            (ToolFormatChoice::This(format), _) | (ToolFormatChoice::Auto, Some(format)) => ToolCalls::Read(format),
            (ToolFormatChoice::Auto, None) => ToolCalls::Unknown,
            (ToolFormatChoice::None, _) => ToolCalls::InText,
        };
        self.thought_tags = match reasoning {
            ReasoningFormat::Auto => self.template.as_ref().and_then(ChatTemplate::thought_tags),
            ReasoningFormat::None => None,
        };
        let of_calls = match self.tool_calls {
            ToolCalls::Read(format) => self.control_tokens(format.marks()),
            ToolCalls::InText | ToolCalls::Unknown => Vec::new(),
        };
        let of_thoughts = self.thought_tags.into_iter().flat_map(|tags| [tags.open, tags.close]);
        self.marks = Marks { calls: of_calls, thoughts: self.control_tokens(of_thoughts) };
    }

    /// Returns the control tokens among these texts.
    fn control_tokens(&self, texts: impl Iterator<Item = &'static str>) -> Vec<TokenId> {
        let tokens = texts.filter_map(|text| self.tokenizer.token_id(text));
        tokens.filter(|token| self.tokenizer.pieces().is_special(*token)).collect()
    }

    /// Returns the chat template for a conversation.
    #[must_use]
    pub fn template_for(&self, tooling: Tooling) -> Option<&ChatTemplate> {
        match tooling {
            Tooling::Offered => self.tool_template.as_ref().or(self.template.as_ref()),
            Tooling::Absent => self.template.as_ref(),
        }
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

/// Control tokens that must show in an answer so that it can be taken apart.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Marks {
    /// Those around calls.
    pub calls: Vec<TokenId>,
    /// Those around thoughts.
    pub thoughts: Vec<TokenId>,
}

/// Whether a conversation offers tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tooling {
    /// It offers some.
    Offered,
    /// It offers none.
    Absent,
}

/// Reading of tool calls in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ToolCalls {
    /// Calls of this format are read.
    Read(ToolFormat),
    /// Calls stay in the text, as the operator wants.
    InText,
    /// The template shows no format that this build knows.
    Unknown,
}

/// Reading of thoughts in answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ReasoningFormat {
    /// They are split off at the marks that the chat template has.
    #[default]
    Auto,
    /// They stay in the text.
    None,
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

#[cfg(test)]
#[path = "model_text_tests.rs"]
pub(super) mod tests;
