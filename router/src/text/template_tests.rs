//! Tests of whole templates, in the style of each family, and of what they refuse.

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
        |effort: &Effort| template.render_within(&[], &[], GenerationPrompt::Add, &Map::new(), effort).unwrap_err();
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
