//! Chat templates with conversations, both of any kind; knows no model folder.
//!
//! The input is a template, a zero byte, and the body of a request.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use libfuzzer_sys::fuzz_target;
use router::openai::{ChatRequest, Limits};
use router::text::{ChatTemplate, Effort, Wanted};

/// Conversation where the input has none.
const BODY: &[u8] = br#"{"messages": [
    {"role": "system", "content": "Be short."}, {"role": "user", "content": [{"type": "text", "text": "Hi"}]},
    {"role": "assistant", "content": null, "reasoning_content": "hm",
     "tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{\"a\": 1}"}}]},
    {"role": "tool", "tool_call_id": "1", "content": "2"}],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"properties": {"a": {"type": "integer"}}}}}]}"#;

fuzz_target!(|data: &[u8]| {
    let mut parts = data.splitn(2, |byte| *byte == 0);
    let (source, body) = (parts.next().unwrap_or_default(), parts.next().unwrap_or(BODY));
    let Ok(source) = std::str::from_utf8(source) else { return };
    let special = BTreeMap::from([("bos_token".to_owned(), "<s>".to_owned())]);
    let Ok(template) = ChatTemplate::compile(source, special) else { return };
    let limits = Limits { n_max: 8, prompts_max: 16, stop_max: 16, stop_bytes_max: 256, vocab_size: 300 };
    let Ok(request) = ChatRequest::parse(body, &limits) else { return };
    let conversation = request.conversation;
    let tools = &conversation.tool_use.tools;
    let effort = Effort::begin(Wanted::default(), Duration::from_millis(300), usize::MAX, usize::MAX);
    let _ = template.leaves_out(&conversation.messages, tools);
    let variables = &conversation.template_variables;
    let rendered =
        template.render_within(&conversation.messages, tools, conversation.generation_prompt, variables, &effort);
    if let Ok(rendered) = rendered {
        // Each range that came from outside is one of the text.
        for given in &rendered.given {
            assert!(rendered.text.get(given.clone()).is_some());
        }
    }
});
