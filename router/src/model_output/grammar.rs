//! Grammars of answers that call tools, in llguidance's Lark dialect; knows no request and no matcher.

use std::collections::HashSet;
use std::fmt::Write;

use sched::TokenId;
use serde_json::{Map, Value};

use super::format::Bare;
use super::free_text::FreeText;
use super::thoughts::{Begins, Tags};
use super::{CallsPerTurn, ToolFormat};
use crate::structure::{Keywords, WhiteSpace, json_part, unmatched};

/// Function that an answer may call.
#[derive(Debug, Clone, Copy)]
pub struct Callable<'a> {
    /// Name.
    pub name: &'a str,
    /// Its arguments.
    pub arguments: Arguments<'a>,
}

/// Arguments that a call may have.
#[derive(Debug, Clone, Copy)]
pub enum Arguments<'a> {
    /// Those of a JSON schema, each keyword of which must be enforced.
    Strict(&'a Map<String, Value>),
    /// Those of a JSON schema, as far as it can be enforced.
    Lenient(&'a Map<String, Value>),
    /// Any.
    Any,
}

/// Calls that an answer may make.
#[derive(Debug, Clone, Copy)]
pub struct Calls<'a> {
    /// How they are written.
    pub format: ToolFormat,
    /// Functions, at least one.
    pub functions: &'a [Callable<'a>],
    /// How many there may be.
    pub limit: CallsPerTurn,
}

/// What an answer may say besides calls.
#[derive(Debug, Clone, Copy)]
pub enum Content<'a> {
    /// Nothing.
    None,
    /// A text of this grammar, instead of calls.
    Of(&'a str),
    /// Any text, before calls or instead of them; what opens calls is no part of it.
    Free,
}

/// Returns the grammar of an answer: its thoughts, if it has any, then calls or content, and nothing else. `None` if it may
/// make no calls, and its content follows no grammar. `control` gives the token of a mark that is a single control token,
/// which no text stands for.
#[must_use]
pub fn answer_grammar(
    calls: Option<Calls<'_>>,
    content: Content<'_>,
    thoughts: Option<(Tags, Begins)>,
    control: &dyn Fn(&str) -> Option<TokenId>,
) -> Option<String> {
    let marks = match content {
        Content::Free => Marks::TokensOrSpelled,
        Content::None | Content::Of(_) => Marks::Tokens,
    };
    let mut writer = Writer { rules: String::new(), control, marks };
    let before = writer.thoughts(thoughts, content);
    let written = calls.map(|Calls { format, functions, limit }| writer.calls(format, functions, limit));
    let then = match (calls, written, content) {
        (Some(calls), Some(written), Content::Free) => writer.free(calls.format, &written, thoughts),
        (_, Some(written), Content::Of(grammar)) => format!("(({written}) | {})", writer.content(grammar)),
        (_, None, Content::Of(grammar)) => writer.content(grammar),
        (_, Some(written), Content::None | Content::Free) => written,
        (_, None, Content::None | Content::Free) => return None,
    };
    Some(format!("start: {before}{then}\n{}", writer.rules))
}

/// White space before a mark that must come first.
const LEAD: &str = r"/[ \t\r\n]{1,64}/";

struct Writer<'a> {
    rules: String,
    control: &'a dyn Fn(&str) -> Option<TokenId>,
    marks: Marks,
}

/// How marks are written that are control tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    Tokens,
    /// Readers of answers see no difference; so where anything may be said, nothing else can be meant by their text.
    TokensOrSpelled,
}

impl Writer<'_> {
    /// Writes the rule of what a model thinks first; returns how the start refers to it.
    fn thoughts(&mut self, thoughts: Option<(Tags, Begins)>, content: Content<'_>) -> String {
        let Some((tags, begins)) = thoughts else { return String::new() };
        let open = match begins {
            Begins::Behind => return String::new(),
            Begins::Inside | Begins::Amid => String::new(),
            Begins::Unopened => format!("{} ", self.mark(tags.open)),
        };
        let (piece, end) = (self.pieces("THOUGHT", &[tags.close]), self.mark(tags.close));
        self.rule("thought", &format!("{open}{piece}* {end}"));
        self.rule("space", r"/[ \n]{1,4}/");
        match (begins, content) {
            // Readers of thoughts pass over white space.
            (Begins::Unopened, Content::Free) => format!("({LEAD}? thought space?)? "),
            (Begins::Unopened, Content::None | Content::Of(_)) => "(thought space?)? ".to_owned(),
            (Begins::Inside | Begins::Amid | Begins::Behind, _) => "thought space? ".to_owned(),
        }
    }

    /// Writes the rule of what the client wants; returns how the start refers to it.
    fn content(&mut self, grammar: &str) -> String {
        self.rule("content", &format!("%lark {{\n{grammar}\n}}"));
        "content".to_owned()
    }

    /// Writes the rules of any text before `calls`, or instead of them; returns how the start refers to both.
    fn free(&mut self, format: ToolFormat, calls: &str, thoughts: Option<(Tags, Begins)>) -> String {
        let shape = format.shape();
        // A text that begins with what opens thoughts is one.
        let thought = thoughts.filter(|(_, begins)| *begins == Begins::Unopened).map(|(tags, _)| tags.open);
        let marks: Vec<&str> = std::iter::once(shape.opens).chain(thought).collect();
        let piece = self.pieces("SAID", &marks);
        match shape.bare {
            Bare::Never => format!("{piece}* ({calls})?"),
            Bare::Object => {
                let first = self.without(&marks).character(r"{\s");
                self.rule("SAID_FIRST", &format!("/{first}/"));
                self.rule("SAID_SPACE", r"/\s+/");
                self.rule("said", &format!("SAID_SPACE | SAID_SPACE? (SAID_FIRST | SAID_BEGUN) {piece}*"));
                format!("(said | {LEAD}? ({calls}) | said? {} ({calls}))?", self.mark(shape.opens))
            }
        }
    }

    /// Writes the terminals of a text in which none of `marks` occurs; returns how rules refer to a piece of it.
    fn pieces(&mut self, name: &str, marks: &[&str]) -> String {
        let free = self.without(marks);
        self.rule(&format!("{name}_PIECE"), &format!("/{}+/", free.character("")));
        match free.begun() {
            Some(begun) => {
                self.rule(&format!("{name}_BEGUN"), &begun);
                format!("({name}_PIECE | {name}_BEGUN)")
            }
            None => format!("{name}_PIECE"),
        }
    }

    /// Text in which none of `marks` occurs; no control token ever does.
    fn without(&self, marks: &[&str]) -> FreeText {
        let is_text = |mark: &&str| self.marks == Marks::TokensOrSpelled || (self.control)(mark).is_none();
        FreeText::without(marks.iter().copied().filter(is_text))
    }

    /// Writes the rules of the calls; returns how the start refers to them.
    fn calls(&mut self, format: ToolFormat, functions: &[Callable<'_>], limit: CallsPerTurn) -> String {
        match format {
            ToolFormat::Hermes => {
                self.objects(functions, "arguments", &["<tool_call>", "\n"], &["\n", "</tool_call>"]);
                repeated("call", r#""\n" "#, limit)
            }
            ToolFormat::Llama3Json => {
                self.objects(functions, "parameters", &[], &[]);
                repeated("call", r#""; " "#, limit)
            }
            ToolFormat::Granite => {
                self.objects(functions, "arguments", &[], &[]);
                let list = repeated("call", r#"", " "#, limit);
                format!("{} \"[\" {list} \"]\"", self.mark("<|tool_call|>"))
            }
            ToolFormat::Mistral => {
                self.objects(functions, "arguments", &[], &[]);
                let list = repeated("call", r#"", " "#, limit);
                self.named(functions, &["[TOOL_CALLS]"], "[ARGS]", &[]);
                let named = repeated("named", "", limit);
                format!("({} \"[\" {list} \"]\" | {named})", self.mark("[TOOL_CALLS]"))
            }
            ToolFormat::DeepseekV3 => {
                self.fenced(functions);
                self.named(functions, &["<｜tool▁call▁begin｜>"], "<｜tool▁sep｜>", &["<｜tool▁call▁end｜>"]);
                let (fenced, named) = (repeated("call", r#""\n" "#, limit), repeated("named", "", limit));
                let (open, close) = (self.mark("<｜tool▁calls▁begin｜>"), self.mark("<｜tool▁calls▁end｜>"));
                format!("{open} ({fenced} | {named}) {close}")
            }
            ToolFormat::Qwen3Coder => {
                self.tagged(functions);
                repeated("call", r#""\n" "#, limit)
            }
        }
    }

    /// Calls as JSON objects between marks.
    fn objects(&mut self, functions: &[Callable<'_>], key: &str, before: &[&str], behind: &[&str]) {
        self.each("call", functions, |writer, function| {
            let open = format!("{{\"name\": {}, \"{key}\": ", Value::from(function.name));
            let (open, close) = (writer.sequence(before, &open), writer.sequence(&["}"], ""));
            format!("{open} {} {close}{}", schema_of(function.arguments), writer.marks(behind))
        });
    }

    /// Calls with the name before the arguments.
    fn named(&mut self, functions: &[Callable<'_>], before: &[&str], separator: &str, behind: &[&str]) {
        self.each("named", functions, |writer, function| {
            let (open, separator) = (writer.sequence(before, function.name), writer.mark(separator));
            format!("{open} {separator} {}{}", schema_of(function.arguments), writer.marks(behind))
        });
    }

    /// Calls as DeepSeek V3 and R1 write them.
    fn fenced(&mut self, functions: &[Callable<'_>]) {
        self.each("call", functions, |writer, function| {
            let open = writer.sequence(&["<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"], function.name);
            let close = writer.marks(&["\n```", "<｜tool▁call▁end｜>"]);
            format!("{open} \"\\n```json\\n\" {}{close}", schema_of(function.arguments))
        });
    }

    /// Calls whose arguments stand in tags of their own.
    fn tagged(&mut self, functions: &[Callable<'_>]) {
        self.each("call", functions, |writer, function| {
            let body = match function.arguments {
                Arguments::Strict(schema) => writer.parameters(schema, Keywords::AllEnforced),
                Arguments::Lenient(schema) => writer.parameters(schema, Keywords::BestEffort),
                Arguments::Any => format!(r"(/<parameter=[^<>\s]{{1,64}}>\n/ {})* ", writer.text_value()),
            };
            let open = writer.sequence(&["<tool_call>"], &format!("\n<function={}>\n", function.name));
            let close = writer.marks(&["</function>\n", "</tool_call>"]);
            format!("{open} {body}{}", close.trim_start())
        });
    }

    /// Arguments in tags, in the order of the schema.
    fn parameters(&mut self, schema: &Map<String, Value>, keywords: Keywords) -> String {
        let properties = schema.get("properties").and_then(Value::as_object);
        let required = schema.get("required").and_then(Value::as_array);
        let names = || required.into_iter().flatten().filter_map(Value::as_str);
        let mut required: HashSet<&str> = names().collect();
        let mut body = String::new();
        for (key, schema) in properties.into_iter().flatten() {
            let value = self.value(schema, keywords);
            let open = text(&format!("<parameter={key}>\n"));
            // Writing to a string does not fail.
            let _ = write!(body, "({open} {value}){} ", if required.remove(key.as_str()) { "" } else { "?" });
        }
        // Those that are not described, each once.
        for name in names().filter(|name| required.remove(name)) {
            let _ = write!(body, "{} {} ", text(&format!("<parameter={name}>\n")), self.text_value());
        }
        body
    }

    /// Value of an argument in a tag, with the end of the tag.
    fn value(&mut self, schema: &Value, keywords: Keywords) -> String {
        const END: &str = r#""\n</parameter>\n""#;
        let is_text = schema.get("type").is_none_or(|kind| kind == "string") || has_reference(schema);
        match schema.get("enum").and_then(Value::as_array) {
            Some(values) if is_text && !values.is_empty() && values.iter().all(Value::is_string) => {
                let words: Vec<String> = values.iter().filter_map(Value::as_str).map(text).collect();
                format!("({}) {END}", words.join(" | "))
            }
            Some(_) | None if is_text => self.text_value(),
            Some(_) | None => format!("{} {END}", json_part(schema.clone(), keywords, WhiteSpace::Some)),
        }
    }

    /// Any text as the value of an argument, with the end of the tag; the line feed before it counts as text here.
    fn text_value(&mut self) -> String {
        if !self.rules.contains("\ntext: ") {
            let piece = self.pieces("TEXT", &["</parameter>"]);
            self.rule("text", &format!("{piece}* \"</parameter>\\n\""));
        }
        "text".to_owned()
    }

    /// Writes one rule per function, and the rule that is any of them.
    fn each(&mut self, rule: &str, functions: &[Callable<'_>], body: impl Fn(&mut Self, &Callable<'_>) -> String) {
        let names: Vec<String> = (0..functions.len()).map(|index| format!("{rule}_{index}")).collect();
        self.rule(rule, &names.join(" | "));
        for (name, function) in names.iter().zip(functions) {
            let body = body(self, function);
            self.rule(name, &body);
        }
    }

    fn rule(&mut self, name: &str, body: &str) {
        // Writing to a string does not fail.
        let _ = writeln!(self.rules, "{name}: {body}");
    }

    /// Writes marks and then a text, with as few literals as possible.
    fn sequence(&self, marks: &[&str], then: &str) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut literal = String::new();
        for part in marks.iter().copied().chain([then]) {
            if (self.control)(part).is_some() {
                if !literal.is_empty() {
                    parts.push(text(&std::mem::take(&mut literal)));
                }
                parts.push(self.mark(part));
            } else {
                literal.push_str(part);
            }
        }
        if !literal.is_empty() {
            parts.push(text(&literal));
        }
        parts.join(" ")
    }

    /// Writes marks, with a space before them.
    fn marks(&self, marks: &[&str]) -> String {
        let written = self.sequence(marks, "");
        if written.is_empty() { written } else { format!(" {written}") }
    }

    fn mark(&self, mark: &str) -> String {
        let is_tag = mark.starts_with('<') && mark.ends_with('>') && !mark.starts_with("<[");
        let token = match (self.control)(mark) {
            Some(_) if is_tag => mark.to_owned(),
            Some(token) => format!("<[{}]>", token.0),
            None => return text(mark),
        };
        match self.marks {
            Marks::Tokens => token,
            Marks::TokensOrSpelled => format!("({token} | {})", text(mark)),
        }
    }
}

fn repeated(rule: &str, separator: &str, limit: CallsPerTurn) -> String {
    match limit {
        CallsPerTurn::One => rule.to_owned(),
        CallsPerTurn::Many if separator.is_empty() => format!("{rule}+"),
        CallsPerTurn::Many => format!("{rule} ({separator}{rule})*"),
    }
}

/// Returns the grammar of arguments alone, to find out whose cannot be used.
#[must_use]
pub fn arguments_grammar(arguments: Arguments<'_>) -> String {
    format!("start: {}", schema_of(arguments))
}

/// Grammar of the arguments of a call, which are always an object.
fn schema_of(arguments: Arguments<'_>) -> String {
    let (schema, keywords) = match arguments {
        Arguments::Strict(schema) => (schema.clone(), Keywords::AllEnforced),
        // Written for people and models, too: what cannot be enforced has no effect.
        Arguments::Lenient(schema) => (schema.clone(), Keywords::BestEffort),
        Arguments::Any => (Map::new(), Keywords::BestEffort),
    };
    json_part(Value::Object(objects_only(schema)), keywords, WhiteSpace::Some)
}

/// Returns why a function can have no arguments, if it can have none.
#[must_use]
pub fn unmatched_arguments(arguments: Arguments<'_>) -> Option<String> {
    let schema = match arguments {
        Arguments::Strict(schema) | Arguments::Lenient(schema) => schema,
        Arguments::Any => return None,
    };
    let has_objects = match schema.get("type") {
        Some(Value::String(kind)) => kind == "object",
        Some(Value::Array(kinds)) => kinds.iter().any(|kind| kind == "object"),
        // A type of another form is the library's to refuse.
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) | None => true,
    };
    match schema.get("type").filter(|_| !has_objects) {
        Some(kind) => Some(format!("their type is {kind}, and arguments are an object")),
        None => unmatched(&Value::Object(objects_only(schema.clone()))),
    }
}

/// Of the types that a schema has, the one that a call can carry.
fn objects_only(mut schema: Map<String, Value>) -> Map<String, Value> {
    match schema.get("type") {
        None | Some(Value::String(_) | Value::Array(_)) => drop(schema.insert("type".to_owned(), "object".into())),
        Some(Value::Null | Value::Bool(_) | Value::Number(_) | Value::Object(_)) => {}
    }
    schema
}

/// Returns true if the schema refers to another place, which it does not bring along.
fn has_reference(schema: &Value) -> bool {
    match schema {
        Value::Object(map) => map.contains_key("$ref") || map.values().any(has_reference),
        Value::Array(list) => list.iter().any(has_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

/// Literal of a grammar, which is written like a string of JSON.
fn text(text: &str) -> String {
    Value::from(text).to_string()
}
