//! Renders chats in the API's form as the server does, to compare them with transformers (tests/templates/chats.py): one
//! JSON object per line.
//!
//! In: `template`, `special_tokens`, `body` (a request for `/tokenize`). Out: `text` and `format`, or `refused` with the
//! error's words, with `compile` where the template does not start. The answers to one template in a row are fast.

use std::collections::BTreeMap;
use std::io::{BufRead, Write};

use router::model_output::ToolFormat;
use router::openai::{TokenizeInput, TokenizeRequest};
use router::text::{ChatTemplate, Effort};
use serde_json::{Value as Json, json};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    let mut compiled: Option<(String, ChatTemplate)> = None;
    for line in std::io::stdin().lock().lines() {
        let case: Json = serde_json::from_str(&line?)?;
        let source = case["template"].as_str().ok_or("template is missing")?;
        if compiled.as_ref().is_none_or(|(known, _)| known != source) {
            let tokens: BTreeMap<String, String> = serde_json::from_value(case["special_tokens"].clone())?;
            match ChatTemplate::compile(source, tokens) {
                Ok(template) => compiled = Some((source.to_owned(), template)),
                Err(error) => {
                    writeln!(out, "{}", json!({"refused": error.to_string(), "compile": true}))?;
                    continue;
                }
            }
        }
        let (_, template) = compiled.as_ref().ok_or("no template")?;
        let answer = render(template, &case["body"]);
        writeln!(out, "{}", answer.unwrap_or_else(|refused| json!({"refused": refused})))?;
    }
    out.flush()?;
    Ok(())
}

fn render(template: &ChatTemplate, body: &Json) -> Result<Json, String> {
    let request = TokenizeRequest::parse(body.to_string().as_bytes()).map_err(|error| error.message)?;
    let TokenizeInput::Conversation(conversation) = request.input else { return Err("no conversation".to_owned()) };
    let (messages, tools) = (&conversation.messages, &conversation.tool_use.tools);
    if let Some(left_out) = template.leaves_out(messages, tools) {
        return Err(format!("left out: {left_out:?}"));
    }
    let (opened, variables) = (conversation.generation_prompt, &conversation.template_variables);
    let rendered = template.render_within(messages, tools, opened, variables, &Effort::unbounded());
    let text = rendered.map_err(|error| error.to_string())?.text;
    Ok(json!({"text": text, "format": template.tool_format().map(ToolFormat::name)}))
}
