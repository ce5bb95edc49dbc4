//! Tests of messages on the wire, byte for byte.

use expect_test::expect;
use sched::{Failure, FailureKind, FinishReason, Span};

use super::*;
use crate::model_output::{CallPiece, CallStart, NextSpeaker};
use crate::openai::{AnswerForm, ApiError, Choice, Delta, Head, Repeated, StopReason, Usage};

fn answer() -> MessagesAnswer {
    let head = Head { id: "msg_1".to_owned(), created: 7, model: "demo".to_owned(), service_tier: None };
    MessagesAnswer::new(head, 10)
}

fn usage(cached: u64, completion_tokens: u64) -> Usage {
    Usage { prompt_tokens: 5, completion_tokens, cached_tokens: Some(cached), reasoning_tokens: None }
}

fn text(text: &str) -> Delta {
    Delta { text: text.to_owned(), ..Delta::default() }
}

fn ended(finish: FinishReason) -> Delta {
    Delta { finish: Some(finish), ..Delta::default() }
}

/// A call before which the delta has so many bytes of text.
fn begun(index: u32, content_before: usize, arguments: &str) -> CallPiece {
    let start = CallStart { id: format!("call_{index}"), name: "f".to_owned(), content_before };
    CallPiece { index, start: Some(start), arguments: arguments.to_owned() }
}

fn more(index: u32, arguments: &str) -> CallPiece {
    CallPiece { index, start: None, arguments: arguments.to_owned() }
}

fn calls(calls: Vec<CallPiece>) -> Delta {
    Delta { calls, next: NextSpeaker::Tools, ..Delta::default() }
}

fn streamed(deltas: &[Delta], usage: Usage) -> String {
    let (mut answer, mut out) = (answer(), Vec::new());
    answer.open(0, Repeated::NOTHING, Some(Usage { prompt_tokens: 5, ..Usage::default() }), &mut out);
    for delta in deltas {
        answer.delta(delta, None, &mut out);
    }
    answer.end(Some(usage), &mut out);
    String::from_utf8(out).unwrap()
}

fn whole(deltas: Vec<Delta>, usage: Usage) -> String {
    let mut choice = Choice::default();
    deltas.into_iter().for_each(|delta| choice.extend(delta));
    String::from_utf8(answer().whole(&[(&choice, Repeated::NOTHING)], usage)).unwrap()
}

/// Returns the last event but one of a stream, which says why it has ended.
fn end(deltas: &[Delta], usage: Usage) -> String {
    let stream = streamed(deltas, usage);
    stream.lines().rfind(|line| line.contains("message_delta\",")).unwrap().to_owned()
}

#[test]
fn a_stream_of_text() {
    let deltas = [text("Hel\"lo\n"), text(" there"), ended(FinishReason::Stop)];
    expect![[r#"
        event: message_start
        data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hel\"lo\n"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" there"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":2}}

        event: message_stop
        data: {"type":"message_stop"}

    "#]].assert_eq(&streamed(&deltas, usage(4, 2)));
}

#[test]
fn a_stream_of_thoughts_text_and_calls() {
    let both = Delta { reasoning: " hm".to_owned(), calls: vec![begun(0, 3, "{\"a\"")], ..text("So:") };
    // The end of the first call, text behind it, a further call and the text behind that come at once.
    let then = Delta { calls: vec![more(0, ": 1}"), begun(1, 3, "{}")], ..text("and so") };
    let deltas = [
        Delta { reasoning: "Well,".to_owned(), ..Delta::default() },
        both,
        then,
        Delta { next: NextSpeaker::Tools, ..ended(FinishReason::Stop) },
    ];
    let usage = Usage { reasoning_tokens: Some(2), ..usage(0, 9) };
    expect![[r#"
        event: message_start
        data: {"type":"message_start","message":{"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":0}}}

        event: content_block_start
        data: {"type":"content_block_start","index":0,"content_block":{"type":"thinking","thinking":"","signature":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":"Well,"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":" hm"}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":0,"delta":{"type":"signature_delta","signature":"unsigned"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":0}

        event: content_block_start
        data: {"type":"content_block_start","index":1,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"So:"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":1}

        event: content_block_start
        data: {"type":"content_block_start","index":2,"content_block":{"type":"tool_use","id":"call_0","name":"f","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":"{\"a\""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":2,"delta":{"type":"input_json_delta","partial_json":": 1}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":2}

        event: content_block_start
        data: {"type":"content_block_start","index":3,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":3,"delta":{"type":"text_delta","text":"and"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":3}

        event: content_block_start
        data: {"type":"content_block_start","index":4,"content_block":{"type":"tool_use","id":"call_1","name":"f","input":{}}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":4,"delta":{"type":"input_json_delta","partial_json":"{}"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":4}

        event: content_block_start
        data: {"type":"content_block_start","index":5,"content_block":{"type":"text","text":""}}

        event: content_block_delta
        data: {"type":"content_block_delta","index":5,"delta":{"type":"text_delta","text":" so"}}

        event: content_block_stop
        data: {"type":"content_block_stop","index":5}

        event: message_delta
        data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":9,"output_tokens_details":{"thinking_tokens":2}}}

        event: message_stop
        data: {"type":"message_stop"}

    "#]].assert_eq(&streamed(&deltas, usage));
    expect![[r#"{"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[{"type":"thinking","thinking":"Well, hm","signature":"unsigned"},{"type":"text","text":"So:"},{"type":"tool_use","id":"call_0","name":"f","input":{"a":1}},{"type":"text","text":"and"},{"type":"tool_use","id":"call_1","name":"f","input":{}},{"type":"text","text":" so"}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":9,"output_tokens_details":{"thinking_tokens":2}}}"#]].assert_eq(&whole(deltas.into(), usage));
}

#[test]
fn reasons_of_the_end() {
    let stop = |stop: StopReason| Delta { stop_reason: Some(stop), ..ended(FinishReason::Stop) };
    let call = calls(vec![begun(0, 0, "{}")]);
    let ends = [
        end(&[text("a"), ended(FinishReason::Stop)], usage(0, 2)),
        end(&[text("a"), ended(FinishReason::Length)], usage(0, 10)),
        end(&[text("a"), ended(FinishReason::Length)], usage(0, 9)),
        end(&[call.clone(), stop(StopReason::Text("\n".to_owned()))], usage(0, 2)),
        end(&[text("a"), stop(StopReason::Token(3))], usage(0, 2)),
        // A named call, behind which the model does not speak on in OpenAI's API.
        end(&[call, ended(FinishReason::Stop)], usage(0, 2)),
        end(&[ended(FinishReason::Stop)], usage(0, 1)),
    ];
    expect![[r#"
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}}
        data: {"type":"message_delta","delta":{"stop_reason":"max_tokens","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":10}}
        data: {"type":"message_delta","delta":{"stop_reason":"model_context_window_exceeded","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":9}}
        data: {"type":"message_delta","delta":{"stop_reason":"stop_sequence","stop_sequence":"\n"},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}}
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}}
        data: {"type":"message_delta","delta":{"stop_reason":"tool_use","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":2}}
        data: {"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}"#]].assert_eq(&ends.join("\n"));
}

#[test]
fn whole_answers() {
    let shown = [
        whole(vec![text("a"), ended(FinishReason::Length)], usage(4, 10)),
        whole(vec![ended(FinishReason::Stop)], usage(0, 1)),
        // A call that was cut, and one with what is no object.
        whole(
            vec![calls(vec![begun(0, 0, "[1]"), begun(1, 0, "{\"a\": ")]), ended(FinishReason::Length)],
            usage(9, 10),
        ),
    ];
    expect![[r#"
        {"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[{"type":"text","text":"a"}],"stop_reason":"max_tokens","stop_sequence":null,"usage":{"input_tokens":1,"cache_creation_input_tokens":0,"cache_read_input_tokens":4,"output_tokens":10}}
        {"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":1}}
        {"id":"msg_1","type":"message","role":"assistant","model":"demo","content":[{"type":"tool_use","id":"call_0","name":"f","input":{}},{"type":"tool_use","id":"call_1","name":"f","input":{}}],"stop_reason":"max_tokens","stop_sequence":null,"usage":{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":5,"output_tokens":10}}"#]].assert_eq(&shown.join("\n"));
}

#[test]
fn an_error_after_the_first_byte() {
    let mut out = Vec::new();
    let failure = Failure::new(FailureKind::WorkerLost, "the worker was lost");
    answer().fail(&failure.into(), &mut out);
    answer().fail(&Failure::new(FailureKind::Internal, "the device is broken").into(), &mut out);
    expect![[r#"
        event: error
        data: {"type":"error","error":{"type":"overloaded_error","message":"the worker was lost"}}

        event: error
        data: {"type":"error","error":{"type":"api_error","message":"the device is broken"}}

    "#]]
    .assert_eq(&String::from_utf8(out).unwrap());
}

#[test]
fn errors_have_the_types_of_their_statuses() {
    let failure = |kind, detail: &str| ApiError::from(Failure::new(kind, detail));
    let errors = [
        ApiError::invalid("top_p", "top_p must be a number"),
        ApiError::invalid("top_p", "this must be a number"),
        ApiError::unsupported("n"),
        ApiError::context_overflow("input_tokens", "This model's maximum context length is 8 tokens."),
        ApiError::model_not_found("claude"),
        ApiError::method_not_allowed("GET", "/v1/messages", "POST"),
        ApiError::body_too_large(1024),
        ApiError::overloaded("too many requests", Span::from_ms(1500)),
        ApiError::unauthorized("Incorrect API key provided."),
        ApiError::forbidden("host_not_allowed", "no"),
        failure(FailureKind::WorkerLost, "decode worker 2 is gone"),
        failure(FailureKind::Internal, "broken"),
        failure(FailureKind::DeadlineExceeded, "late"),
    ];
    let shown = errors
        .iter()
        .map(|error| format!("{} {}", error.status, String::from_utf8(error_body(error, "req-1")).unwrap()));
    expect![[r#"
        400 {"type":"error","error":{"type":"invalid_request_error","message":"top_p must be a number"},"request_id":"req-1"}
        400 {"type":"error","error":{"type":"invalid_request_error","message":"top_p: this must be a number"},"request_id":"req-1"}
        400 {"type":"error","error":{"type":"invalid_request_error","message":"n is not supported by this server"},"request_id":"req-1"}
        400 {"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: This model's maximum context length is 8 tokens."},"request_id":"req-1"}
        404 {"type":"error","error":{"type":"not_found_error","message":"The model `claude` does not exist."},"request_id":"req-1"}
        405 {"type":"error","error":{"type":"invalid_request_error","message":"/v1/messages understands POST, not GET."},"request_id":"req-1"}
        413 {"type":"error","error":{"type":"request_too_large","message":"The request body is larger than the limit of 1024 bytes."},"request_id":"req-1"}
        429 {"type":"error","error":{"type":"rate_limit_error","message":"too many requests"},"request_id":"req-1"}
        401 {"type":"error","error":{"type":"authentication_error","message":"Incorrect API key provided."},"request_id":"req-1"}
        403 {"type":"error","error":{"type":"permission_error","message":"no"},"request_id":"req-1"}
        503 {"type":"error","error":{"type":"overloaded_error","message":"decode worker 2 is gone"},"request_id":"req-1"}
        500 {"type":"error","error":{"type":"api_error","message":"broken"},"request_id":"req-1"}
        504 {"type":"error","error":{"type":"timeout_error","message":"late"},"request_id":"req-1"}"#]].assert_eq(&shown.collect::<Vec<_>>().join("\n"));
}

#[test]
fn counts() {
    assert_eq!(counted(3), b"{\"input_tokens\":3}");
}
