//! Tests of conversations: the turns that a template gets, and the errors for others.

use expect_test::expect;
use serde_json::{Value, json};

use super::CountRequest;
use crate::openai::{ApiError, Conversation};
use crate::text::{Content, GenerationPrompt, Message, ToolCall};

fn parse(body: &Value) -> Result<Conversation, ApiError> {
    CountRequest::parse(body.to_string().as_bytes()).map(|request| request.conversation)
}

/// Shows each turn in a line: speaker, name of the call, thoughts, texts, calls.
fn shown(body: &Value) -> String {
    let conversation = parse(body).unwrap();
    let lines: Vec<String> = conversation.messages.iter().map(line).collect();
    let prompt = match conversation.generation_prompt {
        GenerationPrompt::Add => "\n",
        GenerationPrompt::Continue => " ...\n",
        GenerationPrompt::Omit => panic!("the model is to answer"),
    };
    lines.join("\n") + prompt
}

fn line(message: &Message) -> String {
    let call_id = message.call_id.as_ref().map(|id| format!("({id})")).unwrap_or_default();
    let name = message.name.as_ref().map(|name| format!(" of {name}")).unwrap_or_default();
    let thoughts = message.reasoning.as_ref().map(|thoughts| format!(" <{thoughts}>")).unwrap_or_default();
    let content = match &message.content {
        Content::Text(text) => format!("{text:?}"),
        Content::Parts(parts) => format!("{parts:?}"),
        Content::Null => "null".to_owned(),
    };
    let call = |call: &ToolCall| format!(" {}", Value::Object(call.sent.clone()));
    let calls: String = message.calls.iter().map(call).collect();
    format!("{}{call_id}{name}:{thoughts} {content}{calls}", message.role.name())
}

fn user(content: &Value) -> Value {
    json!({"role": "user", "content": content})
}

fn assistant(content: &Value) -> Value {
    json!({"role": "assistant", "content": content})
}

fn text(text: &str) -> Value {
    json!({"type": "text", "text": text, "cache_control": {"type": "ephemeral"}})
}

fn tool_use(id: &str) -> Value {
    json!({"type": "tool_use", "id": id, "name": "f", "input": {"z": 1, "a": "é"}})
}

fn tool_result(id: &str, content: &Value) -> Value {
    json!({"type": "tool_result", "tool_use_id": id, "content": content, "is_error": true})
}

#[test]
fn texts_and_blocks_are_turns() {
    let system = json!([text("x-anthropic-billing-header: cc_version=1;"), text("Be brief."), text("Be kind.")]);
    let shown = [
        shown(&json!({"messages": [user(&json!("Hi"))]})),
        shown(&json!({"system": "Be brief.", "messages": [user(&json!([text("a"), text("b")]))]})),
        shown(&json!({"system": system, "messages": [user(&json!("a")), user(&json!([text("b")])), user(&json!([]))]})),
        shown(&json!({"system": "", "messages": [user(&json!("a")), assistant(&json!("b")), assistant(&json!("c "))]})),
        shown(&json!({"system": [], "messages": [user(&json!([])), assistant(&json!([]))]})),
    ];
    expect![[r#"
        user: "Hi"
        system: "Be brief."
        user: ["a", "b"]
        system: "Be brief.\nBe kind."
        user: ["a", "b"]
        user: "a"
        assistant: ["b", "c "] ...
        user: ""
        assistant: "" ...
    "#]]
    .assert_eq(&shown.concat());
}

#[test]
fn calls_and_their_results_are_turns_of_their_own() {
    let thoughts = json!({"type": "thinking", "thinking": "hm", "signature": "x"});
    let redacted = json!({"type": "redacted_thinking", "data": "x"});
    let called = json!([thoughts, redacted, text("So:"), tool_use("c1"), tool_use("c2")]);
    let results = json!([
        tool_result("c1", &json!("7")),
        tool_result("c2", &json!([text("a"), text("b")])),
        text("Go on."),
        {"type": "tool_result", "tool_use_id": "c3"},
        text("And"),
        text("then?"),
    ]);
    let only_calls = json!([tool_use("c1")]);
    let shown = [
        shown(&json!({"messages": [user(&json!("Hi")), assistant(&called), user(&results)]})),
        shown(&json!({"messages": [assistant(&only_calls), user(&json!([tool_result("c1", &json!("7"))]))]})),
        shown(&json!({"messages": [assistant(&json!([thoughts, thoughts]))]})),
    ];
    expect![[r#"
        user: "Hi"
        assistant: <hm> "So:" {"id":"c1","type":"function","function":{"name":"f","arguments":{"z":1,"a":"é"}}} {"id":"c2","type":"function","function":{"name":"f","arguments":{"z":1,"a":"é"}}}
        tool(c1) of f: "7"
        tool(c2) of f: ["a", "b"]
        user: "Go on."
        tool(c3): ""
        user: ["And", "then?"]
        assistant: null {"id":"c1","type":"function","function":{"name":"f","arguments":{"z":1,"a":"é"}}}
        tool(c1) of f: "7"
        assistant: <hmhm> "" ...
    "#]].assert_eq(&shown.concat());
}

#[test]
fn instructions_inside_a_conversation_join_the_turn_before() {
    let aside = |text: &str| json!({"role": "system", "content": text});
    let shown = [
        shown(&json!({"system": "a", "messages": [aside("b"), user(&json!("Hi")), aside("c"), aside("d")]})),
        shown(&json!({"messages": [user(&json!("Hi")), assistant(&json!("x")), aside("a"), user(&json!("y"))]})),
        shown(&json!({"messages": [user(&json!("Hi")), assistant(&json!([tool_use("c1")])), aside("a"),
            user(&json!([tool_result("c1", &json!("7"))])), aside("b")]})),
        shown(&json!({"messages": [assistant(&json!([tool_use("c1")])), aside("a")]})),
    ];
    expect![[r#"
        system: "a\nb"
        user: ["Hi", "c", "d"]
        user: "Hi"
        assistant: "x"
        user: ["a", "y"]
        user: "Hi"
        assistant: null {"id":"c1","type":"function","function":{"name":"f","arguments":{"z":1,"a":"é"}}}
        tool(c1) of f: ["7", "a", "b"]
        assistant: null {"id":"c1","type":"function","function":{"name":"f","arguments":{"z":1,"a":"é"}}}
        user: "a"
    "#]]
    .assert_eq(&shown.concat());
}

#[test]
fn what_is_wrong_is_named() {
    let one = |message: &Value| json!({"messages": [message]});
    let of_user = |block: Value| one(&user(&json!([block])));
    let of_model = |block: Value| one(&assistant(&json!([block])));
    let bodies = [
        json!({}),
        json!({"messages": {}}),
        json!({"messages": []}),
        json!({"messages": ["x"]}),
        one(&json!({"content": "x"})),
        one(&json!({"role": "tool", "content": "x"})),
        one(&json!({"role": "user"})),
        one(&json!({"role": "user", "content": 1})),
        one(&user(&json!(["x"]))),
        of_user(json!({})),
        of_user(json!({"type": "text"})),
        of_user(json!({"type": "text", "text": 1})),
        of_user(json!({"type": "image", "source": {}})),
        of_user(json!({"type": "document", "source": {}})),
        of_user(tool_use("x")),
        of_user(json!({"type": "tool_result", "content": "x"})),
        of_user(json!({"type": "tool_result", "tool_use_id": 1})),
        of_user(json!({"type": "tool_result", "tool_use_id": "x", "content": 1})),
        of_user(json!({"type": "tool_result", "tool_use_id": "x", "content": [{"type": "image"}]})),
        of_user(json!({"type": "tool_result", "tool_use_id": "x", "is_error": "yes"})),
        of_model(tool_result("x", &json!("7"))),
        of_model(json!({"type": "thinking"})),
        of_model(json!({"type": "tool_use", "name": "f", "input": {}})),
        of_model(json!({"type": "tool_use", "id": "x", "input": {}})),
        of_model(json!({"type": "tool_use", "id": "x", "name": "f"})),
        of_model(json!({"type": "tool_use", "id": "x", "name": "f", "input": "{}"})),
        of_model(tool_use("x")),
        json!({"system": 1, "messages": [user(&json!("x"))]}),
        json!({"system": [{"type": "image"}], "messages": [user(&json!("x"))]}),
        json!({"system": [{"type": "thinking"}], "messages": [user(&json!("x"))]}),
        json!({"messages": [user(&json!("x")), {"role": "system", "content": [tool_use("x")]}]}),
        json!({"messages": [user(&json!("x")), user(&json!([text("x"), {"type": "tool_result"}]))]}),
    ];
    let said = bodies.iter().map(|body| {
        let error = parse(body).expect_err(&body.to_string());
        assert!(error.message.contains(error.param.as_deref().unwrap()), "{}", error.message);
        error.message
    });
    expect![[r#"
        messages is missing
        messages must be a list, but is an object
        messages must not be empty
        messages[0] must be an object, but is the string "x"
        messages[0].role is missing
        messages[0].role must be one of user, assistant, system, but is the string "tool"
        messages[0].content is missing
        messages[0].content must be a string or a list of content blocks, but is 1
        messages[0].content[0] must be an object, but is the string "x"
        messages[0].content[0].type must be text or tool_result in a message of the user, but is null
        messages[0].content[0].text is missing
        messages[0].content[0].text must be a string, but is 1
        messages[0].content[0].type must be a kind that this server supports, which are texts and tools, but is the string "image"
        messages[0].content[0].type must be a kind that this server supports, which are texts and tools, but is the string "document"
        messages[0].content[0].type must be text or tool_result in a message of the user, but is the string "tool_use"
        messages[0].content[0].tool_use_id is missing
        messages[0].content[0].tool_use_id must be a string, but is 1
        messages[0].content[0].content must be a string or a list of content blocks, but is 1
        messages[0].content[0].content[0].type must be a kind that this server supports, which are texts and tools, but is the string "image"
        messages[0].content[0].is_error must be true or false, but is the string "yes"
        messages[0].content[0].type must be text, thinking, redacted_thinking or tool_use in a message of the assistant, but is the string "tool_result"
        messages[0].content[0].thinking is missing
        messages[0].content[0].id is missing
        messages[0].content[0].name is missing
        messages[0].content[0].input is missing
        messages[0].content[0].input must be an object, but is the string "{}"
        messages[0]: the last message calls tools, so a message with their results must follow
        system must be a string or a list of content blocks, but is 1
        system[0].type must be a kind that this server supports, which are texts and tools, but is the string "image"
        system[0].type must be text, but is the string "thinking"
        messages[1].content[0].type must be text, but is the string "tool_use"
        messages[1].content[1].tool_use_id is missing"#]].assert_eq(&said.collect::<Vec<_>>().join("\n"));
}
