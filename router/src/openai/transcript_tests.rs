//! Tests of answers on the wire, byte for byte.

use expect_test::expect;
use sched::{FinishReason, SampledToken, TokenId};

use super::*;
use crate::model_output::{CallPiece, CallStart, NextSpeaker};
use crate::text::samples;

fn head(id: &str) -> Head {
    Head { id: id.to_owned(), created: 1_700_000_000, model: "demo".to_owned(), service_tier: None }
}

fn delta(index: u32, text: &str, finish: Option<FinishReason>) -> Delta {
    Delta { index, text: text.to_owned(), finish, ..Delta::default() }
}

fn usage(prompt_tokens: u64, completion_tokens: u64) -> Usage {
    Usage { prompt_tokens, completion_tokens, cached_tokens: Some(1), reasoning_tokens: None }
}

fn text(out: Vec<u8>) -> String {
    String::from_utf8(out).unwrap()
}

/// Token "h" with a broken byte and " world" as alternatives.
fn logprob() -> TokenLogprob {
    let tokenizer = samples::byte_level();
    let sampled = SampledToken {
        token: tokenizer.token_id("h").unwrap(),
        logprob: Some(-0.1),
        top: vec![
            (tokenizer.token_id("h").unwrap(), -0.1),
            (tokenizer.token_id("â").unwrap(), -2.5),
            (tokenizer.token_id("Ġworld").unwrap(), f32::NEG_INFINITY),
        ],
    };
    TokenLogprob::of(&sampled, &tokenizer, 3, TokenNames::Texts)
}

#[test]
fn a_chat_stream() {
    let mut answer = ChatAnswer::new(head("chatcmpl-1"));
    let mut out = Vec::new();
    answer.open(0, Repeated::NOTHING, None, &mut out);
    answer.delta(&delta(0, "Hel\"lo\n", None), None, &mut out);
    answer.delta(&delta(0, " there", Some(FinishReason::Length)), None, &mut out);
    answer.end(Some(usage(5, 2)), &mut out);
    expect![[r#"
        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"content":"Hel\"lo\n"},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"content":" there"},"logprobs":null,"finish_reason":"length","stop_reason":null}]}

        data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[],"usage":{"prompt_tokens":5,"completion_tokens":2,"total_tokens":7,"prompt_tokens_details":{"cached_tokens":1}}}

        data: [DONE]

    "#]].assert_eq(&text(out));
}

#[test]
fn a_chat_stream_of_two_choices_with_token_ids_and_logprobs() {
    let mut answer = ChatAnswer::new(head("chatcmpl-2"));
    let mut out = Vec::new();
    answer.open(0, Repeated { tokens: &[TokenId(1), TokenId(2)], ..Repeated::NOTHING }, None, &mut out);
    answer.open(1, Repeated { tokens: &[TokenId(1), TokenId(2)], ..Repeated::NOTHING }, None, &mut out);
    let first = Delta { tokens: vec![TokenId(71)], logprobs: vec![logprob()], ..delta(1, "h", None) };
    answer.delta(&first, None, &mut out);
    answer.delta(&delta(1, "", Some(FinishReason::Stop)), None, &mut out);
    expect![[r#"
        data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}],"prompt_token_ids":[1,2]}

        data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"delta":{"role":"assistant","content":""},"logprobs":null,"finish_reason":null}]}

        data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"delta":{"content":"h"},"logprobs":{"content":[{"token":"h","logprob":-0.10000000149011612,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.10000000149011612,"bytes":[104]},{"token":"�","logprob":-2.5,"bytes":[226]},{"token":" world","logprob":-9999.0,"bytes":[32,119,111,114,108,100]}]}]},"finish_reason":null,"token_ids":[71]}]}

        data: {"id":"chatcmpl-2","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"delta":{},"logprobs":null,"finish_reason":"stop","stop_reason":null}]}

    "#]].assert_eq(&text(out));
}

#[test]
fn a_completion_stream() {
    let mut answer = CompletionAnswer::new(head("cmpl-1"));
    let mut out = Vec::new();
    answer.open(0, Repeated::NOTHING, None, &mut out);
    answer.open(1, Repeated { echo: "Once", tokens: &[TokenId(4)], logprobs: None }, None, &mut out);
    answer.delta(&Delta { logprobs: vec![logprob()], ..delta(1, "h", None) }, None, &mut out);
    answer.delta(&delta(1, "", Some(FinishReason::Stop)), None, &mut out);
    answer.end(Some(usage(1, 2)), &mut out);
    expect![[r#"
        data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"text":"Once","logprobs":null,"finish_reason":null,"prompt_token_ids":[4]}]}

        data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"text":"h","logprobs":{"text_offset":[3],"token_logprobs":[-0.10000000149011612],"tokens":["h"],"top_logprobs":[{"h":-0.10000000149011612,"bytes:\\xe2":-2.5," world":-9999.0}]},"finish_reason":null}]}

        data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":1,"text":"","logprobs":null,"finish_reason":"stop","stop_reason":null}]}

        data: {"id":"cmpl-1","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: [DONE]

    "#]].assert_eq(&text(out));
}

#[test]
fn an_error_after_the_first_byte() {
    let mut out = Vec::new();
    let failure = sched::Failure::new(sched::FailureKind::WorkerLost, "the worker was lost");
    sse::error(&failure.into(), &mut out);
    expect![[r#"
        data: {"error":{"message":"the worker was lost","type":"server_error","param":null,"code":"worker_lost"}}

    "#]]
    .assert_eq(&text(out));
}

#[test]
fn a_stream_of_thoughts_and_calls() {
    let mut answer = ChatAnswer::new(head("chatcmpl-5"));
    let start = Some(CallStart { id: "call_1".to_owned(), name: "f".to_owned(), content_before: 0 });
    let calls = vec![
        CallPiece { index: 0, start, arguments: "{\"a\"".to_owned() },
        CallPiece { index: 0, start: None, arguments: ": 1}".to_owned() },
    ];
    let both = Delta { reasoning: "hm".to_owned(), tokens: vec![TokenId(7)], calls, ..delta(0, "So:", None) };
    let mut out = Vec::new();
    answer.delta(&both, Some(usage(2, 1)), &mut out);
    answer.delta(&Delta { next: NextSpeaker::Tools, ..delta(0, "", Some(FinishReason::Stop)) }, None, &mut out);
    expect![[r#"
        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"reasoning_content":"hm","reasoning":"hm"},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"content":"So:"},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"call_1","type":"function","function":{"name":"f","arguments":""}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"{\"a\""}}]},"logprobs":null,"finish_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":": 1}"}}]},"logprobs":null,"finish_reason":null,"token_ids":[7]}],"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3,"prompt_tokens_details":{"cached_tokens":1}}}

        data: {"id":"chatcmpl-5","object":"chat.completion.chunk","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"delta":{},"logprobs":null,"finish_reason":"tool_calls","stop_reason":null}]}

    "#]].assert_eq(&text(out));
    let mut choice = Choice::default();
    choice.extend(both);
    choice.extend(Delta { next: NextSpeaker::Tools, ..delta(0, "", Some(FinishReason::Length)) });
    let usage = Usage { reasoning_tokens: Some(1), ..usage(2, 3) };
    let shown = text(answer.whole(&[(&choice, Repeated::NOTHING)], usage));
    expect![[r#"{"id":"chatcmpl-5","object":"chat.completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"So:","refusal":null,"reasoning_content":"hm","reasoning":"hm","tool_calls":[{"id":"call_1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}}]},"logprobs":null,"finish_reason":"length","stop_reason":null,"token_ids":[7]}],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1},"completion_tokens_details":{"reasoning_tokens":1}}}"#]].assert_eq(&shown);
    choice.text.clear();
    let shown = text(answer.whole(&[(&choice, Repeated::NOTHING)], usage));
    assert!(shown.contains(r#""content":null"#), "{shown}");
}

#[test]
fn whole_answers() {
    let mut choice = Choice::default();
    choice.extend(Delta { tokens: vec![TokenId(71)], logprobs: vec![logprob()], ..delta(0, "h", None) });
    choice.extend(delta(0, "!", Some(FinishReason::Stop)));
    let usage = usage(2, 2);
    let plain = Choice { text: "x".to_owned(), finish: Some(FinishReason::Length), ..Choice::default() };
    let tokens = Repeated { tokens: &[TokenId(1)], ..Repeated::NOTHING };
    let echo = Repeated { echo: "\"ec", ..Repeated::NOTHING };
    let shown = [
        ChatAnswer::new(head("chatcmpl-3")).whole(&[(&choice, tokens)], usage),
        ChatAnswer::new(head("chatcmpl-4")).whole(&[(&plain, Repeated::NOTHING)], usage),
        CompletionAnswer::new(head("cmpl-2")).whole(&[(&choice, tokens)], usage),
        CompletionAnswer::new(head("cmpl-3")).whole(&[(&plain, echo)], usage),
    ]
    .map(text)
    .join("\n");
    expect![[r#"
        {"id":"chatcmpl-3","object":"chat.completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"h!","refusal":null},"logprobs":{"content":[{"token":"h","logprob":-0.10000000149011612,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.10000000149011612,"bytes":[104]},{"token":"�","logprob":-2.5,"bytes":[226]},{"token":" world","logprob":-9999.0,"bytes":[32,119,111,114,108,100]}]}]},"finish_reason":"stop","stop_reason":null,"token_ids":[71]}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":1}},"prompt_token_ids":[1]}
        {"id":"chatcmpl-4","object":"chat.completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"message":{"role":"assistant","content":"x","refusal":null},"logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":1}}}
        {"id":"cmpl-2","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"text":"h!","logprobs":{"text_offset":[3],"token_logprobs":[-0.10000000149011612],"tokens":["h"],"top_logprobs":[{"h":-0.10000000149011612,"bytes:\\xe2":-2.5," world":-9999.0}]},"finish_reason":"stop","stop_reason":null,"token_ids":[71],"prompt_token_ids":[1]}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":1}}}
        {"id":"cmpl-3","object":"text_completion","created":1700000000,"model":"demo","system_fingerprint":"baton-0.1.0","choices":[{"index":0,"text":"\"ecx","logprobs":null,"finish_reason":"length","stop_reason":null}],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4,"prompt_tokens_details":{"cached_tokens":1}}}"#]].assert_eq(&shown);
}

#[test]
fn models_and_tokens() {
    let shown = [
        model_list(&["demo".to_owned(), "small".to_owned()], 7, 64),
        model_object("demo", 7, 64),
        tokenized(&[TokenId(3)], Some(&["a".to_owned()]), 64),
        tokenized(&[TokenId(3)], None, 64),
        detokenized("a"),
    ]
    .map(text)
    .join("\n");
    expect![[r#"
        {"object":"list","data":[{"id":"demo","object":"model","created":7,"owned_by":"baton","max_model_len":64},{"id":"small","object":"model","created":7,"owned_by":"baton","max_model_len":64}]}
        {"id":"demo","object":"model","created":7,"owned_by":"baton","max_model_len":64}
        {"count":1,"max_model_len":64,"tokens":[3],"token_strs":["a"]}
        {"count":1,"max_model_len":64,"tokens":[3],"token_strs":null}
        {"prompt":"a"}"#]].assert_eq(&shown);
}
