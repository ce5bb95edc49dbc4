//! Tests of the reader of calls: each format, cut in any way, with everything that can go wrong.

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::calls::{CallReader, More};
use super::{CallPiece, CallsPerTurn, Function, Pieces, ToolFormat};

/// Content, and the name and arguments of each call.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Parts {
    content: String,
    calls: Vec<(String, String)>,
}

fn functions() -> Arc<[Function]> {
    let weather =
        json!({"properties": {"place": {"type": "string"}, "days": {"type": "integer"}, "near": {"type": "array"}}});
    let clock = json!({});
    [("weather", weather), ("clock", clock)]
        .map(|(name, parameters)| Function::new(name, parameters.as_object().unwrap()))
        .into()
}

fn read_cut<'t>(format: ToolFormat, limit: CallsPerTurn, pieces: impl Iterator<Item = &'t str>) -> Parts {
    let mut reader = CallReader::new(format, functions(), limit, 7);
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::<CallPiece>::new());
    let mut out = Pieces { content: &mut content, reasoning: &mut reasoning, calls: &mut calls };
    for piece in pieces {
        if reader.push(piece, &mut out) == More::Over {
            break;
        }
    }
    reader.finish(&mut out);
    assert_eq!(reader.has_called(), !calls.is_empty());
    let mut whole: Vec<(String, String)> = Vec::new();
    for piece in calls {
        if let Some(start) = piece.start {
            assert_eq!(piece.index as usize, whole.len());
            whole.push((start.name, String::new()));
        }
        assert_eq!(piece.index as usize + 1, whole.len(), "a call's pieces follow its start");
        whole.last_mut().unwrap().1.push_str(&piece.arguments);
    }
    Parts { content, calls: whole }
}

/// Reads a text whole and in pieces of several sizes, which must agree.
fn read(format: ToolFormat, text: &str) -> Parts {
    let whole = read_cut(format, CallsPerTurn::Many, std::iter::once(text));
    let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
    for size in [1, 2, 3, 7] {
        let cuts: Vec<usize> = ends.iter().copied().step_by(size).chain([text.len()]).collect();
        let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        assert_eq!(read_cut(format, CallsPerTurn::Many, pieces), whole, "{text:?} in pieces of {size}");
    }
    whole
}

fn parts(content: &str, calls: &[(&str, &str)]) -> Parts {
    let calls = calls.iter().map(|(name, arguments)| ((*name).to_owned(), (*arguments).to_owned()));
    Parts { content: content.to_owned(), calls: calls.collect() }
}

const ULM: &str = r#"{"place": "Ülm \"}</tool_call>", "days": 2}"#;

#[test]
fn each_format_is_read() {
    let hermes = format!(
        "Let me see.\n<tool_call>\n{{\"name\": \"weather\", \"arguments\": {ULM}}}\n</tool_call>\n<tool_call>\n{{\"name\": \"clock\", \"arguments\": {{}}}}\n</tool_call>"
    );
    let both = [("weather", ULM), ("clock", "{}")];
    assert_eq!(read(ToolFormat::Hermes, &hermes), parts("Let me see.", &both));

    let llama = format!(r#"{{"name": "weather", "parameters": {ULM}}}"#);
    let clock = r#"{"name": "clock", "parameters": {}}"#;
    for text in [llama.clone(), format!("<|python_tag|>{llama}"), format!(" \n{llama}\n")] {
        assert_eq!(read(ToolFormat::Llama3Json, &text), parts("", &both[..1]), "{text}");
    }
    for separator in ["; ", ";", "\n"] {
        let text = format!("<|python_tag|>{llama}{separator}{clock}");
        assert_eq!(read(ToolFormat::Llama3Json, &text), parts("", &both), "{text}");
    }

    let object = |name: &str, arguments: &str| format!(r#"{{"name": "{name}", "arguments": {arguments}}}"#);
    let list = format!("[{}, {}]", object("weather", ULM), object("clock", "{}"));
    assert_eq!(read(ToolFormat::Mistral, &format!("[TOOL_CALLS]{list}")), parts("", &both));
    assert_eq!(read(ToolFormat::Mistral, &format!("Yes.[TOOL_CALLS] {list}")), parts("Yes.", &both));
    let named = format!("[TOOL_CALLS]weather[ARGS]{ULM}[TOOL_CALLS]clock[CALL_ID]abcdefghi[ARGS]{{}}");
    assert_eq!(read(ToolFormat::Mistral, &named), parts("", &both));
    assert_eq!(read(ToolFormat::Granite, &format!("<|tool_call|>{list}")), parts("", &both));

    let fenced = |name: &str, arguments: &str| {
        format!("<｜tool▁call▁begin｜>function<｜tool▁sep｜>{name}\n```json\n{arguments}\n```<｜tool▁call▁end｜>")
    };
    let v3 =
        format!("So.<｜tool▁calls▁begin｜>{}\n{}<｜tool▁calls▁end｜>", fenced("weather", ULM), fenced("clock", "{}"));
    assert_eq!(read(ToolFormat::DeepseekV3, &v3), parts("So.", &both));
    let v31 = format!(
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{ULM}<｜tool▁call▁end｜><｜tool▁call▁begin｜>clock<｜tool▁sep｜>{{}}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
    );
    assert_eq!(read(ToolFormat::DeepseekV3, &v31), parts("", &both));
}

#[test]
fn arguments_in_tags_become_json() {
    let text = "Well.\n\n<tool_call>\n<function=weather>\n<parameter=place>\nUlm \"<b>\"\nnow\n</parameter>\n<parameter=days>\n2\n</parameter>\n<parameter=near>\n[{\"x\": 1.5}]\n</parameter>\n</function>\n</tool_call>\n<tool_call>\n<function=clock>\n</function>\n</tool_call>";
    let arguments = r#"{"place": "Ulm \"<b>\"\nnow", "days": 2, "near": [{"x":1.5}]}"#;
    assert_eq!(read(ToolFormat::Qwen3Coder, text), parts("Well.", &[("weather", arguments), ("clock", "{}")]));
    for (value, place) in [
        ("\n\n", "\"\""),
        ("", "\"\""),
        ("\n\n\na\n\n", "\"\\n\\na\\n\""),
        ("a</param\n</b>", "\"a</param\\n</b>\""),
        ("12", "\"12\""),
    ] {
        let text = format!(
            "<tool_call><function=weather><parameter=place>{value}</parameter><parameter=days>many</parameter></function></tool_call>"
        );
        let arguments = format!("{{\"place\": {place}, \"days\": \"many\"}}");
        assert_eq!(read(ToolFormat::Qwen3Coder, &text), parts("", &[("weather", &arguments)]), "{value:?}");
    }
    let cut = "<tool_call><function=weather><parameter=place>\nUlm\n</par";
    assert_eq!(read(ToolFormat::Qwen3Coder, cut), parts("\n</par", &[("weather", "{\"place\": \"Ulm")]));
}

#[test]
fn what_is_no_call_is_content() {
    for (format, text) in [
        (ToolFormat::Hermes, "<tool_call>"),
        (ToolFormat::Hermes, "a <tool_cal"),
        (ToolFormat::Hermes, "a \n <tool_call> no"),
        (ToolFormat::Hermes, "<tool_call>\n{\"name\": \"f\", \"arguments\": [1]}\n</tool_call>"),
        (ToolFormat::Hermes, "<tool_call>\n{\"arguments\": {\"a\": 1}, \"nam"),
        (ToolFormat::Hermes, "<tool_call><tool_call"),
        (ToolFormat::Llama3Json, "{\"name\": \"unknown\", \"parameters\": {}}"),
        (ToolFormat::Llama3Json, "{\"answer\": 42}"),
        // Found by fuzzing: cut inside the name, it was a call.
        (ToolFormat::Llama3Json, "{\"name\": \"un<|python_tag|>known\", \"parameters\": {}}"),
        (ToolFormat::Llama3Json, "A {\"name\": \"weather\", \"parameters\": {}}"),
        (ToolFormat::Llama3Json, "<|python_tag|>print(1)"),
        (ToolFormat::Mistral, "[TOOL_CALLS]I would call { this }"),
        (ToolFormat::Mistral, "[TOOL_CALLS][]"),
        (ToolFormat::Qwen3Coder, "<tool_call>{\"name\": \"weather\"}</tool_call>"),
        (ToolFormat::DeepseekV3, "<｜tool▁calls▁begin｜>weather"),
        (ToolFormat::Granite, "<|tool_call|>weather"),
    ] {
        let expected = if text == "[TOOL_CALLS][]" { "" } else { text };
        assert_eq!(read(format, text), parts(expected, &[]), "{format:?}");
    }
}

#[test]
fn a_call_that_breaks_off_stays_begun_and_what_follows_is_content() {
    let text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Ul";
    assert_eq!(read(ToolFormat::Hermes, text), parts("", &[("weather", "{\"place\": \"Ul")]));
    let text = "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": oops}}\n</tool_call> Sorry.";
    let expected = parts("oops}}\n</tool_call> Sorry.", &[("weather", "{\"place\": ")]);
    assert_eq!(read(ToolFormat::Hermes, text), expected);
    let text = "<tool_call>{\"name\": \"clock\"}</tool_call>\nDone. <tool_call>no";
    assert_eq!(read(ToolFormat::Hermes, text), parts("\nDone. <tool_call>no", &[("clock", "{}")]));
    let text = "[TOOL_CALLS]clock[ARGS]{}\n";
    assert_eq!(read(ToolFormat::Mistral, text), parts("", &[("clock", "{}")]));
}

#[test]
fn an_answer_in_json_is_not_held_back() {
    let mut reader = CallReader::new(ToolFormat::Llama3Json, functions(), CallsPerTurn::Many, 7);
    let (mut content, mut reasoning, mut calls) = (String::new(), String::new(), Vec::new());
    let mut out = Pieces { content: &mut content, reasoning: &mut reasoning, calls: &mut calls };
    reader.push("{\"answer\": \"so", &mut out);
    assert_eq!(content, "{\"answer\": \"so");
}

#[test]
fn one_call_is_enough_where_one_is_wanted() {
    let text = "a<tool_call>{\"name\": \"clock\"}</tool_call><tool_call>{\"name\": \"weather\"}</tool_call>b";
    for size in [1, 5, 1000] {
        let cuts: Vec<usize> = (0..text.len()).step_by(size).chain([text.len()]).collect();
        let pieces = cuts.windows(2).map(|pair| &text[pair[0]..pair[1]]);
        let read = read_cut(ToolFormat::Hermes, CallsPerTurn::One, pieces);
        assert_eq!(read, parts("a", &[("clock", "{}")]));
    }
}

/// Text made of what formats are made of.
fn fragments() -> impl Strategy<Value = String> {
    let words = prop::sample::select(vec![
        "<tool_call>",
        "</tool_call>",
        "<|python_tag|>",
        "[TOOL_CALLS]",
        "[ARGS]",
        "[CALL_ID]",
        "{\"name\": \"",
        "clock",
        "weather",
        "\", \"arguments\": ",
        "\", \"parameters\": ",
        "{}",
        "}",
        "{",
        "[",
        "]",
        ",",
        "; ",
        " ",
        "\n",
        "é☃",
        "\"",
        "\\",
        "<function=",
        ">",
        "<parameter=place>",
        "</parameter>",
        "</function>",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁call▁begin｜>",
        "function",
        "<｜tool▁sep｜>",
        "\n```json\n",
        "```",
        "<｜tool▁call▁end｜>",
        "<｜tool▁calls▁end｜>",
        "<|tool_call|>",
    ]);
    prop::collection::vec(words, 0..14).prop_map(|words| words.concat())
}

fn any_json(depth: u32) -> BoxedStrategy<Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        "[{}\\[\\]\"<>/tool_cal\\\\é\n ]{0,20}".prop_map(Value::from),
    ];
    leaf.prop_recursive(depth, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..4)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
    .boxed()
}

proptest! {
    #[test]
    fn cuts_do_not_matter(format in prop::sample::select(ToolFormat::ALL.to_vec()), text in fragments()) {
        read(format, &text);
    }

    #[test]
    fn any_arguments_come_through(
        format in prop::sample::select(vec![ToolFormat::Hermes, ToolFormat::Llama3Json, ToolFormat::Mistral, ToolFormat::Granite]),
        arguments in prop::collection::hash_map(any::<String>(), any_json(3), 0..4),
    ) {
        let arguments = Value::Object(arguments.into_iter().collect()).to_string();
        let object = |key: &str| format!("{{\"name\": \"weather\", \"{key}\": {arguments}}}");
        let text = match format {
            ToolFormat::Hermes => format!("<tool_call>\n{}\n</tool_call>", object("arguments")),
            ToolFormat::Llama3Json => object("parameters"),
            ToolFormat::Mistral => format!("[TOOL_CALLS]weather[ARGS]{arguments}"),
            _ => format!("<|tool_call|>[{}]", object("arguments")),
        };
        prop_assert_eq!(read(format, &text), parts("", &[("weather", &arguments)]));
    }
}
