//! Marks that a chat template puts around a model's thoughts, found by trying it; knows no tokenizer.

use serde_json::{Map, Value as Json, json};

use super::template::{ChatTemplate, GenerationPrompt};
use crate::model_output::Tags;

/// Words that occur in no template.
const QUESTION: &str = "ZqvQuestion";
const THOUGHT: &str = "ZqvThought";
const ANSWER: &str = "ZqvAnswer";

/// Returns the marks with which `template`, whose text is `source`, opens an answer, or around which it writes or
/// drops thoughts.
pub(super) fn thought_tags(source: &str, template: &ChatTemplate) -> Option<Tags> {
    let named = Tags::KNOWN.into_iter().filter(|tags| source.contains(tags.open) || source.contains(tags.close));
    named.into_iter().find(|tags| opens(template, *tags) || writes(template, *tags) || drops(template, *tags))
}

/// Returns true if the template opens an answer with thoughts, in one of the usual settings.
fn opens(template: &ChatTemplate, tags: Tags) -> bool {
    let settings = [json!({}), json!({"enable_thinking": true, "thinking": true}), json!({"enable_thinking": false})];
    settings.iter().any(|setting| {
        let messages = [message("user", QUESTION, &[])];
        let prompt = render(template, &messages, GenerationPrompt::Add, setting);
        let opening = prompt.as_deref().and_then(|prompt| prompt.rsplit_once(QUESTION)).map(|(_, opening)| opening);
        opening.is_some_and(|opening| opening.contains(tags.open))
    })
}

/// Returns true if the template writes given thoughts between the marks.
fn writes(template: &ChatTemplate, tags: Tags) -> bool {
    let thoughts = ["reasoning_content", "reasoning", "thinking"].map(|name| (name, THOUGHT));
    let messages = [message("user", QUESTION, &[]), message("assistant", ANSWER, &thoughts)];
    let prompt = render(template, &messages, GenerationPrompt::Omit, &json!({})).unwrap_or_default();
    let between = prompt.split_once(tags.open).and_then(|(_, behind)| behind.split_once(tags.close));
    between.is_some_and(|(thought, behind)| thought.contains(THOUGHT) && behind.contains(ANSWER))
}

/// Returns true if the template leaves earlier thoughts out.
fn drops(template: &ChatTemplate, tags: Tags) -> bool {
    let said = format!("{}\n{THOUGHT}\n{}\n\n{ANSWER}", tags.open, tags.close);
    let messages = [message("user", QUESTION, &[]), message("assistant", &said, &[]), message("user", QUESTION, &[])];
    let prompt = render(template, &messages, GenerationPrompt::Omit, &json!({})).unwrap_or_default();
    prompt.contains(ANSWER) && !prompt.contains(THOUGHT)
}

fn render(template: &ChatTemplate, messages: &[Json], prompt: GenerationPrompt, setting: &Json) -> Option<String> {
    let none = Map::new();
    let rendered = template.try_json(messages, &[], prompt, setting.as_object().unwrap_or(&none));
    rendered.ok().map(|rendered| rendered.text)
}

fn message(role: &str, content: &str, more: &[(&str, &str)]) -> Json {
    let mut message = json!({"role": role, "content": content});
    for (name, text) in more {
        message[*name] = json!(text);
    }
    message
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn found(source: &str) -> Option<Tags> {
        ChatTemplate::compile(source, BTreeMap::new()).unwrap().thought_tags()
    }

    #[test]
    fn marks_are_found_where_they_mean_something() {
        let think = Some(Tags::KNOWN[0]);
        let turns = "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}{% endfor %}";
        assert_eq!(
            found(&format!("{turns}{{% if add_generation_prompt %}}<|assistant|><think>\n{{% endif %}}")),
            think
        );
        let switched = "{% if add_generation_prompt %}<|assistant|>{% if enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}";
        assert_eq!(found(&format!("{turns}{switched}")), think);
        let written = "{% for m in messages %}{% if m.reasoning_content %}[THINK]{{ m.reasoning_content }}[/THINK]{% endif %}{{ m.content }}{% endfor %}";
        assert_eq!(found(written), Some(Tags::KNOWN[1]));
        assert_eq!(found("{% for m in messages %}{{ m.content.split('</think>')[-1] }}{% endfor %}"), think);
        assert_eq!(found(turns), None);
        assert_eq!(found(&format!("Never write <think> or </think>.{turns}")), None);
    }
}
