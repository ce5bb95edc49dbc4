//! Grammars that make a model call tools, in llguidance's Lark dialect; knows no request and no matcher.

use std::fmt::Write;

use sched::TokenId;
use serde_json::{Map, Value};

use super::thoughts::{Begins, Tags};
use super::{CallsPerTurn, ToolFormat};
use crate::structure::{Keywords, WhiteSpace, json_part};

/// Function that an answer may call.
#[derive(Debug, Clone, Copy)]
pub struct Callable<'a> {
    /// Name.
    pub name: &'a str,
    /// JSON schema of the arguments; empty for any.
    pub parameters: &'a Map<String, Value>,
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

/// Returns the grammar of an answer that makes calls, or says a text of the grammar `content`, and does nothing else
/// after its thoughts; `None` if it may do neither. `control` gives the token of a mark that is a single control token,
/// which no text stands for.
#[must_use]
pub fn answer_grammar(
    calls: Option<Calls<'_>>,
    content: Option<&str>,
    thoughts: Option<(Tags, Begins)>,
    control: &dyn Fn(&str) -> Option<TokenId>,
) -> Option<String> {
    let mut writer = Writer { rules: String::new(), control };
    let before = writer.thoughts(thoughts);
    let calls = calls.map(|Calls { format, functions, limit }| writer.calls(format, functions, limit));
    if let Some(content) = content {
        writer.rule("content", &format!("%lark {{\n{content}\n}}"));
    }
    let then = match (calls, content) {
        (None, None) => return None,
        (Some(calls), None) => calls,
        (None, Some(_)) => "content".to_owned(),
        (Some(calls), Some(_)) => format!("(({calls}) | content)"),
    };
    Some(format!("start: {before}{then}\n{}", writer.rules))
}

struct Writer<'a> {
    rules: String,
    control: &'a dyn Fn(&str) -> Option<TokenId>,
}

impl Writer<'_> {
    /// Writes the rule of what a model thinks first; returns how the start refers to it.
    fn thoughts(&mut self, thoughts: Option<(Tags, Begins)>) -> String {
        let Some((tags, begins)) = thoughts else { return String::new() };
        let open = match begins {
            Begins::Behind => return String::new(),
            Begins::Inside | Begins::Amid => String::new(),
            Begins::Unopened => format!("{} ", self.mark(tags.open)),
        };
        let end = self.mark(tags.close);
        match (self.control)(tags.close) {
            Some(_) => self.rule("thought", &format!("{open}/(?s:.*)/ {end}")),
            None => {
                self.rule("thought", &format!("{open}thought_text"));
                self.rule(&format!("thought_text[suffix={end}]"), "/(?s:.*)/");
            }
        }
        self.rule("space", r"/[ \n]{1,4}/");
        match begins {
            Begins::Unopened => "(thought space?)? ".to_owned(),
            Begins::Inside | Begins::Amid | Begins::Behind => "thought space? ".to_owned(),
        }
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
            format!("{open} {} {close}{}", arguments(function), writer.marks(behind))
        });
    }

    /// Calls with the name before the arguments.
    fn named(&mut self, functions: &[Callable<'_>], before: &[&str], separator: &str, behind: &[&str]) {
        self.each("named", functions, |writer, function| {
            let (open, separator) = (writer.sequence(before, function.name), writer.mark(separator));
            format!("{open} {separator} {}{}", arguments(function), writer.marks(behind))
        });
    }

    /// Calls as DeepSeek V3 and R1 write them.
    fn fenced(&mut self, functions: &[Callable<'_>]) {
        self.each("call", functions, |writer, function| {
            let open = writer.sequence(&["<｜tool▁call▁begin｜>", "function", "<｜tool▁sep｜>"], function.name);
            let close = writer.marks(&["\n```", "<｜tool▁call▁end｜>"]);
            format!("{open} \"\\n```json\\n\" {}{close}", arguments(function))
        });
    }

    /// Calls whose arguments stand in tags of their own.
    fn tagged(&mut self, functions: &[Callable<'_>]) {
        self.each("call", functions, |writer, function| {
            let properties = function.parameters.get("properties").and_then(Value::as_object);
            let required = function.parameters.get("required").and_then(Value::as_array);
            let mut body = String::new();
            for (key, schema) in properties.into_iter().flatten() {
                let value = writer.value(schema);
                let is_required = required.is_some_and(|names| names.iter().any(|name| name == key));
                let open = text(&format!("<parameter={key}>\n"));
                // Writing to a string does not fail.
                let _ = write!(body, "({open} {value}){} ", if is_required { "" } else { "?" });
            }
            let open = writer.sequence(&["<tool_call>"], &format!("\n<function={}>\n", function.name));
            let close = writer.marks(&["</function>\n", "</tool_call>"]);
            format!("{open} {body}{}", close.trim_start())
        });
    }

    /// Value of an argument in a tag, with the end of the tag.
    fn value(&mut self, schema: &Value) -> String {
        const END: &str = r#""\n</parameter>\n""#;
        let is_text = schema.get("type").is_none_or(|kind| kind == "string") || has_reference(schema);
        match schema.get("enum").and_then(Value::as_array) {
            Some(values) if is_text && !values.is_empty() && values.iter().all(Value::is_string) => {
                let words: Vec<String> = values.iter().filter_map(Value::as_str).map(text).collect();
                format!("({}) {END}", words.join(" | "))
            }
            Some(_) | None if is_text => {
                let rule = format!("text[suffix={END}]");
                if !self.rules.contains(&rule) {
                    self.rule(&rule, "/(?s:.*)/");
                }
                "text".to_owned()
            }
            Some(_) | None => format!("{} {END}", schema_text(schema.clone())),
        }
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
        match (self.control)(mark) {
            Some(_) if is_tag => mark.to_owned(),
            Some(token) => format!("<[{}]>", token.0),
            None => text(mark),
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

/// The arguments of a call are always an object.
fn arguments(function: &Callable<'_>) -> String {
    let mut schema = function.parameters.clone();
    schema.entry("type").or_insert(Value::from("object"));
    schema_text(Value::Object(schema))
}

/// Values by a schema that was written for people and models, too: what cannot be enforced in it has no effect.
fn schema_text(schema: Value) -> String {
    json_part(schema, Keywords::BestEffort, WhiteSpace::Some)
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

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;
    use crate::text::{AddSpecials, samples};

    fn check(format: ToolFormat, limit: CallsPerTurn, control: &[&str], expected: &Expect) {
        let parameters = json!({"properties": {"a": {"type": "string"}, "n": {"type": "integer"}, "e": {"enum": ["x", "y"]}}, "required": ["a"]});
        let (parameters, none) = (parameters.as_object().unwrap(), Map::new());
        let functions = [Callable { name: "f", parameters }, Callable { name: "g", parameters: &none }];
        let token = |mark: &str| Some(TokenId(control.iter().position(|known| *known == mark)? as u32));
        let calls = Calls { format, functions: &functions, limit };
        let grammar = answer_grammar(Some(calls), None, None, &token).unwrap();
        let schema = r#","x-guidance":{"whitespace_pattern":"\\x20|\\x0A\\x20{0,16}","lenient":true}"#;
        expected.assert_eq(&grammar.replace(schema, ""));
    }

    #[test]
    fn calls_of_each_format() {
        check(
            ToolFormat::Hermes,
            CallsPerTurn::Many,
            &[],
            &expect![[r#"
            start: call ("\n" call)*
            call: call_0 | call_1
            call_0: "<tool_call>\n{\"name\": \"f\", \"arguments\": " %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "}" "\n</tool_call>"
            call_1: "<tool_call>\n{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}" "\n</tool_call>"
        "#]],
        );
        check(
            ToolFormat::Hermes,
            CallsPerTurn::One,
            &["<tool_call>", "</tool_call>"],
            &expect![[r#"
            start: call
            call: call_0 | call_1
            call_0: <tool_call> "\n{\"name\": \"f\", \"arguments\": " %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "}" "\n" </tool_call>
            call_1: <tool_call> "\n{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}" "\n" </tool_call>
        "#]],
        );
        check(
            ToolFormat::Llama3Json,
            CallsPerTurn::One,
            &["<|python_tag|>"],
            &expect![[r#"
            start: call
            call: call_0 | call_1
            call_0: "{\"name\": \"f\", \"parameters\": " %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "}"
            call_1: "{\"name\": \"g\", \"parameters\": " %json {"type":"object"} "}"
        "#]],
        );
        check(
            ToolFormat::Mistral,
            CallsPerTurn::Many,
            &["[TOOL_CALLS]", "[ARGS]"],
            &expect![[r#"
            start: (<[0]> "[" call (", " call)* "]" | named+)
            call: call_0 | call_1
            call_0: "{\"name\": \"f\", \"arguments\": " %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "}"
            call_1: "{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}"
            named: named_0 | named_1
            named_0: <[0]> "f" <[1]> %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false}
            named_1: <[0]> "g" <[1]> %json {"type":"object"}
        "#]],
        );
        check(
            ToolFormat::Granite,
            CallsPerTurn::Many,
            &["<|tool_call|>"],
            &expect![[r#"
            start: <|tool_call|> "[" call (", " call)* "]"
            call: call_0 | call_1
            call_0: "{\"name\": \"f\", \"arguments\": " %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "}"
            call_1: "{\"name\": \"g\", \"arguments\": " %json {"type":"object"} "}"
        "#]],
        );
        check(
            ToolFormat::Qwen3Coder,
            CallsPerTurn::Many,
            &[],
            &expect![[r#"
            start: call ("\n" call)*
            call: call_0 | call_1
            text[suffix="\n</parameter>\n"]: /(?s:.*)/
            call_0: "<tool_call>\n<function=f>\n" ("<parameter=a>\n" text) ("<parameter=n>\n" %json {"type":"integer"} "\n</parameter>\n")? ("<parameter=e>\n" ("x" | "y") "\n</parameter>\n")? "</function>\n</tool_call>"
            call_1: "<tool_call>\n<function=g>\n" "</function>\n</tool_call>"
        "#]],
        );
        check(
            ToolFormat::DeepseekV3,
            CallsPerTurn::One,
            &[],
            &expect![[r#"
            start: "<｜tool▁calls▁begin｜>" (call | named) "<｜tool▁calls▁end｜>"
            call: call_0 | call_1
            call_0: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>f" "\n```json\n" %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "\n```<｜tool▁call▁end｜>"
            call_1: "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g" "\n```json\n" %json {"type":"object"} "\n```<｜tool▁call▁end｜>"
            named: named_0 | named_1
            named_0: "<｜tool▁call▁begin｜>f" "<｜tool▁sep｜>" %json {"properties":{"a":{"type":"string"},"n":{"type":"integer"},"e":{"enum":["x","y"]}},"required":["a"],"type":"object","additionalProperties":false} "<｜tool▁call▁end｜>"
            named_1: "<｜tool▁call▁begin｜>g" "<｜tool▁sep｜>" %json {"type":"object"} "<｜tool▁call▁end｜>"
        "#]],
        );
    }

    #[test]
    fn thoughts_come_first() {
        let none = Map::new();
        let functions = [Callable { name: "f", parameters: &none }];
        let start = |begins: Begins, control: &dyn Fn(&str) -> Option<TokenId>| {
            let thoughts = Some((Tags::KNOWN[0], begins));
            let calls = Calls { format: ToolFormat::Llama3Json, functions: &functions, limit: CallsPerTurn::One };
            let grammar = answer_grammar(Some(calls), None, thoughts, control).unwrap();
            let kept = grammar.lines().filter(|line| !line.starts_with("call") && !line.starts_with("space"));
            kept.collect::<Vec<_>>().join("\n")
        };
        let shown = [
            start(Begins::Inside, &|_| None),
            start(Begins::Unopened, &|_| None),
            start(Begins::Inside, &|_| Some(TokenId(1))),
            start(Begins::Behind, &|_| None),
        ];
        expect![[r#"
            start: thought space? call
            thought: thought_text
            thought_text[suffix="</think>"]: /(?s:.*)/
            ---
            start: (thought space?)? call
            thought: "<think>" thought_text
            thought_text[suffix="</think>"]: /(?s:.*)/
            ---
            start: thought space? call
            thought: /(?s:.*)/ </think>
            ---
            start: call"#]]
        .assert_eq(&shown.join("\n---\n"));
    }

    /// Every grammar must compile, and let its own calls pass, token by token, over a vocabulary of bytes.
    #[test]
    fn grammars_allow_what_they_are_for() {
        let tokenizer = samples::byte_level();
        let grammars = vocabulary::Grammars::new(tokenizer.pieces()).unwrap();
        let parameters = json!({"properties": {"a": {"type": "string"}, "n": {"type": "integer"}}, "required": ["a"]});
        let functions = [Callable { name: "f", parameters: parameters.as_object().unwrap() }];
        let object = r#"{"a": "x", "n": 3}"#;
        let cases = [
            (ToolFormat::Hermes, format!("<tool_call>\n{{\"name\": \"f\", \"arguments\": {object}}}\n</tool_call>")),
            (ToolFormat::Llama3Json, format!("{{\"name\": \"f\", \"parameters\": {object}}}")),
            (ToolFormat::Granite, format!("<|tool_call|>[{{\"name\": \"f\", \"arguments\": {object}}}]")),
            (ToolFormat::Mistral, format!("[TOOL_CALLS]f[ARGS]{object}")),
            (
                ToolFormat::DeepseekV3,
                format!(
                    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{object}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
                ),
            ),
            (
                ToolFormat::Qwen3Coder,
                "<tool_call>\n<function=f>\n<parameter=a>\nx\n</parameter>\n<parameter=n>\n3\n</parameter>\n</function>\n</tool_call>"
                    .to_owned(),
            ),
        ];
        for (format, call) in cases {
            let calls = Calls { format, functions: &functions, limit: CallsPerTurn::One };
            let thoughts = Some((Tags::KNOWN[0], Begins::Inside));
            for (content, thoughts, text) in [
                (None, None, call.clone()),
                (None, thoughts, format!("hm {{ </think>\n\n{call}")),
                (Some("start: \"yes\" | \"no\""), None, call.clone()),
                (Some("start: \"yes\" | \"no\""), thoughts, "hm </think>yes".to_owned()),
            ] {
                let grammar = answer_grammar(Some(calls), content, thoughts, &|_| None).unwrap();
                let mut matcher = grammars.compile(&grammar).unwrap_or_else(|error| panic!("{error}: {grammar}"));
                for token in tokenizer.encode(&text, AddSpecials::No).unwrap() {
                    assert!(matcher.accepts(token).unwrap(), "{format:?}: {text:?}, {token:?}: {grammar}");
                    matcher.push(token).unwrap();
                }
                assert!(matcher.mask().unwrap().may_end(), "{format:?}: {text:?}: {grammar}");
            }
        }
    }
}
