//! A prompt that ends inside its last message, for the model to go on with; knows no template.
//!
//! As transformers does it: the last text is marked at its end, and the prompt is cut at the mark.

use super::message::{Content, Message};
use super::template::TemplateError;
use crate::jinja::Rendered;

/// Mark at the end of the last text. Its space shows whether the template has trimmed the text.
const MARK: &str = "CONTINUE_FINAL_MESSAGE_TAG ";

/// Renders `messages` with `render` up to the end of the last message's text.
///
/// # Errors
/// When rendering fails, or the template does not write the last text out.
pub(super) fn continued(
    messages: &[Message],
    render: impl FnOnce(&[Message]) -> Result<Rendered, TemplateError>,
) -> Result<Rendered, TemplateError> {
    let lost = |why: &str| TemplateError::Refused(format!("continue_final_message: the last message {why}"));
    let mut marked = messages.to_vec();
    let last = marked.last_mut().ok_or_else(|| lost("is missing"))?;
    if !last.calls.is_empty() {
        return Err(lost("calls tools, after which its text is over"));
    }
    let text = last_text(&mut last.content).ok_or_else(|| lost("has no text to continue"))?;
    let wanted = text.trim().to_owned();
    text.push_str(MARK);
    let rendered = render(&marked)?;
    let missing = || lost("does not appear in the prompt that the chat template makes");
    let end = rendered.text.rfind(MARK.trim_end()).filter(|_| rendered.text.contains(&wanted)).ok_or_else(missing)?;
    let is_trimmed = !rendered.text[end..].starts_with(MARK);
    let kept = if is_trimmed { rendered.text[..end].trim_end().len() } else { end };
    Ok(cut(rendered, kept))
}

fn last_text(content: &mut Content) -> Option<&mut String> {
    match content {
        Content::Text(text) => Some(text),
        Content::Parts(parts) => parts.last_mut(),
        Content::Null => None,
    }
}

fn cut(mut rendered: Rendered, end: usize) -> Rendered {
    rendered.text.truncate(end);
    rendered.given.retain(|given| given.start < end);
    if let Some(last) = rendered.given.last_mut() {
        last.end = last.end.min(end);
    }
    rendered
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, json};

    use super::*;
    use crate::text::{ChatTemplate, Effort, GenerationPrompt, Role, Strict, Tool, ToolCall};

    const CHATML: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</>\n{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}";
    const TRIMS: &str = "{% for m in messages %}<{{ m.role }}>{{ m.content | trim }}</>{% endfor %}";
    const HIDES: &str =
        "{% for m in messages %}<{{ m.role }}>{% if m.role == 'user' %}{{ m.content }}{% endif %}</>{% endfor %}";

    fn render(source: &str, last: Message) -> Result<Rendered, TemplateError> {
        let template = ChatTemplate::compile(source, BTreeMap::new()).unwrap();
        template.render(&[Message::text(Role::User, "Hi"), last], GenerationPrompt::Continue, &Map::new())
    }

    fn text(source: &str, last: &str) -> String {
        render(source, Message::text(Role::Assistant, last)).unwrap().text
    }

    /// Compared with `apply_chat_template(..., continue_final_message=True)` of transformers 5.24.0.
    #[test]
    fn the_prompt_ends_with_the_last_message() {
        assert_eq!(text(CHATML, "Sure: "), "<user>Hi</>\n<assistant>Sure: ");
        assert_eq!(text(CHATML, ""), "<user>Hi</>\n<assistant>");
        assert_eq!(text(TRIMS, "Sure: "), "<user>Hi</><assistant>Sure:");
        let parts = Content::Parts(vec!["a".to_owned(), "b".to_owned()]);
        let last = Message { content: parts, ..Message::text(Role::Assistant, "") };
        assert_eq!(render(CHATML, last).unwrap().text, "<user>Hi</>\n<assistant>a\nb");
    }

    #[test]
    fn tools_are_written_as_ever() {
        let source =
            "{% for tool in tools %}{{ tool.name }};{% endfor %}{% for m in messages %}{{ m.content }}</>{% endfor %}";
        let template = ChatTemplate::compile(source, BTreeMap::new()).unwrap();
        let described = json!({"name": "f"});
        let tool = Tool { name: "f".to_owned(), parameters: Map::new(), strict: Strict::No, described };
        let messages = [Message::text(Role::Assistant, "Sure")];
        let effort = Effort::unbounded();
        let rendered =
            template.render_within(&messages, &[tool], GenerationPrompt::Continue, &Map::new(), &effort).unwrap();
        assert_eq!(rendered.text, "f;Sure");
    }

    #[test]
    fn what_was_given_ends_with_the_prompt() {
        let rendered = render(TRIMS, Message::text(Role::Assistant, "Sure ")).unwrap();
        let given: Vec<&str> = rendered.given.iter().map(|given| &rendered.text[given.clone()]).collect();
        assert_eq!(given, ["Hi", "Sure"]);
    }

    #[test]
    fn a_message_that_the_template_hides_cannot_be_continued() {
        let refused = |source, last| match render(source, last) {
            Err(TemplateError::Refused(message)) => message,
            other => panic!("{other:?}"),
        };
        let hidden = refused(HIDES, Message::text(Role::Assistant, "Sure"));
        assert!(hidden.contains("does not appear in the prompt"), "{hidden}");
        let empty = Message { content: Content::Parts(Vec::new()), ..Message::text(Role::Assistant, "") };
        assert!(refused(CHATML, empty).contains("has no text"));
        let call = ToolCall { sent: Map::new(), written: None };
        let calls = Message { calls: vec![call], ..Message::text(Role::Assistant, "Sure") };
        assert!(refused(CHATML, calls).contains("calls tools"));
    }
}
