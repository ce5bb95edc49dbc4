//! Conversations that a chat template understands, found by trying it; knows no tokenizer.
//!
//! Templates differ in the content that they take (a string, or a list of parts) and in the roles that they know. The
//! source does not show this through macros, filters and variables, so the template renders small conversations and the
//! output decides. `tool_dialect` does the same for tools.

use serde_json::{Map, Value as Json, json};

use super::message::{Content, Message, Role};
use super::template::{ChatTemplate, GenerationPrompt};
use super::tool_dialect::ToolDialect;
use crate::jinja::{Origin, Value};

/// Roles and forms of content that a template understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    system: Shape,
    user: Shape,
    assistant: Shape,
    /// `None` if the template does not know the role `developer`.
    developer: Option<Shape>,
    pub(super) tools: ToolDialect,
}

/// Forms of content that a template writes out in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// Strings only; parts are joined.
    Text,
    /// Strings, and lists of parts.
    Both,
    /// Lists of parts only; a string becomes the only part.
    Parts,
}

/// Words that occur in no template.
const FIRST: &str = "ZqvFirstWord";
const SECOND: &str = "ZqvSecondWord";

impl Default for Dialect {
    fn default() -> Dialect {
        let text = Shape::Text;
        Dialect { system: text, user: text, assistant: text, developer: None, tools: ToolDialect::default() }
    }
}

impl Dialect {
    /// Tries `template`, whose text is `source`.
    pub(super) fn probe(source: &str, template: &ChatTemplate) -> Dialect {
        // A template that prints any role, or none, does not know `developer`; so its source must name the role.
        let knows_developer = source.contains("developer") && writes(template, "developer", &json!(FIRST), &[FIRST]);
        Dialect {
            system: Shape::probe(template, "system"),
            user: Shape::probe(template, "user"),
            assistant: Shape::probe(template, "assistant"),
            developer: knows_developer.then(|| Shape::probe(template, "developer")),
            tools: ToolDialect::probe(source, template),
        }
    }

    /// Returns the message in the form that the template understands.
    pub(super) fn value(self, message: &Message) -> Value {
        let (role, shape) = match (message.role, self.developer) {
            (Role::Developer, Some(shape)) => (Role::Developer, shape),
            (Role::Developer | Role::System, _) => (Role::System, self.system),
            (Role::User, _) => (Role::User, self.user),
            (Role::Assistant, _) => (Role::Assistant, self.assistant),
            (Role::Tool, _) => (Role::Tool, self.tools.results.unwrap_or(Shape::Text)),
        };
        let given = |text: &str| Value::of_json(&Json::String(text.to_owned()), Origin::Given);
        let content = match &message.content {
            Content::Null => self.tools.null(),
            said @ (Content::Text(_) | Content::Parts(_)) => content(said, shape),
        };
        let mut fields = vec![("role", Value::own(role.name())), ("content", content)];
        fields.extend(message.name.iter().map(|name| ("name", given(name))));
        // As in transformers, thoughts have the name that the template reads, whatever the client calls them.
        if let Some(reasoning) = message.reasoning.as_ref().or(message.thinking.as_ref()) {
            fields.extend(["reasoning_content", "reasoning"].map(|name| (name, given(reasoning))));
            fields.push(("thinking", given(message.thinking.as_ref().unwrap_or(reasoning))));
        }
        self.tools.add_to(message, &mut fields);
        Value::object(fields)
    }
}

fn content(content: &Content, shape: Shape) -> Value {
    let given = |text: &str| Value::of_json(&Json::String(text.to_owned()), Origin::Given);
    let part = |text: &String| Value::object([("type", Value::own("text")), ("text", given(text))]);
    match (content, shape) {
        (Content::Text(text), Shape::Text | Shape::Both) => given(text),
        (Content::Text(text), Shape::Parts) => Value::list([part(text)]),
        (Content::Parts(parts), Shape::Both | Shape::Parts) => Value::list(parts.iter().map(part)),
        // Put each part on a line of its own.
        (Content::Parts(parts), Shape::Text) => given(&parts.join("\n")),
        (Content::Null, _) => Value::None,
    }
}

impl Shape {
    fn probe(template: &ChatTemplate, role: &str) -> Shape {
        // A template that writes neither form gets a text, and says itself what it lacks.
        Shape::find(|content, words| writes(template, role, content, words)).unwrap_or(Shape::Text)
    }

    /// Tries a text and a list of parts; `writes` tells whether the template writes out the words of such a content.
    pub(super) fn find(writes: impl Fn(&Json, &[&str]) -> bool) -> Option<Shape> {
        let parts = json!([{"type": "text", "text": FIRST}, {"type": "text", "text": SECOND}]);
        let takes_text = writes(&json!(FIRST), &[FIRST]);
        match (writes(&parts, &[FIRST, SECOND]), takes_text) {
            (false, false) => None,
            (false, true) => Some(Shape::Text),
            (true, true) => Some(Shape::Both),
            (true, false) => Some(Shape::Parts),
        }
    }

    /// Returns true if the prompt has the words without the list around them.
    pub(super) fn is_written(prompt: &str, words: &[&str]) -> bool {
        // A list printed as a whole shows its quotes.
        let quoted = [r#"'text': '"#, r#""text": ""#, r#""text":""#].iter().any(|mark| prompt.contains(mark));
        words.iter().all(|word| prompt.contains(word)) && !quoted
    }
}

/// Returns true if the template writes out the texts of `content` without the list around them.
fn writes(template: &ChatTemplate, role: &str, content: &Json, words: &[&str]) -> bool {
    let prompt = conversation(role, content).into_iter().find_map(|messages| {
        let rendered = template.try_json(&messages, &[], GenerationPrompt::Omit, &Map::new());
        rendered.ok().map(|rendered| rendered.text)
    });
    prompt.is_some_and(|prompt| Shape::is_written(&prompt, words))
}

/// Conversations that contain a message of `role`; several, as templates refuse some orders.
fn conversation(role: &str, content: &Json) -> Vec<Vec<Json>> {
    let message = |role: &str, content: &Json| json!({"role": role, "content": content});
    let (user, assistant) = (message("user", &json!("a")), message("assistant", &json!("b")));
    let tried = message(role, content);
    match role {
        "user" => vec![vec![tried]],
        "assistant" => vec![vec![user.clone(), tried.clone(), user.clone()], vec![user, tried]],
        _ => vec![vec![tried.clone(), user.clone()], vec![tried, user, assistant]],
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn render(source: &str, messages: &[Message]) -> String {
        let template = ChatTemplate::compile(source, BTreeMap::new()).unwrap();
        template.render(messages, GenerationPrompt::Add, &Map::new()).unwrap().text
    }

    fn parts(role: Role, texts: &[&str]) -> Message {
        let parts = texts.iter().map(|text| (*text).to_owned()).collect();
        Message { content: Content::Parts(parts), ..Message::text(role, "") }
    }

    #[test]
    fn templates_that_walk_parts_get_them() {
        let walks = "{%- macro text(content) -%}{%- if content is string -%}{{ content }}{%- else -%}\
                     {%- for part in content -%}{%- if part.type == 'text' -%}({{ part.text }}){%- endif -%}\
                     {%- endfor -%}{%- endif -%}{%- endmacro -%}\
                     {% for m in messages %}{{ m.role }}:{{ text(m.content) }};{% endfor %}";
        assert_eq!(render(walks, &[parts(Role::User, &["a", "b"])]), "user:(a)(b);");
        assert_eq!(render(walks, &[Message::text(Role::User, "a")]), "user:a;");
    }

    #[test]
    fn templates_that_print_content_get_one_text() {
        let prints = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
        assert_eq!(render(prints, &[parts(Role::User, &["a", "b"])]), "user:a\nb;");
        let json = "{% for m in messages %}{{ m.content | tojson }};{% endfor %}";
        assert_eq!(render(json, &[parts(Role::User, &["a", "b"])]), "\"a\\nb\";");
        let first = "{% for m in messages %}{{ m.content if m.content is string else m.content[0].text }};{% endfor %}";
        assert_eq!(render(first, &[parts(Role::User, &["a", "b"])]), "a\nb;");
    }

    #[test]
    fn templates_for_parts_only_get_a_text_as_the_only_part() {
        let only = "{% for m in messages %}{% for part in m['content'] %}{{ part['text'] }}{% endfor %};{% endfor %}";
        assert_eq!(render(only, &[Message::text(Role::User, "a")]), "a;");
    }

    #[test]
    fn each_role_is_tried_on_its_own() {
        let users = "{% for m in messages %}{% if m.role == 'user' and m.content is not string %}\
                     {% for part in m.content %}[{{ part.text }}]{% endfor %}{% else %}{{ m.content }}{% endif %};{% endfor %}";
        let messages = [parts(Role::System, &["a", "b"]), parts(Role::User, &["c", "d"])];
        assert_eq!(render(users, &messages), "a\nb;[c][d];");
    }

    #[test]
    fn developer_is_passed_on_where_it_is_known() {
        let developer = [Message::text(Role::Developer, "a"), Message::text(Role::User, "b")];
        let any = "{% for m in messages %}{{ m.role }}:{{ m.content }};{% endfor %}";
        assert_eq!(render(any, &developer), "system:a;user:b;");
        let knows = "{% for m in messages %}{% if m.role in ['developer', 'user'] %}{{ m.role }}:{{ m.content }};\
                     {% endif %}{% endfor %}";
        assert_eq!(render(knows, &developer), "developer:a;user:b;");
        let refuses = "{% for m in messages %}{% if m.role == 'developer' %}{{ raise_exception('no developer') }}\
                       {% endif %}{{ m.role }}:{{ m.content }};{% endfor %}";
        assert_eq!(render(refuses, &developer), "system:a;user:b;");
    }

    #[test]
    fn thoughts_are_given_under_the_names_that_templates_have() {
        let thought = Message { reasoning: Some("hm".to_owned()), ..Message::text(Role::Assistant, "a") };
        let source = "{% for m in messages %}{{ m.reasoning_content }}/{{ m.reasoning }}/{{ m.thinking }};{% endfor %}";
        assert_eq!(render(source, std::slice::from_ref(&thought)), "hm/hm/hm;");
        let thinking = Some("so".to_owned());
        assert_eq!(render(source, &[Message { thinking: thinking.clone(), ..thought }]), "hm/hm/so;");
        assert_eq!(render(source, &[Message { thinking, ..Message::text(Role::Assistant, "a") }]), "so/so/so;");
        let none = "{% for m in messages %}{{ 'reasoning_content' in m }}{% endfor %}";
        assert_eq!(render(none, &[Message::text(Role::Assistant, "a")]), "False");
    }
}
