//! Tests of request bodies: their meaning, and the errors for those refused.

use expect_test::expect;
use serde_json::{Value, json};

use super::super::{ApiError, Delivery, Limits, Thoughts, UsageChunk};
use super::ResponsesRequest;
use crate::model_output::CallsPerTurn;
use crate::text::{Content, Message, Role, Strict, ToolChoice};

fn parse(more: &Value) -> Result<ResponsesRequest, ApiError> {
    let mut body = json!({"model": "m", "input": "hi"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let limits = Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 };
    ResponsesRequest::parse(body.to_string().as_bytes(), &limits)
}

fn messages(more: &Value) -> Vec<Message> {
    parse(more).unwrap().conversation.messages
}

#[test]
fn text_and_instructions_are_messages() {
    let system = Message::text(Role::System, "Be brief.");
    assert_eq!(messages(&json!({"instructions": "Be brief."})), [system, Message::text(Role::User, "hi")]);
    assert_eq!(messages(&json!({"instructions": null})), [Message::text(Role::User, "hi")]);
    let input = json!([
        {"role": "developer", "content": "a"},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "b"}, {"type": "text", "text": "c"}]},
        {"type": "message", "id": "msg_1", "status": "completed", "role": "assistant", "content": [
            {"type": "output_text", "text": "d", "annotations": [], "logprobs": []},
            {"type": "refusal", "refusal": "e"},
        ]},
        {"role": "user", "content": [{"type": "input_text", "text": "f"}]},
    ]);
    let parts = |role, parts: [&str; 2]| {
        let parts = parts.map(str::to_owned).to_vec();
        Message { content: Content::Parts(parts), ..Message::text(role, "") }
    };
    let expected = [
        Message::text(Role::Developer, "a"),
        parts(Role::User, ["b", "c"]),
        parts(Role::Assistant, ["d", "e"]),
        Message::text(Role::User, "f"),
    ];
    assert_eq!(messages(&json!({"input": input})), expected);
}

#[test]
fn items_of_the_assistant_are_one_turn() {
    let call = |id: &str, arguments: &str| json!({"type": "function_call", "id": "fc_1", "call_id": id, "name": "f", "arguments": arguments, "status": "completed"});
    let input = json!([
        {"role": "user", "content": "x"},
        {"type": "reasoning", "id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}], "encrypted_content": null},
        {"role": "assistant", "content": "I look."},
        call("c1", "{\"a\": 1}"),
        call("c2", ""),
        {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "7"}]},
        {"type": "function_call_output", "call_id": "c1", "output": "8"},
        {"type": "reasoning", "summary": [{"type": "summary_text", "text": "so"}, {"type": "summary_text", "text": "yes"}], "encrypted_content": "gAAA"},
        {"type": "reasoning", "summary": [], "encrypted_content": "gAAA"},
        call("c3", "{}"),
        {"role": "assistant", "content": "Done."},
    ]);
    let messages = messages(&json!({"input": input}));
    let roles: Vec<Role> = messages.iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::Tool, Role::Tool, Role::Assistant]);
    let first = &messages[1];
    assert_eq!((first.reasoning.as_deref(), &first.content), (Some("hm"), &Content::Text("I look.".into())));
    let sent: Vec<String> = first.calls.iter().map(|call| Value::Object(call.sent.clone()).to_string()).collect();
    let described = |id: &str, arguments: &str| {
        format!(r#"{{"id":"{id}","type":"function","function":{{"name":"f","arguments":{arguments}}}}}"#)
    };
    assert_eq!(sent, [described("c1", "{\"a\":1}"), described("c2", "{}")]);
    assert_eq!(first.calls[0].arguments_text(), "{\"a\": 1}");
    let result = &messages[2];
    assert_eq!((result.call_id.as_deref(), result.name.as_deref()), (Some("c2"), Some("f")));
    assert_eq!(result.content, Content::Text("7".into()));
    let last = &messages[4];
    assert_eq!((last.reasoning.as_deref(), last.calls.len()), (Some("so\n\nyes"), 1));
    assert_eq!(last.content, Content::Text("Done.".into()));
}

#[test]
fn tools_are_described_as_chat_completions_describe_them() {
    let tool = |name: &str| json!({"type": "function", "name": name, "parameters": {"type": "object"}, "strict": true});
    let use_of = |more: Value| {
        let mut body = json!({"tools": [tool("f"), tool("g")]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        parse(&body).unwrap().conversation.tool_use
    };
    let open = use_of(json!({}));
    assert_eq!((&open.choice, open.limit, open.tools[0].strict), (&ToolChoice::Auto, CallsPerTurn::Many, Strict::Yes));
    let described =
        json!({"type": "function", "function": {"name": "f", "parameters": {"type": "object"}, "strict": true}});
    assert_eq!(open.tools[0].described.to_string(), described.to_string());
    let named = use_of(json!({"tool_choice": {"type": "function", "name": "g"}}));
    assert_eq!((named.choice, named.limit), (ToolChoice::Named("g".into()), CallsPerTurn::One));
    let allowed = json!({"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "g"}]});
    let allowed = use_of(json!({"tool_choice": allowed, "parallel_tool_calls": false}));
    assert_eq!((allowed.choice, allowed.limit, allowed.tools.len()), (ToolChoice::Required, CallsPerTurn::One, 1));
    assert_eq!(use_of(json!({"tool_choice": "none"})).tools, []);
    assert_eq!(parse(&json!({"tools": []})).unwrap().conversation.tool_use.choice, ToolChoice::None);
}

#[test]
fn what_real_clients_send_is_accepted() {
    let agents = json!({
        "include": [], "store": true, "tools": [], "parallel_tool_calls": null, "text": {"format": {"type": "text"}},
        "reasoning": {"effort": "low", "summary": "auto"}, "stream": true, "truncation": "disabled", "metadata": {"a": "b"},
    });
    let request = parse(&agents).unwrap();
    assert_eq!(request.generation.delivery, Delivery::Stream(UsageChunk::Include));
    assert_eq!(request.conversation.template_variables["reasoning_effort"], "low");
    let codex = json!({
        "include": ["reasoning.encrypted_content"], "store": false, "prompt_cache_key": "k", "stream": true,
        "tool_choice": "auto", "parallel_tool_calls": false, "stream_options": {"include_obfuscation": false},
        "text": {"verbosity": "low"}, "tools": [{"type": "function", "name": "shell", "strict": false}],
    });
    assert_eq!(parse(&codex).unwrap().conversation.tool_use.limit, CallsPerTurn::One);
    let schema = json!({"type": "json_schema", "name": "x", "strict": true, "schema": {"type": "integer"}});
    let request = parse(&json!({
        "text": {"format": schema}, "top_logprobs": 2, "include": ["message.output_text.logprobs"],
        "max_output_tokens": 5, "include_reasoning": false, "top_k": 3, "n": 1,
    }))
    .unwrap();
    let generation = &request.generation;
    assert_eq!((generation.max_tokens, generation.logprobs, generation.top_k), (Some(5), Some(2), Some(3)));
    assert_eq!(generation.structure.as_ref().unwrap().field, "text.format");
    assert_eq!(request.conversation.thoughts, Thoughts::Omitted);
}

#[test]
fn wrong_requests_are_named() {
    let item = |item: Value| json!({"input": [{"role": "user", "content": "x"}, item]});
    let part = |part: Value| item(json!({"role": "user", "content": [part]}));
    let call = |more: Value| {
        let mut call = json!({"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"});
        call.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        item(call)
    };
    let tool = |tool: Value| json!({"tools": [{"type": "function", "name": "f"}, tool]});
    let choice = |choice: Value| json!({"tools": [{"type": "function", "name": "f"}], "tool_choice": choice});
    let format = |format: Value| json!({"text": {"format": format}});
    let bodies = [
        json!({"input": null}),
        json!({"input": []}),
        json!({"input": 1}),
        json!({"input": ["x"]}),
        json!({"instructions": ["x"]}),
        item(json!({})),
        item(json!({"type": 1})),
        item(json!({"type": "item_reference", "id": "msg_1"})),
        item(json!({"type": "web_search_call", "id": "ws_1"})),
        item(json!({"role": "tool", "content": "x"})),
        item(json!({"type": "message", "content": "x"})),
        item(json!({"role": "user"})),
        item(json!({"role": "user", "content": {}})),
        part(json!("x")),
        part(json!({"type": "input_image", "image_url": "data:"})),
        part(json!({"type": "input_text"})),
        part(json!({"type": "input_text", "text": 1})),
        call(json!({"call_id": null})),
        call(json!({"call_id": ""})),
        call(json!({"name": 1})),
        call(json!({"arguments": ["["]})),
        item(json!({"type": "function_call_output", "call_id": "c"})),
        item(json!({"type": "function_call_output", "call_id": "c", "output": [{"type": "input_file"}]})),
        item(json!({"type": "reasoning", "summary": [{"type": "output_text", "text": "x"}]})),
        tool(json!({"type": "web_search"})),
        tool(json!({"type": "custom", "name": "apply_patch"})),
        tool(json!({"name": "g"})),
        tool(json!({"type": "function", "function": {"name": "g"}})),
        tool(json!({"type": "function", "name": "f"})),
        choice(json!("any")),
        choice(json!({"type": "function", "name": "g"})),
        choice(json!({"type": "file_search"})),
        choice(json!({"name": "f"})),
        choice(json!({"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "g"}]})),
        choice(json!({"type": "allowed_tools", "tools": []})),
        json!({"tool_choice": "required"}),
        json!({"previous_response_id": "resp_1"}),
        json!({"conversation": "conv_1"}),
        json!({"background": true}),
        json!({"prompt": {"id": "pmpt_1"}}),
        json!({"truncation": "auto"}),
        json!({"max_tokens": 3}),
        json!({"max_output_tokens": 0}),
        json!({"response_format": {"type": "text"}}),
        json!({"n": 2}),
        json!({"include": "x"}),
        json!({"include": ["file_search_call.results"]}),
        json!({"include": ["message.output_text.logprobs"], "tools": [{"type": "function", "name": "f"}]}),
        json!({"top_logprobs": 2}),
        json!({"reasoning": "low"}),
        json!({"reasoning": {"effort": 1}}),
        json!({"reasoning": {"summary": "long"}}),
        json!({"text": "x"}),
        json!({"text": {"verbosity": "max"}}),
        format(json!("json")),
        format(json!({"type": "xml"})),
        format(json!({"type": "json_schema", "name": "x"})),
        json!({"text": {"format": {"type": "json_object"}}, "guided_regex": "a"}),
        json!({"metadata": {"a": 1}}),
        json!({"store": "no"}),
        json!({"user": 1}),
        json!({"stream_options": {"include_obfuscation": 1}}),
    ];
    let said: Vec<String> = bodies
        .iter()
        .map(|body| {
            let error = parse(body).expect_err(&body.to_string());
            assert_eq!(error.status, 400);
            let code = error.code.map(|code| format!(" ({code})")).unwrap_or_default();
            format!("{}: {}{code}", error.param.as_deref().unwrap_or("-"), error.message)
        })
        .collect();
    expect![[r#"
        input: input is missing
        input: input must not be empty
        input: input must be a string or a list of items, but is 1
        input[0]: input[0] must be an object, but is the string "x"
        instructions: instructions must be a string, but is a list of 1
        input[1].type: input[1].type is missing
        input[1].type: input[1].type must be a string, but is 1
        input[1].type: input[1].type: items of the type "item_reference" are not supported by this server; nothing is stored here: send the whole conversation as input (unsupported_value)
        input[1].type: input[1].type: items of the type "web_search_call" are not supported by this server; send messages, function_call, function_call_output and reasoning (unsupported_value)
        input[1].role: input[1].role must be one of user, assistant, system, developer, but is the string "tool"
        input[1].role: input[1].role is missing
        input[1].content: input[1].content is missing
        input[1].content: input[1].content must be a string or a list of text parts, but is an object
        input[1].content[0]: input[1].content[0] must be an object, but is the string "x"
        input[1].content[0].type: input[1].content[0].type must be one of input_text, output_text, text, refusal, the only kinds that this server supports here, but is the string "input_image" (unsupported_value)
        input[1].content[0].text: input[1].content[0].text is missing
        input[1].content[0].text: input[1].content[0].text must be a string, but is 1
        input[1].call_id: input[1].call_id is missing
        input[1].call_id: input[1].call_id must not be empty
        input[1].name: input[1].name must be a string, but is 1
        input[1].arguments: input[1].arguments must be a JSON object or a string, but is a list of 1
        input[1].output: input[1].output is missing
        input[1].output[0].type: input[1].output[0].type must be one of input_text, output_text, text, refusal, the only kinds that this server supports here, but is the string "input_file" (unsupported_value)
        input[1].summary[0].type: input[1].summary[0].type must be one of summary_text, the only kinds that this server supports here, but is the string "output_text" (unsupported_value)
        tools[1].type: tools[1].type: tools of the type "web_search" are not supported by this server, which runs none itself; send functions (unsupported_value)
        tools[1].type: tools[1].type: tools of the type "custom" are not supported by this server, which runs none itself; send functions (unsupported_value)
        tools[1].type: tools[1].type must be "function", but is null (unsupported_value)
        tools[1].name: tools[1].name is missing
        tools[1].name: tools[1].name: "f" is the name of two tools
        tool_choice: tool_choice must be auto, none, required, or an object that names a function or allowed tools, but is the string "any"
        tool_choice.name: tool_choice.name must be the name of one of the tools, but is the string "g"
        tool_choice.type: tool_choice must be auto, none, required, or an object that names a function or allowed tools, but is of the type "file_search" (unsupported_value)
        tool_choice.type: tool_choice.type is missing
        tool_choice.tools[0].name: tool_choice.tools[0].name must be the name of one of the tools, but is the string "g"
        tool_choice.mode: tool_choice.mode must be auto or required, but is null
        tool_choice: tool_choice is required, but there are no tools
        previous_response_id: previous_response_id is not supported by this server; nothing is stored here: send the whole conversation as input (unsupported_parameter)
        conversation: conversation is not supported by this server; nothing is stored here: send the whole conversation as input (unsupported_parameter)
        background: background is not supported by this server (unsupported_parameter)
        prompt: prompt is not supported by this server; send its text as input and instructions (unsupported_parameter)
        truncation: truncation is not supported by this server; shorten the input, or send truncate_prompt_tokens (unsupported_parameter)
        max_tokens: max_tokens is not supported by this server; send max_output_tokens (unsupported_parameter)
        max_output_tokens: max_output_tokens must be an integer from 1 to 4294967295, but is 0
        response_format: response_format is not supported by this server; send text: {"format": ...} (unsupported_parameter)
        n: n is not supported by this server (unsupported_parameter)
        include: include must be a list, but is the string "x"
        include[0]: include[0]: "file_search_call.results" is not supported by this server (unsupported_parameter)
        include: message.output_text.logprobs together with tools is not supported by this server (unsupported_parameter)
        top_logprobs: top_logprobs needs include to have "message.output_text.logprobs"
        reasoning: reasoning must be an object, but is the string "low"
        reasoning.effort: reasoning.effort must be a string, but is 1
        reasoning.summary: reasoning.summary must be one of auto, concise, detailed, but is the string "long"
        text: text must be an object, but is the string "x"
        text.verbosity: text.verbosity must be one of low, medium, high, but is the string "max"
        text.format: text.format must be an object, but is the string "json"
        text.format.type: text.format.type must be one of text, json_object, json_schema, but is the string "xml"
        text.format.schema: text.format.schema is missing
        guided_regex: guided_regex and text.format must not be sent together
        metadata.a: metadata.a must be a string, but is 1
        store: store must be true or false, but is the string "no"
        user: user must be a string, but is 1
        stream_options.include_obfuscation: stream_options.include_obfuscation must be true or false, but is 1"#]].assert_eq(&said.join("\n"));
}
