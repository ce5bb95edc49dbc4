//! Tests of messages and of texts to tokenize: those accepted, and the errors for the others.

use serde_json::{Value, json};

use super::request_tests::limits;
use super::*;

#[test]
fn tokenize_requests() {
    let error = TokenizeRequest::parse(b"{}").unwrap_err();
    assert_eq!(error.message, "prompt or messages is missing");
    let error = DetokenizeRequest::parse(br#"{"tokens": [1, 300]}"#, &limits()).unwrap_err();
    assert_eq!(error.message, "tokens[1] must be an integer from 0 to 299, but is 300");
    let request = TokenizeRequest::parse(br#"{"messages": [{"role": "user", "content": "x"}]}"#).unwrap();
    assert!(matches!(request.input, TokenizeInput::Conversation(_)));
}

#[test]
fn tokenize_refuses_what_the_endpoint_with_that_prompt_refuses() {
    let messages = json!([{"role": "user", "content": "x"}]);
    let more = [
        ("tools", json!([{"type": "function"}])),
        ("tool_choice", json!("required")),
        ("documents", json!([{"text": "x"}])),
        ("chat_template", json!("x")),
    ];
    for (name, value) in more {
        let mut body = json!({"messages": messages});
        body[name] = value;
        let chat = ChatRequest::parse(body.to_string().as_bytes(), &limits()).unwrap_err();
        let tokenize = TokenizeRequest::parse(body.to_string().as_bytes()).unwrap_err();
        assert_eq!((tokenize.message, tokenize.param), (chat.message, chat.param), "{name}");
    }
    let truncated = TokenizeRequest::parse(br#"{"prompt": "x", "truncate_prompt_tokens": 3}"#).unwrap_err();
    assert_eq!(truncated.param.as_deref(), Some("truncate_prompt_tokens"));
    let body = br#"{"prompt": "x", "suffix": "y"}"#;
    let (tokenize, completion) = (TokenizeRequest::parse(body), CompletionRequest::parse(body, &limits()));
    assert_eq!(tokenize.unwrap_err().message, completion.unwrap_err().message);
    let both = TokenizeRequest::parse(br#"{"prompt": "x", "messages": []}"#).unwrap_err();
    assert_eq!(both.message, "prompt and messages exclude each other");
}

#[test]
fn a_turn_that_is_to_be_continued_is_refused_by_name() {
    for name in ["prefix", "partial"] {
        let body = |value: bool| json!({"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", name: value}]});
        let parse = |value| ChatRequest::parse(body(value).to_string().as_bytes(), &limits());
        let refused = parse(true).unwrap_err();
        let field = format!("messages[1].{name}");
        assert_eq!((refused.param.as_deref(), refused.code), (Some(field.as_str()), Some("unsupported_parameter")));
        assert!(parse(false).is_ok());
        assert!(TokenizeRequest::parse(body(true).to_string().as_bytes()).is_err());
    }
}

#[test]
fn thoughts_come_with_the_turn() {
    let parse = |message: Value| {
        let body = json!({"messages": [message]});
        ChatRequest::parse(body.to_string().as_bytes(), &limits())
            .map(|request| request.conversation.messages[0].clone())
    };
    let message = |name: &str| json!({"role": "assistant", "content": "a", name: "hm"});
    assert_eq!(parse(message("reasoning_content")).unwrap().reasoning.as_deref(), Some("hm"));
    assert_eq!(parse(message("reasoning")).unwrap().reasoning.as_deref(), Some("hm"));
    assert_eq!(parse(message("thinking")).unwrap().thinking.as_deref(), Some("hm"));
    let both = |one: &str, other: &str| {
        parse(json!({"role": "assistant", "content": "a", "reasoning": one, "reasoning_content": other}))
    };
    assert_eq!(both("hm", "hm").unwrap().reasoning.as_deref(), Some("hm"));
    let differ = "messages[0]: reasoning and reasoning_content are one field, but differ";
    assert_eq!(both("hm", "ha").unwrap_err().message, differ);
    let wrong = parse(json!({"role": "assistant", "content": "a", "reasoning": 1})).unwrap_err();
    assert_eq!(wrong.message, "messages[0].reasoning must be a string, but is 1");
}
