//! Tests of answers on the wire, byte for byte, and of streams against whole answers.

use expect_test::expect;
use proptest::prelude::*;
use sched::{FinishReason, SampledToken};
use serde_json::{Value, json};

use super::super::{AnswerForm, ApiError, Choice, Delta, Head, Limits, Repeated, TokenLogprob, TokenNames, Usage};
use super::{ResponseAnswer, ResponsesRequest};
use crate::model_output::{CallPiece, CallStart};
use crate::text::samples;

fn answer(body: &Value) -> ResponseAnswer {
    let limits = Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 };
    let request = ResponsesRequest::parse(body.to_string().as_bytes(), &limits).unwrap();
    let (id, model) = ("resp_1f".to_owned(), "demo".to_owned());
    request.answer(Head { id, created: 1_700_000_000, model, service_tier: None })
}

fn usage() -> Usage {
    Usage { prompt_tokens: 5, completion_tokens: 7, cached_tokens: Some(1), reasoning_tokens: Some(2) }
}

/// Begins a call in a delta, behind `content_before` bytes of its text.
fn call(index: u32, content_before: usize, arguments: &str) -> CallPiece {
    let start = CallStart { id: format!("call_{index}"), name: "f".to_owned(), content_before };
    CallPiece { index, start: Some(start), arguments: arguments.to_owned() }
}

fn more(index: u32, arguments: &str) -> CallPiece {
    CallPiece { index, start: None, arguments: arguments.to_owned() }
}

fn text(text: &str, finish: Option<FinishReason>) -> Delta {
    Delta { text: text.to_owned(), finish, ..Delta::default() }
}

fn logprob() -> TokenLogprob {
    let tokenizer = samples::byte_level();
    let token = tokenizer.token_id("h").unwrap();
    let sampled = SampledToken { token, logprob: Some(-0.5), top: vec![(token, -0.5)] };
    TokenLogprob::of(&sampled, &tokenizer, 0, TokenNames::Texts)
}

/// Writes a stream; the frame of the response object is shortened to `…`.
fn stream(mut answer: ResponseAnswer, deltas: &[Delta], end: impl FnOnce(&mut ResponseAnswer, &mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    answer.open(0, Repeated::NOTHING, None, &mut out);
    for delta in deltas {
        answer.delta(delta, None, &mut out);
    }
    end(&mut answer, &mut out);
    String::from_utf8(out).unwrap()
}

fn shortened(stream: &str) -> String {
    let frame = stream.split_once("\"service_tier\"").unwrap().1.split_once("}\n").unwrap().0;
    stream.replace(&format!(",\"service_tier\"{}", frame.trim_end_matches('}')), "…")
}

#[test]
fn a_whole_answer() {
    let asked = json!({
        "input": "x", "instructions": "Be brief.", "metadata": {"a": "b"}, "temperature": 0.5, "max_output_tokens": 9,
        "tools": [{"type": "function", "name": "f"}], "reasoning": {"effort": "low"}, "user": "u", "seed": 3,
    });
    let choice = Choice { text: "Hi".to_owned(), finish: Some(FinishReason::Stop), ..Choice::default() };
    let out = answer(&asked).whole(&[(&choice, Repeated::NOTHING)], usage());
    expect![[r#"{"id":"resp_1f","object":"response","created_at":1700000000,"status":"completed","error":null,"incomplete_details":null,"model":"demo","output":[{"type":"message","id":"msg_1f0000","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1,"cache_write_tokens":0},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":12},"service_tier":"default","background":false,"instructions":"Be brief.","max_output_tokens":9,"max_tool_calls":null,"metadata":{"a":"b"},"parallel_tool_calls":true,"previous_response_id":null,"reasoning":{"effort":"low","summary":null},"store":false,"temperature":0.5,"text":{"format":{"type":"text"}},"tool_choice":"auto","tools":[{"type":"function","name":"f","parameters":null,"strict":null}],"top_logprobs":0,"top_p":null,"truncation":"disabled","user":"u"}"#]].assert_eq(&String::from_utf8(out).unwrap());
}

#[test]
fn a_stream_of_everything() {
    let deltas = [
        Delta { reasoning: "hm".to_owned(), ..Delta::default() },
        Delta { reasoning: ".".to_owned(), ..text("He", None) },
        Delta { calls: vec![call(0, 3, "{\"a\"")], ..text("llo", None) },
        Delta { calls: vec![more(0, ": 1}"), call(1, 1, "{}")], ..text("\nB", None) },
        text("ye", Some(FinishReason::Length)),
    ];
    let tools = json!({"input": "x", "tools": [{"type": "function", "name": "f"}]});
    let stream = stream(answer(&tools), &deltas, |answer, out| answer.end(Some(usage()), out));
    expect![[r#"
        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"demo","output":[],"usage":null…}}

        event: response.in_progress
        data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"demo","output":[],"usage":null…}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"reasoning","id":"rs_1f0000","summary":[],"content":[],"status":"in_progress"}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":3,"item_id":"rs_1f0000","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":""}}

        event: response.reasoning_text.delta
        data: {"type":"response.reasoning_text.delta","sequence_number":4,"item_id":"rs_1f0000","output_index":0,"content_index":0,"delta":"hm"}

        event: response.reasoning_text.delta
        data: {"type":"response.reasoning_text.delta","sequence_number":5,"item_id":"rs_1f0000","output_index":0,"content_index":0,"delta":"."}

        event: response.reasoning_text.done
        data: {"type":"response.reasoning_text.done","sequence_number":6,"item_id":"rs_1f0000","output_index":0,"content_index":0,"text":"hm."}

        event: response.content_part.done
        data: {"type":"response.content_part.done","sequence_number":7,"item_id":"rs_1f0000","output_index":0,"content_index":0,"part":{"type":"reasoning_text","text":"hm."}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":8,"output_index":0,"item":{"type":"reasoning","id":"rs_1f0000","summary":[],"content":[{"type":"reasoning_text","text":"hm."}],"status":"completed"}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":9,"output_index":1,"item":{"type":"message","id":"msg_1f0001","status":"in_progress","role":"assistant","content":[]}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":10,"item_id":"msg_1f0001","output_index":1,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":11,"item_id":"msg_1f0001","output_index":1,"content_index":0,"delta":"He","logprobs":[]}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":12,"item_id":"msg_1f0001","output_index":1,"content_index":0,"delta":"llo","logprobs":[]}

        event: response.output_text.done
        data: {"type":"response.output_text.done","sequence_number":13,"item_id":"msg_1f0001","output_index":1,"content_index":0,"text":"Hello","logprobs":[]}

        event: response.content_part.done
        data: {"type":"response.content_part.done","sequence_number":14,"item_id":"msg_1f0001","output_index":1,"content_index":0,"part":{"type":"output_text","text":"Hello","annotations":[],"logprobs":[]}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":15,"output_index":1,"item":{"type":"message","id":"msg_1f0001","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello","annotations":[],"logprobs":[]}]}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":16,"output_index":2,"item":{"type":"function_call","id":"fc_1f0002","status":"in_progress","call_id":"call_0","name":"f","arguments":""}}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":17,"item_id":"fc_1f0002","output_index":2,"delta":"{\"a\""}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":18,"item_id":"fc_1f0002","output_index":2,"delta":": 1}"}

        event: response.function_call_arguments.done
        data: {"type":"response.function_call_arguments.done","sequence_number":19,"item_id":"fc_1f0002","output_index":2,"name":"f","arguments":"{\"a\": 1}"}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":20,"output_index":2,"item":{"type":"function_call","id":"fc_1f0002","status":"completed","call_id":"call_0","name":"f","arguments":"{\"a\": 1}"}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":21,"output_index":3,"item":{"type":"message","id":"msg_1f0003","status":"in_progress","role":"assistant","content":[]}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":22,"item_id":"msg_1f0003","output_index":3,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":23,"item_id":"msg_1f0003","output_index":3,"content_index":0,"delta":"\n","logprobs":[]}

        event: response.output_text.done
        data: {"type":"response.output_text.done","sequence_number":24,"item_id":"msg_1f0003","output_index":3,"content_index":0,"text":"\n","logprobs":[]}

        event: response.content_part.done
        data: {"type":"response.content_part.done","sequence_number":25,"item_id":"msg_1f0003","output_index":3,"content_index":0,"part":{"type":"output_text","text":"\n","annotations":[],"logprobs":[]}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":26,"output_index":3,"item":{"type":"message","id":"msg_1f0003","status":"completed","role":"assistant","content":[{"type":"output_text","text":"\n","annotations":[],"logprobs":[]}]}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":27,"output_index":4,"item":{"type":"function_call","id":"fc_1f0004","status":"in_progress","call_id":"call_1","name":"f","arguments":""}}

        event: response.function_call_arguments.delta
        data: {"type":"response.function_call_arguments.delta","sequence_number":28,"item_id":"fc_1f0004","output_index":4,"delta":"{}"}

        event: response.function_call_arguments.done
        data: {"type":"response.function_call_arguments.done","sequence_number":29,"item_id":"fc_1f0004","output_index":4,"name":"f","arguments":"{}"}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":30,"output_index":4,"item":{"type":"function_call","id":"fc_1f0004","status":"completed","call_id":"call_1","name":"f","arguments":"{}"}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":31,"output_index":5,"item":{"type":"message","id":"msg_1f0005","status":"in_progress","role":"assistant","content":[]}}

        event: response.content_part.added
        data: {"type":"response.content_part.added","sequence_number":32,"item_id":"msg_1f0005","output_index":5,"content_index":0,"part":{"type":"output_text","text":"","annotations":[],"logprobs":[]}}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":33,"item_id":"msg_1f0005","output_index":5,"content_index":0,"delta":"B","logprobs":[]}

        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":34,"item_id":"msg_1f0005","output_index":5,"content_index":0,"delta":"ye","logprobs":[]}

        event: response.output_text.done
        data: {"type":"response.output_text.done","sequence_number":35,"item_id":"msg_1f0005","output_index":5,"content_index":0,"text":"Bye","logprobs":[]}

        event: response.content_part.done
        data: {"type":"response.content_part.done","sequence_number":36,"item_id":"msg_1f0005","output_index":5,"content_index":0,"part":{"type":"output_text","text":"Bye","annotations":[],"logprobs":[]}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":37,"output_index":5,"item":{"type":"message","id":"msg_1f0005","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Bye","annotations":[],"logprobs":[]}]}}

        event: response.incomplete
        data: {"type":"response.incomplete","sequence_number":38,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"incomplete","error":null,"incomplete_details":{"reason":"max_output_tokens"},"model":"demo","output":[{"type":"reasoning","id":"rs_1f0000","summary":[],"content":[{"type":"reasoning_text","text":"hm."}],"status":"completed"},{"type":"message","id":"msg_1f0001","status":"completed","role":"assistant","content":[{"type":"output_text","text":"Hello","annotations":[],"logprobs":[]}]},{"type":"function_call","id":"fc_1f0002","status":"completed","call_id":"call_0","name":"f","arguments":"{\"a\": 1}"},{"type":"message","id":"msg_1f0003","status":"completed","role":"assistant","content":[{"type":"output_text","text":"\n","annotations":[],"logprobs":[]}]},{"type":"function_call","id":"fc_1f0004","status":"completed","call_id":"call_1","name":"f","arguments":"{}"},{"type":"message","id":"msg_1f0005","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Bye","annotations":[],"logprobs":[]}]}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1,"cache_write_tokens":0},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":12}…}}

    "#]].assert_eq(&shortened(&stream));
}

#[test]
fn thoughts_as_a_summary() {
    let asked = json!({"input": "x", "reasoning": {"summary": "auto"}});
    let deltas = [Delta { reasoning: "hm".to_owned(), finish: Some(FinishReason::Stop), ..Delta::default() }];
    let stream = stream(answer(&asked), &deltas, |answer, out| answer.end(Some(usage()), out));
    expect![[r#"
        event: response.created
        data: {"type":"response.created","sequence_number":0,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"demo","output":[],"usage":null…}}

        event: response.in_progress
        data: {"type":"response.in_progress","sequence_number":1,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"in_progress","error":null,"incomplete_details":null,"model":"demo","output":[],"usage":null…}}

        event: response.output_item.added
        data: {"type":"response.output_item.added","sequence_number":2,"output_index":0,"item":{"type":"reasoning","id":"rs_1f0000","summary":[],"status":"in_progress"}}

        event: response.reasoning_summary_part.added
        data: {"type":"response.reasoning_summary_part.added","sequence_number":3,"item_id":"rs_1f0000","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":""}}

        event: response.reasoning_summary_text.delta
        data: {"type":"response.reasoning_summary_text.delta","sequence_number":4,"item_id":"rs_1f0000","output_index":0,"summary_index":0,"delta":"hm"}

        event: response.reasoning_summary_text.done
        data: {"type":"response.reasoning_summary_text.done","sequence_number":5,"item_id":"rs_1f0000","output_index":0,"summary_index":0,"text":"hm"}

        event: response.reasoning_summary_part.done
        data: {"type":"response.reasoning_summary_part.done","sequence_number":6,"item_id":"rs_1f0000","output_index":0,"summary_index":0,"part":{"type":"summary_text","text":"hm"}}

        event: response.output_item.done
        data: {"type":"response.output_item.done","sequence_number":7,"output_index":0,"item":{"type":"reasoning","id":"rs_1f0000","summary":[{"type":"summary_text","text":"hm"}],"status":"completed"}}

        event: response.completed
        data: {"type":"response.completed","sequence_number":8,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"completed","error":null,"incomplete_details":null,"model":"demo","output":[{"type":"reasoning","id":"rs_1f0000","summary":[{"type":"summary_text","text":"hm"}],"status":"completed"}],"usage":{"input_tokens":5,"input_tokens_details":{"cached_tokens":1,"cache_write_tokens":0},"output_tokens":7,"output_tokens_details":{"reasoning_tokens":2},"total_tokens":12}…}}

    "#]].assert_eq(&shortened(&stream));
}

#[test]
fn log_probabilities_go_with_the_text() {
    let asked = json!({"input": "x", "include": ["message.output_text.logprobs"]});
    let held = Delta { logprobs: vec![logprob()], ..text("", None) };
    let deltas = [held.clone(), Delta { logprobs: vec![logprob()], ..text("hh", None) }, held, text("", STOP)];
    let stream = stream(answer(&asked), &deltas, |answer, out| answer.end(Some(usage()), out));
    let said: Vec<&str> = stream.lines().filter(|line| line.contains("output_text.d")).collect();
    expect![[r#"
        event: response.output_text.delta
        data: {"type":"response.output_text.delta","sequence_number":4,"item_id":"msg_1f0000","output_index":0,"content_index":0,"delta":"hh","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]}]}
        event: response.output_text.done
        data: {"type":"response.output_text.done","sequence_number":5,"item_id":"msg_1f0000","output_index":0,"content_index":0,"text":"hh","logprobs":[{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]},{"token":"h","logprob":-0.5,"bytes":[104],"top_logprobs":[{"token":"h","logprob":-0.5,"bytes":[104]}]}]}"#]].assert_eq(&said.join("\n"));
}

const STOP: Option<FinishReason> = Some(FinishReason::Stop);

#[test]
fn an_answer_that_says_nothing_has_an_empty_message() {
    let asked = json!({"input": "x"});
    let whole = answer(&asked).whole(&[(&Choice { finish: STOP, ..Choice::default() }, Repeated::NOTHING)], usage());
    let whole: Value = serde_json::from_slice(&whole).unwrap();
    assert_eq!(whole["output"][0]["content"][0]["text"], "");
    let stream = stream(answer(&asked), &[text("", STOP)], |answer, out| answer.end(Some(usage()), out));
    assert_eq!(response(&stream), whole);
}

#[test]
fn a_stream_that_fails() {
    let error = ApiError::from(sched::Failure::new(sched::FailureKind::WorkerLost, "the worker was lost"));
    let stream = stream(answer(&json!({"input": "x"})), &[text("Hi", None)], |answer, out| answer.fail(&error, out));
    let shown = shortened(&stream);
    expect![[r#"
        event: error
        data: {"type":"error","sequence_number":5,"code":"worker_lost","message":"the worker was lost","param":null,"error":{"type":"server_error","code":"worker_lost","message":"the worker was lost","param":null}}

        event: response.failed
        data: {"type":"response.failed","sequence_number":6,"response":{"id":"resp_1f","object":"response","created_at":1700000000,"status":"failed","error":{"code":"server_error","message":"the worker was lost"},"incomplete_details":null,"model":"demo","output":[{"type":"message","id":"msg_1f0000","status":"incomplete","role":"assistant","content":[{"type":"output_text","text":"Hi","annotations":[],"logprobs":[]}]}],"usage":null…}}

    "#]].assert_eq(&shown[shown.find("event: error").unwrap()..]);
}

/// Returns the response object of the last event.
fn response(stream: &str) -> Value {
    let last = stream.trim_end().rsplit_once("data: ").unwrap().1;
    serde_json::from_str::<Value>(last).unwrap()["response"].take()
}

/// What a model says, one character at a time: `.` thinks, `(` begins a call whose arguments go on to `)`.
fn deltas(said: &str, sizes: &[usize]) -> Vec<Delta> {
    let (mut deltas, mut delta) = (Vec::new(), Delta::default());
    let (mut sizes, mut left, mut calls, mut in_call) = (sizes.iter().cycle(), 1, 0, false);
    for letter in said.chars() {
        match letter {
            '.' if delta.text.is_empty() && calls == 0 && deltas.iter().all(|delta: &Delta| delta.text.is_empty()) => {
                delta.reasoning.push(letter);
            }
            '(' if !in_call => {
                delta.calls.push(call(calls, delta.text.len(), "("));
                (calls, in_call) = (calls + 1, true);
            }
            _ if in_call => {
                in_call = letter != ')';
                match delta.calls.last_mut() {
                    Some(piece) => piece.arguments.push(letter),
                    None => delta.calls.push(more(calls - 1, &letter.to_string())),
                }
            }
            _ => delta.text.push(letter),
        }
        left -= 1;
        if left == 0 {
            left = *sizes.next().unwrap();
            deltas.push(std::mem::take(&mut delta));
        }
    }
    delta.finish = STOP;
    deltas.push(delta);
    deltas
}

proptest! {
    #[test]
    fn the_end_of_a_stream_is_the_whole_answer(said in "\\.{0,3}[abé(){}.]{0,16}", sizes in prop::collection::vec(1..6usize, 1..4)) {
        let asked = json!({"input": "x", "tools": [{"type": "function", "name": "f"}]});
        let deltas = deltas(&said, &sizes);
        let stream = stream(answer(&asked), &deltas, |answer, out| answer.end(Some(usage()), out));
        let mut choice = Choice::default();
        deltas.into_iter().for_each(|delta| choice.extend(delta));
        let whole = answer(&asked).whole(&[(&choice, Repeated::NOTHING)], usage());
        prop_assert_eq!(response(&stream), serde_json::from_slice::<Value>(&whole).unwrap());
        let numbers: Vec<usize> = stream
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line.strip_prefix("data: ")?).unwrap()["sequence_number"].as_u64())
            .map(|number| number as usize)
            .collect();
        prop_assert_eq!(&numbers, &(0..numbers.len()).collect::<Vec<_>>());
    }
}
