//! A model's chat template: messages in, prompt text out; knows no tokenizer and no HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use minijinja::syntax::SyntaxConfig;
use minijinja::value::Serde;
use minijinja::{Environment, ErrorKind, Value};
use minijinja_contrib::pycompat::unknown_method_callback;
use thiserror::Error;

use super::{calendar, tojson};

/// A compiled chat template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    environment: Arc<Environment<'static>>,
    /// `bos_token`, `eos_token` and the like, as templates name them.
    special_tokens: Arc<BTreeMap<String, String>>,
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// What is said.
    pub content: String,
    /// The speaker's name, where a client gives one.
    pub name: Option<String>,
}

/// Who speaks. A client's `developer` is the template's `system`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The word that templates compare with.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// Whether the prompt ends with the words that open the model's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// It does.
    Add,
    /// It does not.
    Omit,
}

/// Why a conversation could not be made into a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template itself refuses the conversation, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The template cannot be compiled or fails on this conversation.
    #[error("the chat template failed: {0}")]
    Failed(String),
    /// The template takes too long over this conversation.
    #[error("the chat template took more than {STEPS_MAX} steps for this conversation")]
    Endless,
}

/// Instructions of the template engine per prompt. A turn costs about a hundred, and a million take some tens of
/// milliseconds.
const STEPS_MAX: u64 = 10_000_000;

/// The variables that the server itself gives to templates; clients cannot set them.
pub(crate) const SERVER_VARIABLES: [&str; 9] = [
    "messages",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

const NAME: &str = "chat_template";

impl ChatTemplate {
    /// Compiles `source` with the environment that the reference implementation gives templates: blocks trimmed,
    /// Python's methods on strings, lists and dictionaries, `raise_exception`, `strftime_now` and Python's `tojson`.
    ///
    /// # Errors
    /// When the template is not valid.
    pub fn compile(source: String, special_tokens: BTreeMap<String, String>) -> Result<ChatTemplate, TemplateError> {
        let mut environment = Environment::new();
        // Errors name the variable at fault; without this only debug builds would.
        environment.set_debug(true);
        environment.set_fuel(Some(STEPS_MAX));
        environment.set_syntax(syntax()?);
        environment.set_unknown_method_callback(unknown_method_callback);
        environment.add_filter("tojson", tojson::tojson);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_template_owned(NAME, source).map_err(|error| TemplateError::of(&error))?;
        Ok(ChatTemplate { environment: Arc::new(environment), special_tokens: Arc::new(special_tokens) })
    }

    /// The prompt for `messages`; `extra` are further variables that a client sets (`chat_template_kwargs`).
    ///
    /// # Errors
    /// When the template refuses the conversation or fails on it.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
        extra: &serde_json::Map<String, serde_json::Value>,
    ) -> Result<String, TemplateError> {
        let mut context: BTreeMap<&str, Value> = BTreeMap::new();
        for (name, token) in self.special_tokens.iter() {
            context.insert(name, Value::from(token));
        }
        // Templates test these against none rather than for being defined.
        context.insert("tools", Value::from(()));
        context.insert("documents", Value::from(()));
        for (name, value) in extra {
            context.insert(name, Value::from(Serde(value)));
        }
        context.insert("messages", messages.iter().map(message_value).collect());
        context.insert("add_generation_prompt", Value::from(generation_prompt == GenerationPrompt::Add));
        let template = self.environment.get_template(NAME).map_err(|error| TemplateError::of(&error))?;
        template.render(context).map_err(|error| TemplateError::of(&error))
    }
}

fn syntax() -> Result<SyntaxConfig, TemplateError> {
    SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build().map_err(|error| TemplateError::of(&error))
}

fn message_value(message: &Message) -> Value {
    let mut fields = serde_json::Map::new();
    fields.insert("role".to_owned(), message.role.name().into());
    fields.insert("content".to_owned(), message.content.as_str().into());
    if let Some(name) = &message.name {
        fields.insert("name".to_owned(), name.as_str().into());
    }
    Value::from(Serde(fields))
}

/// What `raise_exception` was called with, carried inside the engine's error.
#[derive(Debug, Error)]
#[error("{0}")]
struct Raised(String);

#[expect(clippy::needless_pass_by_value, reason = "the signature that the template engine asks for")]
fn raise_exception(message: String) -> Result<Value, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception").with_source(Raised(message.clone())))
}

/// The current time in UTC; the reference implementation uses the host's local time.
#[expect(clippy::needless_pass_by_value, reason = "the signature that the template engine asks for")]
fn strftime_now(format: String) -> Result<String, minijinja::Error> {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    calendar::strftime(&format, seconds).map_err(|directive| {
        let detail = format!("strftime_now does not know the directive %{directive}");
        minijinja::Error::new(ErrorKind::InvalidOperation, detail)
    })
}

impl TemplateError {
    fn of(error: &minijinja::Error) -> TemplateError {
        let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
        while let Some(error) = cause {
            if let Some(Raised(message)) = error.downcast_ref() {
                return TemplateError::Refused(message.clone());
            }
            let engine = error.downcast_ref::<minijinja::Error>();
            if engine.is_some_and(|error| error.kind() == ErrorKind::OutOfFuel) {
                return TemplateError::Endless;
            }
            cause = error.source();
        }
        TemplateError::Failed(error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn message(role: Role, content: &str) -> Message {
        Message { role, content: content.to_owned(), name: None }
    }

    fn conversation() -> Vec<Message> {
        vec![
            message(Role::System, "Be brief."),
            message(Role::User, "Hi"),
            message(Role::Assistant, " Hello! "),
            message(Role::User, "What's <1 & 2>?"),
        ]
    }

    fn render(source: &str, messages: &[Message]) -> Result<String, TemplateError> {
        let tokens = [("bos_token", "<s>"), ("eos_token", "</s>")];
        let tokens = tokens.into_iter().map(|(name, token)| (name.to_owned(), token.to_owned())).collect();
        ChatTemplate::compile(source.to_owned(), tokens)?.render(
            messages,
            GenerationPrompt::Add,
            &serde_json::Map::new(),
        )
    }

    fn check(source: &str, messages: &[Message], expected: &Expect) {
        let rendered = match render(source, messages) {
            Ok(prompt) => prompt,
            Err(error) => format!("error: {error}"),
        };
        expected.assert_eq(&rendered);
    }

    const LLAMA_2: &str = "{% if messages[0]['role'] == 'system' %}{% set loop_messages = messages[1:] %}{% set system_message = messages[0]['content'] %}{% else %}{% set loop_messages = messages %}{% set system_message = false %}{% endif %}{% for message in loop_messages %}{% if (message['role'] == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate user/assistant/user/assistant/...') }}{% endif %}{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + '\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}{% endfor %}";

    #[test]
    fn llama_2_style() {
        check(
            LLAMA_2,
            &conversation(),
            &expect![[r#"
                <s>[INST] <<SYS>>
                Be brief.
                <</SYS>>

                Hi [/INST] Hello! </s><s>[INST] What's <1 & 2>? [/INST]"#]],
        );
    }

    #[test]
    fn a_template_refuses_in_its_own_words() {
        let twice = [message(Role::User, "a"), message(Role::User, "b")];
        check(LLAMA_2, &twice, &expect!["error: Conversation roles must alternate user/assistant/user/assistant/..."]);
        assert!(matches!(render(LLAMA_2, &twice), Err(TemplateError::Refused(_))));
    }

    #[test]
    fn llama_3_style() {
        let source = "{{- bos_token }}\n{%- for message in messages %}\n    {%- set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}\n    {{- content }}\n{%- endfor %}\n{%- if add_generation_prompt %}\n    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}\n{%- endif %}\n";
        check(
            source,
            &conversation(),
            &expect![[r#"
                <s><|start_header_id|>system<|end_header_id|>

                Be brief.<|eot_id|><|start_header_id|>user<|end_header_id|>

                Hi<|eot_id|><|start_header_id|>assistant<|end_header_id|>

                Hello!<|eot_id|><|start_header_id|>user<|end_header_id|>

                What's <1 & 2>?<|eot_id|><|start_header_id|>assistant<|end_header_id|>

            "#]],
        );
    }

    #[test]
    fn mistral_style_with_namespace() {
        let source = r#"{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- endif %}
{%- endfor %}
"#;
        check(
            source,
            &conversation(),
            &expect![[r#"
                <s>[INST] Hi[/INST] Hello!</s>[INST] Be brief.

                What's <1 & 2>?[/INST]"#]],
        );
    }

    #[test]
    fn qwen_style() {
        let source = r#"{%- if tools %}
    {{- '<|im_start|>system\n# Tools\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
    {%- endif %}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set content = message.content.split('</think>')[-1].lstrip('\n') %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\n\n</think>\n\n' }}
    {%- endif %}
{%- endif %}"#;
        let mut messages = conversation();
        messages[2].content = "<think>\nhm\n</think>\n\nHello!".to_owned();
        check(
            source,
            &messages,
            &expect![[r#"
                <|im_start|>system
                Be brief.<|im_end|>
                <|im_start|>user
                Hi<|im_end|>
                <|im_start|>assistant
                Hello!<|im_end|>
                <|im_start|>user
                What's <1 & 2>?<|im_end|>
                <|im_start|>assistant
            "#]],
        );

        let template = ChatTemplate::compile(source.to_owned(), BTreeMap::new()).unwrap();
        let extra = serde_json::json!({"enable_thinking": false});
        let prompt = template.render(&messages, GenerationPrompt::Add, extra.as_object().unwrap()).unwrap();
        assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{prompt}");
        let prompt = template.render(&messages, GenerationPrompt::Omit, &serde_json::Map::new()).unwrap();
        assert!(prompt.ends_with("What's <1 & 2>?<|im_end|>\n"), "{prompt}");
    }

    #[test]
    fn tojson_is_pythons() {
        let mut messages = conversation();
        messages.truncate(1);
        messages[0].content = "<a> & 'é'".to_owned();
        check("{{ messages | tojson }}", &messages, &expect![[r#"[{"role": "system", "content": "<a> & 'é'"}]"#]]);
        check(
            "{{ messages[0] | tojson(indent=2) }}",
            &messages,
            &expect![[r#"
                {
                  "role": "system",
                  "content": "<a> & 'é'"
                }"#]],
        );
    }

    #[test]
    fn broken_templates_are_failures() {
        check(
            "{% for m in messages %}",
            &[],
            &expect![
                "error: the chat template failed: syntax error: unexpected end of input, expected end of block (in chat_template:1)"
            ],
        );
        check(
            "{{ strftime_now('%Q') }}",
            &[],
            &expect![
                "error: the chat template failed: invalid operation: strftime_now does not know the directive %Q (in chat_template:1)"
            ],
        );
        check(
            "{{ messages[0].content.upper() }}",
            &[],
            &expect![
                "error: the chat template failed: undefined value: `messages[0]` is undefined (in chat_template:1)"
            ],
        );
    }

    #[test]
    fn a_template_does_not_loop_for_ever() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let endless = "the chat template took more than 10000000 steps for this conversation";
        assert_eq!(render(source, &[]).unwrap_err().to_string(), endless);
        let in_macro = format!("{{% macro spin() %}}{source}{{% endmacro %}}{{{{ spin() }}}}");
        assert_eq!(render(&in_macro, &[]), Err(TemplateError::Endless));
    }

    #[test]
    fn a_long_conversation_is_within_the_steps() {
        let turn = |index: usize| message(if index.is_multiple_of(2) { Role::User } else { Role::Assistant }, "x");
        let messages: Vec<Message> = (0..20_000).map(turn).collect();
        assert!(render(LLAMA_2, &messages).is_ok());
    }

    #[test]
    fn dates_render() {
        let date = render("{{ strftime_now('%d %b %Y') }}", &[]).unwrap();
        assert_eq!(date.len(), "01 Jan 2025".len());
    }
}
