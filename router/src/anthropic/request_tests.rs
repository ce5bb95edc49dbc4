//! Tests of requests for messages besides their conversation: those accepted, and the errors for the others.

use expect_test::expect;
use serde_json::{Value, json};

use super::{CountRequest, MessagesRequest};
use crate::model_output::CallsPerTurn;
use crate::openai::{ApiError, BeyondContext, Delivery, Limits, Thoughts, UsageChunk};
use crate::structure::Checked;
use crate::text::{Strict, ToolChoice, samples};

pub(super) fn limits() -> Limits {
    Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 }
}

fn with(more: &Value) -> Value {
    let mut body = json!({"max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

fn parse(more: &Value) -> Result<MessagesRequest, ApiError> {
    MessagesRequest::parse(with(more).to_string().as_bytes(), &limits())
}

fn tool(name: &str) -> Value {
    json!({"name": name, "description": "d", "input_schema": {"type": "object", "z": 1, "a": 2}})
}

#[test]
fn a_request_as_clients_send_it() {
    let request = parse(&json!({
        "model": "demo", "stream": true, "stop_sequences": ["a", "b"], "temperature": 1, "top_p": 0.5, "top_k": 3,
        "metadata": {"user_id": "x"}, "service_tier": "standard_only", "cache_control": {"type": "ephemeral"},
        "context_management": {"edits": []}, "betas": ["x"], "mcp_servers": [], "container": null, "seed": 3,
    }))
    .unwrap();
    let generation = &request.generation;
    assert_eq!((generation.model.as_deref(), generation.max_tokens, request.max_tokens), (Some("demo"), Some(5), 5));
    assert_eq!(generation.stops, ["a", "b"]);
    assert_eq!((generation.temperature, generation.top_p, generation.top_k), (Some(1.0), Some(0.5), Some(3)));
    assert_eq!(generation.delivery, Delivery::Stream(UsageChunk::Continuous));
    assert_eq!((generation.beyond_context, generation.seed), (BeyondContext::Cut, Some(3)));
    assert_eq!(parse(&json!({})).unwrap().generation.delivery, Delivery::Whole);
    let body = json!({"messages": [{"role": "user", "content": "x"}], "stop_sequences": ["a"], "model": "demo"});
    let count = CountRequest::parse(body.to_string().as_bytes()).unwrap();
    assert_eq!(count.model.as_deref(), Some("demo"), "without max_tokens");
}

#[test]
fn tools_are_functions() {
    let use_of = |more: &Value| {
        let mut body =
            json!({"tools": [tool("f"), {"type": "custom", "name": "mcp__g-2", "input_schema": {}, "strict": true}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(&body).unwrap().conversation.tool_use
    };
    let open = use_of(&json!({}));
    assert_eq!((open.choice, open.limit), (ToolChoice::Auto, CallsPerTurn::Many));
    let described: Vec<String> = open.tools.iter().map(|tool| tool.described.to_string()).collect();
    expect![[r#"
        {"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","z":1,"a":2}}}
        {"type":"function","function":{"name":"mcp__g-2","parameters":{}}}"#]]
    .assert_eq(&described.join("\n"));
    assert_eq!((open.tools[0].strict, open.tools[1].strict), (Strict::No, Strict::Yes));
    assert_eq!(open.tools[0].parameters.keys().collect::<Vec<_>>(), ["type", "z", "a"]);
    let chosen = |choice: Value| {
        let tool_use = use_of(&json!({"tool_choice": choice}));
        (tool_use.choice, tool_use.limit, tool_use.tools.len())
    };
    let (many, one) = (CallsPerTurn::Many, CallsPerTurn::One);
    assert_eq!(chosen(json!({"type": "any"})), (ToolChoice::Required, many, 2));
    assert_eq!(chosen(json!({"type": "any", "disable_parallel_tool_use": true})), (ToolChoice::Required, one, 2));
    assert_eq!(chosen(json!({"type": "tool", "name": "f"})), (ToolChoice::Named("f".to_owned()), one, 2));
    assert_eq!(chosen(json!({"type": "auto", "disable_parallel_tool_use": false})), (ToolChoice::Auto, many, 2));
    assert_eq!(chosen(json!({"type": "none"})), (ToolChoice::None, many, 0));
    let none = parse(&json!({"tool_choice": {"type": "auto"}, "tools": []})).unwrap().conversation.tool_use;
    assert_eq!(none.choice, ToolChoice::None);
}

#[test]
fn thoughts_are_shown_to_those_who_ask() {
    let asked = |thinking: Value| {
        let conversation = parse(&json!({"thinking": thinking})).unwrap().conversation;
        (conversation.thoughts, Value::Object(conversation.template_variables))
    };
    let switched = |on: bool| json!({"enable_thinking": on, "thinking": on});
    assert_eq!(asked(Value::Null), (Thoughts::Omitted, json!({})));
    assert_eq!(asked(json!({"type": "disabled"})), (Thoughts::Omitted, switched(false)));
    assert_eq!(asked(json!({"type": "enabled", "budget_tokens": 1024})), (Thoughts::Beside, switched(true)));
    assert_eq!(asked(json!({"type": "adaptive", "display": "summarized"})), (Thoughts::Beside, switched(true)));
    assert_eq!(asked(json!({"type": "enabled", "display": "omitted"})), (Thoughts::Omitted, switched(true)));
    let own = json!({"thinking": {"type": "disabled"}, "chat_template_kwargs": {"enable_thinking": true, "x": 1},
        "output_config": {"effort": "high"}});
    let variables = Value::Object(parse(&own).unwrap().conversation.template_variables);
    assert_eq!(variables, json!({"enable_thinking": true, "x": 1, "thinking": false, "reasoning_effort": "high"}));
}

#[test]
fn answers_have_a_structure() {
    let schema = json!({"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"],
        "additionalProperties": false});
    let format = json!({"type": "json_schema", "schema": schema});
    for (body, field) in [
        (json!({"output_config": {"format": format, "effort": null}}), "output_config"),
        (json!({"output_format": format}), "output_format"),
    ] {
        let wanted = parse(&body).unwrap().generation.structure.unwrap();
        let checked = Checked::default().check(&wanted.grammar, samples::byte_level().pieces());
        assert_eq!((wanted.field, checked), (field, Ok(())));
    }
    assert_eq!(parse(&json!({"output_config": {"format": null}})).unwrap().generation.structure, None);
}

#[test]
fn what_is_wrong_is_named() {
    let tools = |tool: Value| json!({"tools": [tool]});
    let choice = |choice: Value| json!({"tools": [tool("f")], "tool_choice": choice});
    let format = json!({"type": "json_schema", "schema": {"type": "string"}});
    let bodies = [
        json!({"max_tokens": null}),
        json!({"max_tokens": 0}),
        json!({"stop_sequences": ["a", "b", "c", "d", "e"]}),
        json!({"stop_sequences": [1]}),
        json!({"temperature": "hot"}),
        json!({"tools": {}}),
        json!({"tools": (0..513).map(|index| tool(&format!("f{index}"))).collect::<Vec<_>>()}),
        tools(json!("f")),
        tools(json!({"type": "web_search_20250305", "name": "web_search"})),
        tools(json!({"type": "function", "function": {"name": "f"}})),
        tools(json!({"input_schema": {}})),
        tools(json!({"name": "a b", "input_schema": {}})),
        tools(json!({"name": "x".repeat(129), "input_schema": {}})),
        tools(json!({"name": "f", "input_schema": []})),
        tools(json!({"name": "f"})),
        tools(json!({"name": "f", "input_schema": {}, "description": 1})),
        tools(json!({"name": "f", "input_schema": {}, "strict": 1})),
        json!({"tools": [tool("f"), tool("f")]}),
        choice(json!("auto")),
        choice(json!({})),
        choice(json!({"type": "required"})),
        choice(json!({"type": "tool"})),
        choice(json!({"type": "tool", "name": "g"})),
        choice(json!({"type": "any", "disable_parallel_tool_use": 1})),
        json!({"tool_choice": {"type": "any"}}),
        json!({"thinking": true}),
        json!({"thinking": {"type": "on"}}),
        json!({"thinking": {"type": "enabled", "budget_tokens": "many"}}),
        json!({"output_config": []}),
        json!({"output_config": {"effort": 1}}),
        json!({"output_config": {"format": "json"}}),
        json!({"output_config": {"format": {"type": "json"}}}),
        json!({"output_config": {"format": {"type": "json_schema"}}}),
        json!({"output_format": {"type": "json_schema", "schema": 1}}),
        json!({"output_format": format, "output_config": {"format": format}}),
        json!({"output_format": format, "guided_regex": "a"}),
        json!({"mcp_servers": [{"url": "x"}]}),
        json!({"n": 2}),
        json!({"stop": ["a"]}),
        json!({"response_format": {"type": "json_object"}}),
        json!({"max_new_tokens": 3}),
        json!({"chat_template_kwargs": {"messages": []}}),
    ];
    let said = bodies.iter().map(|body| {
        let error = parse(body).expect_err(&body.to_string());
        format!("{}: {}", error.param.as_deref().unwrap_or("-"), error.message)
    });
    expect![[r#"
        max_tokens: max_tokens is missing
        max_tokens: max_tokens must be an integer from 1 to 4294967295, but is 0
        stop_sequences: stop_sequences may have 4 strings at most, but has 5
        stop_sequences[0]: stop_sequences[0] must be a string, but is 1
        temperature: temperature must be a number from 0 to 2, but is the string "hot"
        tools: tools must be a list, but is an object
        tools: tools may have 512 entries at most, but has 513
        tools[0]: tools[0] must be an object, but is the string "f"
        tools[0].type: tools[0].type must be "custom" or absent: this server knows no other kinds of tools, but is the string "web_search_20250305" (tool "web_search")
        tools[0].type: tools[0].type must be "custom" or absent: this server knows no other kinds of tools, but is the string "function"
        tools[0].name: tools[0].name is missing
        tools[0].name: tools[0].name must be 1 to 128 letters, digits, underscores and hyphens, but is the string "a b"
        tools[0].name: tools[0].name must be 1 to 128 letters, digits, underscores and hyphens, but is the string "xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx"...
        tools[0].input_schema: tools[0].input_schema must be a JSON schema, which is an object, but is a list of 0
        tools[0].input_schema: tools[0].input_schema is missing
        tools[0].description: tools[0].description must be a string, but is 1
        tools[0].strict: tools[0].strict must be true or false, but is 1
        tools[1].name: tools[1].name: "f" is the name of two tools
        tool_choice: tool_choice must be an object, but is the string "auto"
        tool_choice.type: tool_choice.type must be one of auto, any, tool, none, but is null
        tool_choice.type: tool_choice.type must be one of auto, any, tool, none, but is the string "required"
        tool_choice.name: tool_choice.name is missing
        tool_choice.name: tool_choice.name must be the name of one of the tools, but is the string "g"
        tool_choice.disable_parallel_tool_use: tool_choice.disable_parallel_tool_use must be true or false, but is 1
        tool_choice: tool_choice asks for a call, but there are no tools
        thinking: thinking must be an object, but is true
        thinking.type: thinking.type must be one of enabled, adaptive, between_tools, disabled, but is the string "on"
        thinking.budget_tokens: thinking.budget_tokens must be a number of tokens, but is the string "many"
        output_config: output_config must be an object, but is a list of 0
        output_config.effort: output_config.effort must be a string, but is 1
        output_config.format: output_config.format must be an object, but is the string "json"
        output_config.format.type: output_config.format.type must be "json_schema", but is the string "json"
        output_config.format.schema: output_config.format.schema is missing
        output_format.schema: output_format.schema must be a JSON schema, but is 1
        output_format: output_format and output_config.format must not be sent together
        output_format: output_format and guided_regex must not be sent together
        mcp_servers: mcp_servers is not supported by this server
        n: n is not supported by this server
        stop: stop is not supported by this server; send stop_sequences
        response_format: response_format is not supported by this server; send output_config.format
        max_new_tokens: max_new_tokens is not supported by this server; send max_tokens
        chat_template_kwargs: chat_template_kwargs must not have "messages", which the server sets itself"#]].assert_eq(&said.collect::<Vec<_>>().join("\n"));
}
