//! How a chat template writes tools, their calls and their results, found by trying it; knows no tokenizer.
//!
//! Clients send the arguments of a call as a string. Most templates want them as an object, some as a string; a wrong
//! choice shows as quotation marks within quotation marks, or as Python's notation.

use serde_json::{Map, Value as Json, json};

use super::dialect::Shape;
use super::message::{Message, ToolCall};
use super::template::{ChatTemplate, GenerationPrompt};
use crate::jinja::{Origin, Value};
use crate::model_output::ToolFormat;

/// What a template does with tools.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ToolDialect {
    pub(super) offers: Written,
    /// Form of the arguments; `None` if calls are not written.
    arguments: Option<Arguments>,
    /// Content of a turn of calls alone.
    null: NullContent,
    /// Forms of a result; `None` if results are not written.
    pub(super) results: Option<Shape>,
    /// Form in which the template writes calls.
    pub(super) format: Option<ToolFormat>,
}

/// Whether a template writes something out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Yes,
    No,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Arguments {
    Object,
    Text,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NullContent {
    /// The template knows null.
    Null,
    /// The template would write `None`, or fails; it gets an empty text.
    Empty,
}

/// Words that occur in no template.
const TOOL: &str = "ZqvTool";
const KEY: &str = "ZqvKey";
const VALUE: &str = "ZqvValue";
const RESULT: &str = "ZqvResult";
const MORE: &str = "ZqvMore";

impl Default for ToolDialect {
    fn default() -> ToolDialect {
        ToolDialect { offers: Written::No, arguments: None, null: NullContent::Empty, results: None, format: None }
    }
}

impl ToolDialect {
    /// Tries `template`, whose text is `source`.
    pub(super) fn probe(source: &str, template: &ChatTemplate) -> ToolDialect {
        // A template without the word reads no variable and no message of that kind.
        if !source.contains("tool") {
            return ToolDialect::default();
        }
        let offered = render(template, &[user()], &[tool()]).filter(|prompt| prompt.contains(TOOL));
        let object = json!({KEY: VALUE});
        let forms = [(Arguments::Object, object.clone()), (Arguments::Text, Json::String(object.to_string()))];
        let found = forms.into_iter().find_map(|(form, arguments)| {
            [json!(""), Json::Null].into_iter().find_map(|content| {
                let prompt = call(template, &content, &arguments).filter(|prompt| writes_call(prompt))?;
                Some((form, arguments.clone(), prompt))
            })
        });
        let Some((form, arguments, called)) = found else {
            let written = offered.as_deref().unwrap_or_default();
            let format = ToolFormat::of_template(written, TOOL);
            return ToolDialect { offers: Written::of(offered.is_some()), format, ..ToolDialect::default() };
        };
        // Instructions before the conversation may show other forms.
        let written = called.rsplit_once(MORE).map_or(called.as_str(), |(_, written)| written);
        ToolDialect {
            offers: Written::of(offered.is_some()),
            arguments: Some(form),
            null: NullContent::probe(template, &arguments),
            results: Shape::find(|content, words| writes_result(template, &arguments, content, words)),
            format: ToolFormat::of_template(written, TOOL),
        }
    }

    pub(super) fn writes_calls(self) -> bool {
        self.arguments.is_some()
    }

    /// Returns the content of a turn that has none.
    pub(super) fn null(self) -> Value {
        match self.null {
            NullContent::Null => Value::None,
            NullContent::Empty => Value::own(""),
        }
    }

    /// Adds the calls of a message, and the name of the call of which it is the result.
    pub(super) fn add_to(self, message: &Message, fields: &mut Vec<(&str, Value)>) {
        if !message.calls.is_empty() {
            fields.push(("tool_calls", Value::list(message.calls.iter().map(|call| self.call(call)))));
        }
        if let Some(id) = &message.call_id {
            fields.push(("tool_call_id", Value::of_json(&Json::String(id.clone()), Origin::Given)));
        }
    }

    fn call(self, call: &ToolCall) -> Value {
        match self.arguments {
            Some(Arguments::Object) | None => Value::of_json(&Json::Object(call.sent.clone()), Origin::Given),
            Some(Arguments::Text) => {
                let mut sent = call.sent.clone();
                if let Some(Json::Object(function)) = sent.get_mut("function") {
                    function.insert("arguments".to_owned(), Json::String(call.arguments_text()));
                }
                Value::of_json(&Json::Object(sent), Origin::Given)
            }
        }
    }
}

impl NullContent {
    /// Null must do wherever an empty text does.
    fn probe(template: &ChatTemplate, arguments: &Json) -> NullContent {
        let knows_null = tries().iter().all(|(ends, tools)| {
            let prompt = |content: &Json| {
                let prompt = render(template, &ends.conversation(content, arguments, &json!(RESULT)), tools)?;
                Some(prompt).filter(|prompt| writes_call(prompt))
            };
            prompt(&json!("")).is_none() || prompt(&Json::Null).is_some_and(|prompt| !prompt.contains("None"))
        });
        if knows_null { NullContent::Null } else { NullContent::Empty }
    }
}

impl Written {
    fn of(written: bool) -> Written {
        if written { Written::Yes } else { Written::No }
    }
}

fn render(template: &ChatTemplate, messages: &[Json], tools: &[Json]) -> Option<String> {
    let rendered = template.try_json(messages, tools, GenerationPrompt::Omit, &Map::new());
    rendered.ok().map(|rendered| rendered.text)
}

/// Renders conversations with a call until one is not refused.
fn call(template: &ChatTemplate, content: &Json, arguments: &Json) -> Option<String> {
    with_result(template, content, arguments, &json!(RESULT), writes_call)
}

fn with_result(
    template: &ChatTemplate,
    content: &Json,
    arguments: &Json,
    result: &Json,
    is_right: impl Fn(&str) -> bool,
) -> Option<String> {
    let prompts = tries().into_iter();
    let mut prompts =
        prompts.filter_map(|(ends, tools)| render(template, &ends.conversation(content, arguments, result), &tools));
    prompts.find(|prompt| is_right(prompt))
}

/// Conversations with a call, and tools; several, as templates refuse some.
fn tries() -> [(EndsWith, Vec<Json>); 4] {
    let (tools, none) = (vec![tool()], Vec::new());
    [
        (EndsWith::Result, tools.clone()),
        (EndsWith::Result, none.clone()),
        (EndsWith::Call, tools),
        (EndsWith::Call, none),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum EndsWith {
    Call,
    Result,
}

impl EndsWith {
    fn conversation(self, content: &Json, arguments: &Json, result: &Json) -> Vec<Json> {
        let called = json!({"role": "assistant", "content": content, "tool_calls": [
            // Mistral's templates want names of nine characters.
            {"id": "call00000", "type": "function", "function": {"name": TOOL, "arguments": arguments}},
        ]});
        let result = json!({"role": "tool", "tool_call_id": "call00000", "name": TOOL, "content": result});
        match self {
            EndsWith::Call => vec![user(), called],
            EndsWith::Result => vec![user(), called, result],
        }
    }
}

/// Returns true if name and arguments are written out, in neither Python's notation nor as JSON within JSON.
fn writes_call(prompt: &str) -> bool {
    let wrong = [format!("'{KEY}'"), format!("\\\"{KEY}")];
    [TOOL, KEY, VALUE].iter().all(|word| prompt.contains(word)) && !wrong.iter().any(|mark| prompt.contains(mark))
}

fn writes_result(template: &ChatTemplate, arguments: &Json, content: &Json, words: &[&str]) -> bool {
    let right = |prompt: &str| Shape::is_written(prompt, words);
    [json!(""), Json::Null].iter().any(|empty| with_result(template, empty, arguments, content, right).is_some())
}

fn user() -> Json {
    json!({"role": "user", "content": MORE})
}

fn tool() -> Json {
    json!({"type": "function", "function": {"name": TOOL, "description": "d", "parameters":
        {"type": "object", "properties": {KEY: {"type": "string", "description": "d"}}, "required": [KEY]}}})
}
