//! Conversations that a chat template understands, found by trying it; knows no tokenizer.
//!
//! Templates differ in the content that they take (a string, or a list of parts) and in the roles that they know. The
//! source does not show this through macros, filters and variables, so the template renders small conversations and the
//! output decides.

use serde_json::{Value as Json, json};

use super::message::{Content, Message, Role};
use super::template::ChatTemplate;
use crate::jinja::{Origin, Value};

/// Roles and forms of content that a template understands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Dialect {
    system: Shape,
    user: Shape,
    assistant: Shape,
    /// `None` if the template does not know the role `developer`.
    developer: Option<Shape>,
}

/// Forms of content that a template writes out in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
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
        Dialect { system: Shape::Text, user: Shape::Text, assistant: Shape::Text, developer: None }
    }
}

impl Dialect {
    /// Tries `template`, whose text is `source`.
    pub(super) fn probe(source: &str, template: &ChatTemplate) -> Dialect {
        // A template that prints any role, or none, does not know `developer`; so its source must name the role.
        let knows_developer = source.contains("developer") && writes(template, "developer", &json!(FIRST));
        Dialect {
            system: Shape::probe(template, "system"),
            user: Shape::probe(template, "user"),
            assistant: Shape::probe(template, "assistant"),
            developer: knows_developer.then(|| Shape::probe(template, "developer")),
        }
    }

    /// Returns the message in the form that the template understands.
    pub(super) fn value(self, message: &Message) -> Value {
        let (role, shape) = match (message.role, self.developer) {
            (Role::Developer, Some(shape)) => (Role::Developer, shape),
            (Role::Developer | Role::System, _) => (Role::System, self.system),
            (Role::User, _) => (Role::User, self.user),
            (Role::Assistant, _) => (Role::Assistant, self.assistant),
        };
        let given = |text: &str| Value::of_json(&Json::String(text.to_owned()), Origin::Given);
        let mut fields = vec![("role", Value::own(role.name())), ("content", content(&message.content, shape))];
        fields.extend(message.name.iter().map(|name| ("name", given(name))));
        if let Some(reasoning) = &message.reasoning {
            fields.extend(["reasoning_content", "reasoning"].map(|name| (name, given(reasoning))));
        }
        fields.extend(message.thinking.iter().map(|thinking| ("thinking", given(thinking))));
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
    }
}

impl Shape {
    fn probe(template: &ChatTemplate, role: &str) -> Shape {
        let parts = json!([{"type": "text", "text": FIRST}, {"type": "text", "text": SECOND}]);
        let takes_text = writes(template, role, &json!(FIRST));
        match (writes(template, role, &parts), takes_text) {
            (false, _) => Shape::Text,
            (true, true) => Shape::Both,
            (true, false) => Shape::Parts,
        }
    }
}

/// Returns true if the template writes out the texts of `content` without the list around them.
fn writes(template: &ChatTemplate, role: &str, content: &Json) -> bool {
    let prompt = conversation(role, content).into_iter().find_map(|messages| {
        let rendered = template.try_out(&messages);
        rendered.ok().map(|rendered| rendered.text)
    });
    let wanted: &[&str] = if content.is_array() { &[FIRST, SECOND] } else { &[FIRST] };
    // A list printed as a whole shows its quotes.
    let quoted =
        |prompt: &str| [r#"'text': '"#, r#""text": ""#, r#""text":""#].iter().any(|mark| prompt.contains(mark));
    prompt.is_some_and(|prompt| wanted.iter().all(|word| prompt.contains(word)) && !quoted(&prompt))
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

    use serde_json::Map;

    use super::*;
    use crate::text::GenerationPrompt;

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
        let source = "{% for m in messages %}{{ m.reasoning_content }}/{{ m.reasoning }}/{{ m.content }};{% endfor %}";
        assert_eq!(render(source, &[thought]), "hm/hm/a;");
        let none = "{% for m in messages %}{{ 'reasoning_content' in m }}{% endfor %}";
        assert_eq!(render(none, &[Message::text(Role::Assistant, "a")]), "False");
    }
}
