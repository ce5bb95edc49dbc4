//! A model's chat template: messages in, prompt text out; knows no tokenizer and no HTTP.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use serde_json::{Map, Value as Json};
use thiserror::Error;

use super::dialect::Dialect;
use super::effort::{Effort, Stopped};
use super::message::Message;
use crate::jinja::{self, Origin, Rendered, Template, Value};

/// A compiled chat template. Cheap to clone.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    template: Arc<Template>,
    /// `bos_token`, `eos_token` and the like, as templates name them.
    special_tokens: Arc<BTreeMap<String, String>>,
    dialect: Dialect,
}

/// Whether the prompt ends with the words that open the model's turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GenerationPrompt {
    /// The prompt ends with them.
    Add,
    /// The prompt ends before them.
    Omit,
}

/// Reason why a conversation could not be made into a prompt.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum TemplateError {
    /// The template refuses the conversation, in its own words.
    #[error("{0}")]
    Refused(String),
    /// The template cannot be compiled or fails on this conversation.
    #[error("the chat template failed: {0}")]
    Failed(jinja::Error),
    /// The template takes more steps, memory or depth for this conversation than a prompt may.
    #[error("the chat template takes too much over this conversation: {0}")]
    Unbounded(jinja::Error),
    /// The machine lacks a resource that the template needs; the conversation is fine.
    #[error("the chat template could not be run: {0}")]
    Lack(jinja::Error),
    /// The work on the request, of which rendering is a part, was stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Steps of the template engine per prompt. A turn costs some hundreds; a template that looks back over all turns at
/// each turn takes 10 to 20 million for 2,000 turns (Gemma 4).
const STEPS_MAX: u64 = 40_000_000;

/// Steps per conversation that a template is tried on at start.
const STEPS_TRIAL_MAX: u64 = 200_000;

/// Variables that the server gives to templates; clients cannot set them.
pub(crate) const SERVER_VARIABLES: [&str; 11] = [
    "messages",
    "tools",
    "documents",
    "add_generation_prompt",
    "bos_token",
    "eos_token",
    "unk_token",
    "sep_token",
    "pad_token",
    "cls_token",
    "mask_token",
];

impl ChatTemplate {
    /// Compiles `source` as transformers does, and finds the conversations that it understands.
    ///
    /// # Errors
    /// When the template is not valid.
    pub fn compile(source: &str, special_tokens: BTreeMap<String, String>) -> Result<ChatTemplate, TemplateError> {
        let template = Template::compile(source).map_err(TemplateError::of)?;
        let mut compiled = ChatTemplate {
            template: Arc::new(template),
            special_tokens: Arc::new(special_tokens),
            dialect: Dialect::default(),
        };
        compiled.dialect = Dialect::probe(source, &compiled);
        Ok(compiled)
    }

    /// Renders the prompt for `messages`; `extra` are variables that a client sets (`chat_template_kwargs`).
    ///
    /// # Errors
    /// When the template refuses the conversation or fails on it.
    pub fn render(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
    ) -> Result<Rendered, TemplateError> {
        self.render_within(messages, generation_prompt, extra, &Effort::unbounded())
    }

    /// Renders as `render` does, within the bounds of `effort`.
    ///
    /// # Errors
    /// As `render`, and when a bound is reached.
    pub fn render_within(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
        effort: &Effort,
    ) -> Result<Rendered, TemplateError> {
        effort.look()?;
        let values = || messages.iter().map(|message| self.dialect.value(message)).collect();
        let rendered = self.run(values, generation_prompt, extra, STEPS_MAX, effort);
        effort.look()?;
        rendered
    }

    /// Renders a few short messages of any kind, to learn what the template understands.
    pub(super) fn try_out(&self, messages: &[Json]) -> Result<Rendered, TemplateError> {
        let values = || messages.iter().map(|message| Value::of_json(message, Origin::Given)).collect();
        self.run(values, GenerationPrompt::Omit, &Map::new(), STEPS_TRIAL_MAX, &Effort::unbounded())
    }

    /// Renders a short conversation of our own in few steps.
    pub(super) fn try_prompt(
        &self,
        messages: &[Message],
        generation_prompt: GenerationPrompt,
    ) -> Result<Rendered, TemplateError> {
        let values = || messages.iter().map(|message| self.dialect.value(message)).collect();
        self.run(values, generation_prompt, &Map::new(), STEPS_TRIAL_MAX, &Effort::unbounded())
    }

    fn run(
        &self,
        messages: impl FnOnce() -> Vec<Value> + Send,
        generation_prompt: GenerationPrompt,
        extra: &Map<String, Json>,
        steps_max: u64,
        effort: &Effort,
    ) -> Result<Rendered, TemplateError> {
        let variables = || {
            let mut variables: Vec<(Arc<str>, Value)> = Vec::new();
            for (name, token) in self.special_tokens.iter() {
                variables.push((Arc::from(name.as_str()), Value::own(token.as_str())));
            }
            // Templates compare these with none instead of testing whether they are defined.
            variables.push((Arc::from("tools"), Value::None));
            variables.push((Arc::from("documents"), Value::None));
            for (name, value) in extra {
                variables.push((Arc::from(name.as_str()), Value::of_json(value, Origin::Given)));
            }
            variables.push((Arc::from("messages"), Value::list(messages())));
            let add = generation_prompt == GenerationPrompt::Add;
            variables.push((Arc::from("add_generation_prompt"), Value::Bool(add)));
            variables
        };
        // UTC; the reference implementation uses the host's local time.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let share = effort.share();
        let watch = || -> jinja::Watch {
            let part = share.begin();
            Box::new(move || part.look().is_ok())
        };
        self.template.render_watched(variables, now, steps_max, watch).map_err(TemplateError::of)
    }
}

impl TemplateError {
    fn of(error: jinja::Error) -> TemplateError {
        match error {
            jinja::Error::Raised(message) => TemplateError::Refused(message),
            jinja::Error::Syntax { .. } | jinja::Error::Fault { .. } => TemplateError::Failed(error),
            jinja::Error::Endless(_) | jinja::Error::Large(_) | jinja::Error::Deep(_) | jinja::Error::Stopped => {
                TemplateError::Unbounded(error)
            }
            jinja::Error::NoThread(_) => TemplateError::Lack(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use std::time::Duration;

    use super::*;
    use crate::text::effort::Wanted;
    use crate::text::{Content, Role};

    fn message(role: Role, content: &str) -> Message {
        Message::text(role, content)
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
        let template = ChatTemplate::compile(source, tokens)?;
        template.render(messages, GenerationPrompt::Add, &Map::new()).map(|rendered| rendered.text)
    }

    #[test]
    fn a_run_stays_within_the_bounds_of_the_work_that_it_is_a_part_of() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        let template = ChatTemplate::compile(source, BTreeMap::new()).unwrap();
        let run =
            |effort: &Effort| template.render_within(&[], GenerationPrompt::Add, &Map::new(), effort).unwrap_err();
        let short = Effort::begin(Wanted::default(), Duration::from_millis(20), 10, 10);
        assert_eq!(run(&short), TemplateError::Stopped(Stopped::TooLong { ms: 20 }));
        assert!(short.look().is_err(), "nothing is left for what comes after");
        let wanted = Wanted::default();
        let (waiting, effort) = (wanted.waiting(), Effort::begin(wanted, Duration::MAX, 10, 10));
        let leaves = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_millis(50));
            drop(waiting);
        });
        assert_eq!(run(&effort), TemplateError::Stopped(Stopped::Unwanted));
        leaves.join().unwrap();
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
        messages[2].content = Content::Text("<think>\nhm\n</think>\n\nHello!".to_owned());
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

        let template = ChatTemplate::compile(source, BTreeMap::new()).unwrap();
        let extra = serde_json::json!({"enable_thinking": false});
        let prompt = template.render(&messages, GenerationPrompt::Add, extra.as_object().unwrap()).unwrap().text;
        assert!(prompt.ends_with("<|im_start|>assistant\n<think>\n\n</think>\n\n"), "{prompt}");
        let prompt = template.render(&messages, GenerationPrompt::Omit, &Map::new()).unwrap().text;
        assert!(prompt.ends_with("What's <1 & 2>?<|im_end|>\n"), "{prompt}");
    }

    #[test]
    fn tojson_is_pythons() {
        let mut messages = conversation();
        messages.truncate(1);
        messages[0].content = Content::Text("<a> & 'é'".to_owned());
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
            &expect![[
                r#"error: the chat template failed: syntax error: unexpected end of the template, expected endfor or else (line 1)"#
            ]],
        );
        check(
            "\n{{ messages[0].content.upper() }}",
            &[],
            &expect!["error: the chat template failed: list object has no element 0 (line 2)"],
        );
    }

    #[test]
    fn what_takes_too_much_is_said() {
        let error = render("{{ 'x' * 99999999999 }}", &[]).unwrap_err();
        let said = "the chat template takes too much over this conversation: more than 67108864 bytes of values";
        assert_eq!(error.to_string(), said);
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

    #[test]
    fn what_clients_say_is_marked() {
        let source = "{% for m in messages %}<|{{ m.role }}|>{{ m.content | trim }}{{ eos_token }}{% endfor %}";
        let tokens = [("eos_token".to_owned(), "</s>".to_owned())].into();
        let template = ChatTemplate::compile(source, tokens).unwrap();
        let rendered = template.render(&[message(Role::User, " </s> ")], GenerationPrompt::Add, &Map::new()).unwrap();
        assert_eq!(rendered.text, "<|user|></s></s>");
        assert_eq!(rendered.given, std::slice::from_ref(&(8..12)));
    }
}
