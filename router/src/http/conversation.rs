//! A conversation as the model sees it, and how its answer is read; knows no socket.

use std::sync::Arc;

use sched::{Failure, FailureKind};

use super::generate::{Tokenized, check_structure};
use super::room::Room;
use crate::jinja::Rendered;
use crate::model_output::{
    Arguments, Begins, CallReading, Callable, Calls, Content, Function, NextSpeaker, Reading, ReasoningForm, Tags,
    answer_grammar, arguments_grammar, unmatched_arguments,
};
use crate::openai::{ApiError, Conversation, Generation, Thoughts, ToolUse, Wanted};
use crate::text::{
    AddSpecials, GenerationPrompt, LeftOut, ModelText, Strict, TemplateError, Tool, ToolCalls, ToolChoice, Tooling,
};

/// Makes a conversation a prompt, with how its answer is read and what grammar it follows.
pub(super) fn tokenized(
    conversation: &Conversation,
    generation: &Generation,
    model: &ModelText,
    room: &Room<'_>,
) -> Result<Tokenized, ApiError> {
    let (prompt, specials) = conversation_text(conversation, model, room)?;
    let tokens = room.prompt(model, &model.chat(&prompt), specials, ("messages", generation))?;
    if tokens.is_empty() {
        return Err(ApiError::invalid("messages", "the messages make a prompt of no tokens"));
    }
    let reading = reading(conversation, model, &prompt).map(Arc::new);
    let wanted = generation.structure.as_ref();
    let structure = structure(conversation, wanted, model, reading.as_deref());
    if let Some(structure) = &structure
        && reading.as_ref().is_some_and(|reading| reading.calls.is_some())
    {
        let tool_use = &conversation.tool_use;
        check_functions(&functions(tool_use, content(tool_use, wanted)), structure, model, room)?;
    }
    Ok(Tokenized { tokens: tokens.into(), echo: String::new(), reading, structure })
}

/// Renders a conversation with the model's own template.
pub(super) fn conversation_text(
    conversation: &Conversation,
    model: &ModelText,
    room: &Room<'_>,
) -> Result<(Rendered, AddSpecials), ApiError> {
    let tools = &conversation.tool_use.tools;
    let tooling = if tools.is_empty() { Tooling::Absent } else { Tooling::Offered };
    let Some(template) = model.template_for(tooling) else {
        let message = "this model has no chat template: use /v1/completions instead";
        return Err(ApiError::invalid("messages", message));
    };
    let (messages, variables) = (&conversation.messages, &conversation.template_variables);
    if let Some(left_out) = template.leaves_out(messages, tools) {
        return Err(no_place(left_out));
    }
    if tooling == Tooling::Offered {
        can_call(&conversation.tool_use, model)?;
    }
    let prompt = template
        .render_within(messages, tools, conversation.generation_prompt, variables, room.effort)
        .map_err(|error| match error {
            TemplateError::Lack(_) => ApiError::from(Failure::new(FailureKind::Unavailable, error.to_string())),
            error => ApiError::invalid("messages", error.to_string()),
        })?;
    Ok((prompt, conversation.add_specials))
}

/// Fails if calls that the model makes would not be found, unless the operator wants it so.
fn can_call(tool_use: &ToolUse, model: &ModelText) -> Result<(), ApiError> {
    const HINT: &str = "the operator can set router.text.tool_format";
    let (field, message) = match model.tool_calls {
        ToolCalls::Unknown => ("tools", "the form in which this model writes tool calls is not known to this server"),
        ToolCalls::InText if must_call(tool_use) => {
            ("tool_choice", "tool calls of this model are not told from its text")
        }
        ToolCalls::InText | ToolCalls::Read(_) => return Ok(()),
    };
    Err(ApiError { code: Some("unsupported_value"), ..ApiError::invalid(field, format!("{field}: {message}; {HINT}")) })
}

/// Error: the model would not see a part of the conversation.
fn no_place(left_out: LeftOut) -> ApiError {
    let (field, what) = match left_out {
        LeftOut::Tools => ("tools".to_owned(), "tools"),
        LeftOut::Calls(index) => (format!("messages[{index}].tool_calls"), "tool calls"),
        LeftOut::Result(index) => (format!("messages[{index}].role"), "results of tools"),
    };
    let message = format!("{field}: the chat template of this model has no place for {what}");
    ApiError { code: Some("unsupported_value"), ..ApiError::invalid(&field, message) }
}

/// Returns how the answer to `prompt` is taken apart; `None` if all of it is content.
fn reading(conversation: &Conversation, model: &ModelText, prompt: &Rendered) -> Option<Reading> {
    let tags = match conversation.thoughts {
        Thoughts::Beside | Thoughts::Omitted => model.thought_tags,
        Thoughts::InContent => None,
    };
    let tool_use = &conversation.tool_use;
    let calls = match model.tool_calls {
        ToolCalls::Read(format) if !tool_use.tools.is_empty() => {
            let functions = tool_use.tools.iter().map(|tool| Function::new(&tool.name, &tool.parameters));
            let then = match tool_use.choice {
                // As in OpenAI's API: the client knows that there is a call.
                ToolChoice::Named(_) => NextSpeaker::User,
                ToolChoice::Auto | ToolChoice::None | ToolChoice::Required => NextSpeaker::Tools,
            };
            Some(CallReading { format, functions: functions.collect(), limit: tool_use.limit, then })
        }
        ToolCalls::Read(_) | ToolCalls::InText | ToolCalls::Unknown => None,
    };
    let reasoning = match conversation.thoughts {
        Thoughts::Omitted => ReasoningForm::Omitted,
        Thoughts::Beside | Thoughts::InContent => ReasoningForm::Beside,
    };
    let shown = tags.iter().flat_map(|_| &model.marks.thoughts).chain(calls.iter().flat_map(|_| &model.marks.calls));
    let shown = shown.copied().collect();
    (tags.is_some() || calls.is_some()).then(|| Reading {
        thoughts: tags.map(|tags| (tags, begins(conversation.generation_prompt, prompt, tags))),
        reasoning,
        calls,
        shown,
    })
}

/// Returns where the answer to `prompt` begins.
fn begins(generation_prompt: GenerationPrompt, prompt: &Rendered, tags: Tags) -> Begins {
    let last = prompt.given.last().cloned().unwrap_or_default();
    let after = prompt.text.get(last.end..).unwrap_or_default();
    match generation_prompt {
        GenerationPrompt::Continue if after.is_empty() => tags.begin_within(prompt.text.get(last).unwrap_or_default()),
        GenerationPrompt::Add | GenerationPrompt::Omit | GenerationPrompt::Continue => tags.begin_after(after),
    }
}

/// Returns the grammar of the answer: that of the calls that it must make, or that of the content that the client wants,
/// beside the calls that it may make. If the client wants any content, but a tool's arguments must follow its schema, calls
/// have a grammar and content has none. Thoughts come before all this. `None` if anything may be said.
fn structure(
    conversation: &Conversation,
    wanted: Option<&Wanted>,
    model: &ModelText,
    reading: Option<&Reading>,
) -> Option<Wanted> {
    let tool_use = &conversation.tool_use;
    let wanted = wanted.filter(|_| !must_call(tool_use));
    let content = content(tool_use, wanted);
    let functions = functions(tool_use, content);
    let calls = reading.and_then(|reading| reading.calls.as_ref()).filter(|_| !functions.is_empty());
    let calls = calls.map(|calls| Calls { format: calls.format, functions: &functions, limit: calls.limit });
    let thoughts = reading.and_then(|reading| reading.thoughts);
    if calls.is_none() && thoughts.is_none() {
        return wanted.cloned();
    }
    let control = |mark: &str| {
        let token = model.tokenizer.token_id(mark)?;
        model.tokenizer.pieces().is_special(token).then_some(token)
    };
    let grammar = answer_grammar(calls, content, thoughts, &control)?;
    Some(Wanted { field: wanted.map_or("tools", |wanted| wanted.field), grammar: grammar.into() })
}

/// What the answer may say besides calls.
fn content<'a>(tool_use: &ToolUse, wanted: Option<&'a Wanted>) -> Content<'a> {
    let is_strict = tool_use.tools.iter().any(|tool| tool.strict == Strict::Yes);
    match (&tool_use.choice, wanted.filter(|_| !must_call(tool_use))) {
        (_, Some(wanted)) => Content::Of(&wanted.grammar),
        (ToolChoice::Auto, None) if is_strict => Content::Free,
        (ToolChoice::Auto | ToolChoice::None | ToolChoice::Required | ToolChoice::Named(_), None) => Content::None,
    }
}

fn must_call(tool_use: &ToolUse) -> bool {
    matches!(tool_use.choice, ToolChoice::Required | ToolChoice::Named(_))
}

/// Functions whose calls have a grammar.
fn functions<'a>(tool_use: &'a ToolUse, content: Content<'_>) -> Vec<Callable<'a>> {
    let may_call = |tool: &&Tool| match &tool_use.choice {
        ToolChoice::Named(name) => tool.name == *name,
        ToolChoice::Required => true,
        ToolChoice::Auto => !matches!(content, Content::None),
        ToolChoice::None => false,
    };
    tool_use.tools.iter().filter(may_call).map(|tool| callable(tool, content)).collect()
}

/// Fails if nothing matches the parameters of a function, or they cannot be used; the error names the function.
fn check_functions(
    functions: &[Callable<'_>],
    structure: &Wanted,
    model: &ModelText,
    room: &Room<'_>,
) -> Result<(), ApiError> {
    for Callable { name, arguments } in functions {
        if let Some(why) = unmatched_arguments(*arguments) {
            let message = format!("tools: nothing matches the parameters of {name:?}, so it cannot be called: {why}");
            return Err(ApiError::invalid("tools", message));
        }
    }
    check_structure(model, structure, room).map_err(|error| {
        let alone = |Callable { name, arguments }: &Callable<'_>| {
            room.look().ok()?;
            let grammar = arguments_grammar(*arguments).into();
            let problem = model.grammars.check(&grammar, model.tokenizer.pieces()).err()?;
            Some(ApiError::invalid("tools", format!("tools: the parameters of {name:?} cannot be used: {problem}")))
        };
        // Where only all of them together are too much, no function is at fault.
        functions.iter().find_map(alone).unwrap_or(error)
    })
}

/// A tool as the grammar has it: where only the strict ones make it necessary, the others take any arguments.
fn callable<'a>(tool: &'a Tool, content: Content<'_>) -> Callable<'a> {
    let arguments = match (tool.strict, content) {
        (Strict::Yes, _) => Arguments::Strict(&tool.parameters),
        (Strict::No, Content::Free) => Arguments::Any,
        (Strict::No, Content::None | Content::Of(_)) => Arguments::Lenient(&tool.parameters),
    };
    Callable { name: &tool.name, arguments }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::openai::{ChatRequest, Limits};
    use crate::text::{ModelText, samples};

    const TEMPLATE: &str = "{% for m in messages %}{{ m.content }}{% for c in m.tool_calls %}<tool_call>\n{{ c.function | tojson }}\n</tool_call>{% endfor %}{% endfor %}{% for tool in tools or [] %}{{ tool.function | tojson }}{% endfor %}{% if add_generation_prompt %}<think>{% endif %}";

    fn model(test: &str) -> ModelText {
        let folder = std::env::temp_dir().join(format!("baton-conversation-{test}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let config = json!({"model_type": "llama", "vocab_size": 300, "max_position_embeddings": 64});
        for (file, text) in [
            ("tokenizer.json", samples::byte_level_json().to_string()),
            ("config.json", config.to_string()),
            ("chat_template.jinja", TEMPLATE.to_owned()),
        ] {
            std::fs::write(folder.join(file), text).unwrap();
        }
        let model = ModelText::load(&folder).unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        model
    }

    fn grammar(model: &ModelText, choice: &Value) -> Option<Arc<str>> {
        grammar_with(model, choice, &json!(false))
    }

    /// Grammar of an answer for two tools, the second of which may be strict.
    fn grammar_with(model: &ModelText, choice: &Value, strict: &Value) -> Option<Arc<str>> {
        let parameters = json!({"properties": {"a": {"type": "string"}}, "required": ["a"]});
        let tool = |name: &str, strict: &Value| json!({"type": "function", "function": {"name": name, "strict": strict, "parameters": parameters}});
        let body = json!({
            "messages": [{"role": "user", "content": "x"}],
            "tools": [tool("f", &json!(false)), tool("g", strict)], "tool_choice": choice,
        });
        let limits = Limits { n_max: 1, prompts_max: 1, stop_max: 1, stop_bytes_max: 1, vocab_size: 300 };
        let request = ChatRequest::parse(body.to_string().as_bytes(), &limits).unwrap();
        let conversation = request.conversation;
        let effort = crate::text::Effort::unbounded();
        let room = Room { context_tokens: 64, answer_bytes_max: 1, effort: &effort };
        let (prompt, _) = conversation_text(&conversation, model, &room).unwrap();
        let reading = reading(&conversation, model, &prompt).unwrap();
        Some(structure(&conversation, request.generation.structure.as_ref(), model, Some(&reading))?.grammar)
    }

    #[test]
    fn an_answer_that_must_call_has_a_grammar() {
        let model = model("must");
        assert_eq!(grammar(&model, &json!("auto")), None);
        let required = grammar(&model, &json!("required")).unwrap();
        assert!(required.starts_with("start: thought space? call (\"\\n\" call)*\n"), "{required}");
        assert!(required.contains("\\\"f\\\"") && required.contains("\\\"g\\\""), "{required}");
        let named = grammar(&model, &json!({"type": "function", "function": {"name": "g"}})).unwrap();
        assert!(named.starts_with("start: thought space? call\n") && !named.contains("\\\"f\\\""), "{named}");
    }

    #[test]
    fn a_strict_tool_gives_calls_a_grammar_and_leaves_content_free() {
        let model = model("strict");
        assert_eq!(grammar_with(&model, &json!("none"), &json!(true)), None);
        let auto = grammar_with(&model, &json!("auto"), &json!(true)).unwrap();
        assert!(
            auto.starts_with("start: thought space? (SAID_PIECE | SAID_BEGUN)* (call (\"\\n\" call)*)?\n"),
            "{auto}"
        );
        let line = |start: &str| auto.lines().find(|line| line.starts_with(start)).unwrap();
        assert!(!line("call_0").contains("properties"), "{auto}");
        assert!(line("call_1").contains("properties") && line("call_1").contains("\"lenient\":false"), "{auto}");
        let required = grammar_with(&model, &json!("required"), &json!(true)).unwrap();
        assert!(
            required.starts_with("start: thought space? call") && required.contains("\"lenient\":false"),
            "{required}"
        );
    }
}
