//! Tests of tools in requests: those accepted, and the errors for the others.

use expect_test::expect;
use serde_json::{Value, json};

use super::request_tests::limits;
use super::*;
use crate::model_output::CallsPerTurn;
use crate::text::{Content, Role, Strict, ToolChoice};

fn parse(more: &Value) -> Result<Conversation, ApiError> {
    let mut body = json!({"messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    ChatRequest::parse(body.to_string().as_bytes(), &limits()).map(|request| request.conversation)
}

fn tool(name: &str) -> Value {
    json!({"type": "function", "function": {"name": name, "description": null, "parameters": {"z": 1, "a": 2}}})
}

#[test]
fn tools_are_kept_as_they_are_sent() {
    let strict = json!({"function": {"strict": true, "name": "g-2_X"}, "type": "function", "extra": 1});
    let use_of = |more: Value| {
        let mut body = json!({"tools": [tool("f"), strict]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(&body).unwrap().tool_use
    };
    let open = use_of(json!({}));
    assert_eq!((open.choice, open.limit), (ToolChoice::Auto, CallsPerTurn::Many));
    assert_eq!(open.tools[0].described.to_string(), tool("f").to_string());
    assert_eq!(open.tools[1].described.to_string(), strict.to_string());
    assert_eq!((open.tools[0].strict, open.tools[1].strict), (Strict::No, Strict::Yes));
    assert_eq!(open.tools[0].parameters.keys().collect::<Vec<_>>(), ["z", "a"]);

    let one = use_of(json!({"parallel_tool_calls": false, "tool_choice": "required"}));
    assert_eq!((one.choice, one.limit), (ToolChoice::Required, CallsPerTurn::One));
    let named = use_of(json!({"tool_choice": {"type": "function", "function": {"name": "f"}}}));
    assert_eq!((named.choice, named.limit), (ToolChoice::Named("f".into()), CallsPerTurn::One));
    let allowed = json!({"mode": "required", "tools": [{"type": "function", "function": {"name": "g-2_X"}}]});
    let allowed = use_of(json!({"tool_choice": {"type": "allowed_tools", "allowed_tools": allowed}}));
    assert_eq!(allowed.choice, ToolChoice::Required);
    assert_eq!(allowed.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["g-2_X"]);
    assert_eq!(use_of(json!({"tool_choice": "none"})).tools, []);
    assert_eq!(parse(&json!({"tools": null, "tool_choice": "auto"})).unwrap().tool_use.choice, ToolChoice::None);
}

#[test]
fn calls_and_their_results_are_messages() {
    let call =
        |arguments: Value| json!({"id": "c1", "type": "function", "function": {"name": "f", "arguments": arguments}});
    let text = r#"{"b": 1,  "a": "é"}"#;
    let (cut, list) = (json!("{\"a\": \"Par"), json!("[1]"));
    let object = json!({"b": 1, "a": "é"});
    let calls = [json!(text), object.clone(), json!(""), json!(null), cut.clone(), list.clone()].map(call);
    let messages = json!([
        {"role": "user", "content": "x"},
        {"role": "assistant", "content": null, "tool_calls": calls},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "7"}]},
        {"role": "assistant", "content": "Seven.", "tool_calls": null},
    ]);
    let messages = parse(&json!({"messages": messages})).unwrap().messages;
    let called = &messages[1];
    assert_eq!((called.role, &called.content, called.calls.len()), (Role::Assistant, &Content::Null, 6));
    let sent = |index: usize| Value::Object(called.calls[index].sent.clone()).to_string();
    assert_eq!(sent(0), call(object).to_string());
    assert_eq!(sent(1), sent(0));
    assert_eq!((sent(2), sent(3)), (call(json!({})).to_string(), call(json!({})).to_string()));
    assert_eq!((sent(4), sent(5)), (call(cut).to_string(), call(list).to_string()), "what is no object stays a text");
    let texts: Vec<String> = called.calls.iter().map(crate::text::ToolCall::arguments_text).collect();
    assert_eq!(texts, [text, r#"{"b":1,"a":"é"}"#, "{}", "{}", "{\"a\": \"Par", "[1]"]);
    assert_eq!((messages[2].role, messages[2].call_id.as_deref()), (Role::Tool, Some("c1")));
    assert_eq!((&messages[3].content, messages[3].calls.len()), (&Content::Text("Seven.".into()), 0));
}

#[test]
fn wrong_tools_are_named() {
    let function = |function: Value| json!({"tools": [{"type": "function", "function": function}]});
    let named = |choice: Value| json!({"tools": [tool("f")], "tool_choice": choice});
    let calls = |calls: Value| json!({"messages": [{"role": "assistant", "tool_calls": calls}]});
    let call = |function: Value| calls(json!([{"id": "x", "function": function}]));
    let bodies = [
        json!({"tools": {}}),
        json!({"tools": ["f"]}),
        json!({"tools": [{"type": "web_search"}]}),
        json!({"tools": [{"function": {"name": "f"}}]}),
        json!({"tools": [{"type": "function"}]}),
        function(json!({})),
        function(json!({"name": "a b"})),
        function(json!({"name": "x".repeat(65)})),
        function(json!({"name": "f", "description": 1})),
        function(json!({"name": "f", "parameters": []})),
        function(json!({"name": "f", "strict": "yes"})),
        json!({"tools": [tool("f"), tool("g"), tool("f")]}),
        json!({"tools": (0..129).map(|index| tool(&format!("f{index}"))).collect::<Vec<_>>()}),
        json!({"tool_choice": "required"}),
        named(json!("any")),
        named(json!(1)),
        named(json!({"type": "function"})),
        named(json!({"type": "function", "function": {"name": "g"}})),
        named(json!({"type": "custom"})),
        named(json!({"type": "allowed_tools", "allowed_tools": {"mode": "auto", "tools": [{}]}})),
        json!({"parallel_tool_calls": 1}),
        calls(json!({})),
        calls(json!([1])),
        calls(json!([{"type": "custom"}])),
        calls(json!([{"id": 1}])),
        calls(json!([{"id": "x"}])),
        call(json!({})),
        call(json!({"name": "f", "arguments": [1]})),
        json!({"messages": [{"role": "user", "content": "x", "tool_calls": [{"function": {"name": "f"}}]}]}),
        json!({"messages": [{"role": "tool", "content": "x", "tool_call_id": 1}]}),
    ];
    let said: Vec<String> = bodies
        .iter()
        .map(|body| {
            let error = parse(body).expect_err(&body.to_string());
            format!("{}: {}", error.param.as_deref().unwrap_or("-"), error.message)
        })
        .collect();
    expect![[r#"
        tools: tools must be a list, but is an object
        tools[0]: tools[0] must be an object, but is the string "f"
        tools[0].type: tools[0].type must be "function", the only kind that this server supports, but is the string "web_search"
        tools[0].type: tools[0].type must be "function", the only kind that this server supports, but is null
        tools[0].function: tools[0].function is missing
        tools[0].function.name: tools[0].function.name is missing
        tools[0].function.name: tools[0].function.name must be 1 to 64 letters, digits, underscores and hyphens, but is the string "a b"
        tools[0].function.name: tools[0].function.name must be 1 to 64 letters, digits, underscores and hyphens, but is the string "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"...
        tools[0].function.description: tools[0].function.description must be a string, but is 1
        tools[0].function.parameters: tools[0].function.parameters must be an object, but is a list of 0
        tools[0].function.strict: tools[0].function.strict must be true or false, but is the string "yes"
        tools[2].function.name: tools[2].function.name: "f" is the name of two tools
        tools: tools may have 128 entries at most, but has 129
        tool_choice: tool_choice is required, but there are no tools
        tool_choice: tool_choice must be auto, none, required, or an object that names a function or allowed tools, but is the string "any"
        tool_choice: tool_choice must be auto, none, required, or an object that names a function or allowed tools, but is 1
        tool_choice.function.name: tool_choice.function.name is missing
        tool_choice.function.name: tool_choice.function.name must be the name of one of the tools, but is the string "g"
        tool_choice: tool_choice must be auto, none, required, or an object that names a function or allowed tools, but is an object
        tool_choice.allowed_tools.tools[0].function.name: tool_choice.allowed_tools.tools[0].function.name is missing
        parallel_tool_calls: parallel_tool_calls must be true or false, but is 1
        messages[0].tool_calls: messages[0].tool_calls must be a list of tool calls, but is an object
        messages[0].tool_calls[0]: messages[0].tool_calls[0] must be an object, but is 1
        messages[0].tool_calls[0].type: messages[0].tool_calls[0].type must be "function", the only kind that this server supports, but is the string "custom"
        messages[0].tool_calls[0].id: messages[0].tool_calls[0].id must be a string, but is 1
        messages[0].tool_calls[0].function: messages[0].tool_calls[0].function is missing
        messages[0].tool_calls[0].function.name: messages[0].tool_calls[0].function.name is missing
        messages[0].tool_calls[0].function.arguments: messages[0].tool_calls[0].function.arguments must be a JSON object or a string, but is a list of 1
        messages[0].tool_calls: messages[0].tool_calls: only messages of the assistant have calls
        messages[0].tool_call_id: messages[0].tool_call_id must be a string, but is 1"#]].assert_eq(&said.join("\n"));
}
