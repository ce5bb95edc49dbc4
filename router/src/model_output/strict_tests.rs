//! Answers that may call strict tools: whatever their grammar lets through is read back as valid calls.

use std::collections::BTreeSet;

use proptest::prelude::*;
use sched::{TokenId, rng};
use serde::de::IgnoredAny;
use serde_json::{Map, Value, json};

use super::{
    Arguments, Begins, CallPiece, CallReading, Callable, Calls, CallsPerTurn, Content, Function, NextSpeaker, Pieces,
    Reader, Reading, ReasoningForm, Tags, ToolFormat, answer_grammar,
};
use crate::text::{Tokenizer, samples};

/// Whether the marks of a format are control tokens of the vocabulary or text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marks {
    Control,
    Text,
}

/// A tokenizer of bytes, with all marks as control tokens, or none.
fn tokenizer(marks: Marks) -> Tokenizer {
    let mut json = samples::byte_level_json();
    if marks == Marks::Control {
        let tags = Tags::KNOWN[..1].iter().flat_map(|tags| [tags.open, tags.close]);
        let all: BTreeSet<&str> = ToolFormat::ALL.into_iter().flat_map(ToolFormat::marks).chain(tags).collect();
        let added = json["added_tokens"].as_array_mut().unwrap();
        let first = added.iter().filter_map(|token| token["id"].as_u64()).max().unwrap() + 1;
        let plain = added[0].clone();
        for (id, mark) in (first..).zip(all) {
            let mut token = plain.clone();
            (token["id"], token["content"]) = (json!(id), json!(mark));
            added.push(token);
        }
    }
    Tokenizer::from_json(json.to_string().as_bytes()).unwrap()
}

fn schema() -> Map<String, Value> {
    let schema = json!({
        "type": "object", "additionalProperties": false, "required": ["place", "days"],
        "properties": {"place": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
    });
    schema.as_object().unwrap().clone()
}

/// An answer to read, and the grammar that it follows.
struct Case {
    tokenizer: Tokenizer,
    matcher: vocabulary::Matcher,
    reading: Reading,
    grammar: String,
}

impl Case {
    fn new(format: ToolFormat, marks: Marks, limit: CallsPerTurn, begins: Option<Begins>) -> Case {
        let tokenizer = tokenizer(marks);
        let schema = schema();
        let functions = [
            Callable { name: "weather", arguments: Arguments::Strict(&schema) },
            Callable { name: "any", arguments: Arguments::Any },
        ];
        let thoughts = begins.map(|begins| (Tags::KNOWN[0], begins));
        let control = |mark: &str| tokenizer.token_id(mark).filter(|token| tokenizer.pieces().is_special(*token));
        let calls = Calls { format, functions: &functions, limit };
        let grammar = answer_grammar(Some(calls), Content::Free, thoughts, &control).unwrap();
        let grammars = vocabulary::Grammars::new(tokenizer.pieces()).unwrap();
        let matcher = grammars.compile(&grammar).unwrap_or_else(|error| panic!("{error}: {grammar}"));
        let functions = [Function::new("weather", &schema), Function::new("any", &Map::new())];
        let calls = CallReading { format, functions: functions.into(), limit, then: NextSpeaker::Tools };
        let reading = Reading { thoughts, reasoning: ReasoningForm::Beside, calls: Some(calls), shown: [].into() };
        Case { tokenizer, matcher, reading, grammar }
    }

    fn bytes(&self, token: TokenId) -> &[u8] {
        self.tokenizer.pieces().bytes(token)
    }

    /// Returns whether the text may begin so, and end there. It does not matter whether marks are spelled out, even if they
    /// are control tokens.
    fn allows(&self, text: &str) -> (bool, bool) {
        let allowed = self.allows_in(text, Marks::Control);
        assert_eq!(self.allows_in(text, Marks::Text), allowed, "{text:?}: {}", self.grammar);
        allowed
    }

    fn allows_in(&self, text: &str, marks: Marks) -> (bool, bool) {
        let mut matcher = self.matcher.fresh();
        let mut rest = text.as_bytes();
        while !rest.is_empty() {
            let fits = |token: &TokenId| {
                let bytes = self.bytes(*token);
                !bytes.is_empty()
                    && rest.starts_with(bytes)
                    && (bytes.len() == 1 || (marks == Marks::Control && self.tokenizer.pieces().is_special(*token)))
            };
            let tokens = (0..self.tokenizer.pieces().len() as u32).map(TokenId).filter(fits);
            let token = tokens.max_by_key(|token| self.bytes(*token).len()).unwrap();
            if !matcher.accepts(token).unwrap() {
                return (false, false);
            }
            matcher.push(token).unwrap();
            rest = &rest[self.bytes(token).len()..];
        }
        (true, matcher.mask().unwrap().may_end())
    }

    /// Goes through the grammar by chance until it ends. Marks, and what closes things, are likelier than their share; half
    /// of the walks write the text that opens calls at some place, or a whole call.
    fn walk(&self, seed: u64) -> Option<String> {
        const LIKELY: &[u8] = b"<[{}>\"/_]|tolcanme";
        let mut matcher = self.matcher.fresh();
        let mut text = Vec::new();
        let format = self.reading.calls.as_ref().map(|calls| calls.format);
        let (_, opens, call, _) = ANSWERS.into_iter().find(|answer| Some(answer.0) == format).unwrap();
        let mut planned = if seed.is_multiple_of(4) { call } else { opens }.bytes().peekable();
        for position in 0..3000 {
            let mask = matcher.mask().unwrap();
            let chance = |salt: u32| rng::uniform_f64(seed, position, salt);
            let is_planned = seed.is_multiple_of(2) && position >= 5 + seed % 30 && planned.peek().is_some();
            let is_done = seed.is_multiple_of(4) && planned.peek().is_none();
            if mask.must_end() || (mask.may_end() && !is_planned && (is_done || chance(0) < 0.02)) {
                return Some(String::from_utf8(text).unwrap());
            }
            let allowed: Vec<TokenId> = (0..mask.tokens()).map(TokenId).filter(|token| mask.allows(*token)).collect();
            let plan = if is_planned { planned.peek().copied() } else { None };
            let likely = |token: &&TokenId| {
                let bytes = self.bytes(**token);
                let closes = position > 600 && matches!(bytes, b"}" | b"\"" | b"]");
                closes || (position < 600 && (bytes.iter().all(|byte| LIKELY.contains(byte)) || bytes.len() > 8))
            };
            let favoured: Vec<&TokenId> = allowed.iter().filter(likely).collect();
            let all: Vec<&TokenId> = allowed.iter().collect();
            let from = if !favoured.is_empty() && chance(1) < 0.8 { &favoured } else { &all };
            let by_chance = *from[(chance(2) * from.len() as f64) as usize];
            let by_plan = allowed.iter().find(|token| plan.is_some_and(|byte| self.bytes(**token) == [byte]));
            planned.next_if(|_| by_plan.is_some());
            let token = by_plan.copied().unwrap_or(by_chance);
            matcher.push(token).unwrap();
            text.extend_from_slice(self.bytes(token));
        }
        None
    }

    /// Content, and name and arguments of each call.
    fn read(&self, text: &str) -> (String, Vec<(String, String)>) {
        let mut reader = Reader::new(&self.reading, 7);
        let (mut content, mut reasoning, mut pieces) = (String::new(), String::new(), Vec::<CallPiece>::new());
        let mut out = Pieces { content: &mut content, reasoning: &mut reasoning, calls: &mut pieces };
        for c in text.chars() {
            reader.push(c.encode_utf8(&mut [0; 4]), &mut out);
        }
        reader.finish(&mut out);
        let mut calls: Vec<(String, String)> = Vec::new();
        for piece in pieces {
            if let Some(start) = piece.start {
                calls.push((start.name, String::new()));
            }
            calls.last_mut().unwrap().1.push_str(&piece.arguments);
        }
        (content, calls)
    }

    /// Text behind the thoughts.
    fn behind_thoughts<'t>(&self, text: &'t str) -> &'t str {
        let Some((tags, begins)) = self.reading.thoughts else { return text };
        let thinks = match begins {
            Begins::Unopened => text.trim_start().starts_with(tags.open),
            Begins::Inside | Begins::Amid => true,
            Begins::Behind => false,
        };
        if thinks { text.split_once(tags.close).map_or("", |(_, behind)| behind) } else { text }
    }
}

/// Whether the arguments are what the function takes.
fn is_valid(name: &str, arguments: &str) -> bool {
    // Of any arguments, numbers may be larger than those that we can hold.
    let is_any = || arguments.trim_start().starts_with('{') && serde_json::from_str::<IgnoredAny>(arguments).is_ok();
    let is_weather = || {
        let Ok(Value::Object(map)) = serde_json::from_str(arguments) else { return false };
        let unit = map.get("unit").is_none_or(|unit| unit == "C" || unit == "F");
        let days = map.get("days").is_some_and(|days| days.as_f64().is_some_and(|days| days.fract() == 0.0));
        let known = map.keys().all(|key| ["place", "days", "unit"].contains(&key.as_str()));
        unit && days && known && map.get("place").is_some_and(Value::is_string)
    };
    match name {
        "weather" => is_weather(),
        _ => name == "any" && is_any(),
    }
}

fn formats() -> impl Strategy<Value = ToolFormat> {
    prop::sample::select(ToolFormat::ALL.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn what_the_grammar_lets_through_is_read_as_valid_calls(
        format in formats(),
        marks in prop::sample::select(vec![Marks::Control, Marks::Text]),
        limit in prop::sample::select(vec![CallsPerTurn::One, CallsPerTurn::Many]),
        begins in prop::sample::select(vec![None, Some(Begins::Unopened), Some(Begins::Inside), Some(Begins::Behind)]),
        seed in any::<u64>(),
    ) {
        let case = Case::new(format, marks, limit, begins);
        for seed in (0..8).map(|salt| seed.wrapping_add(salt)) {
            let Some(text) = case.walk(seed) else { continue };
            let (content, calls) = case.read(&text);
            for (name, arguments) in &calls {
                prop_assert!(is_valid(name, arguments), "{name} {arguments:?} in {text:?} of {}", case.grammar);
            }
            let opens = format.shape().opens;
            let behind = case.behind_thoughts(&text);
            let begins_call = behind.contains(opens)
                || (format == ToolFormat::Llama3Json && behind.trim_start().starts_with('{'));
            prop_assert_eq!(!calls.is_empty(), begins_call, "{:?} in {:?} of {}", calls, text, case.grammar);
            prop_assert!(!content.contains(opens), "{text:?} of {}", case.grammar);
            if limit == CallsPerTurn::One {
                prop_assert!(calls.len() <= 1);
            }
        }
    }
}

/// The walks of the property would prove nothing if they never came to a call.
#[test]
fn walks_come_to_calls_and_to_answers_without() {
    for format in ToolFormat::ALL {
        for marks in [Marks::Control, Marks::Text] {
            let case = Case::new(format, marks, CallsPerTurn::Many, Some(Begins::Unopened));
            let texts = (0..24).filter_map(|seed| case.walk(seed));
            let called: Vec<bool> = texts.map(|text| !case.read(&text).1.is_empty()).collect();
            assert!(called.contains(&true) && called.contains(&false), "{format:?} {marks:?}: {called:?}");
        }
    }
}

/// Each format, with the text that opens its calls, a whole answer, and one that goes wrong inside a call.
const ANSWERS: [(ToolFormat, &str, &str, &str); 6] = [
    (
        ToolFormat::Hermes,
        "<tool_call>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": \"Ulm\", \"days\": 2}}\n</tool_call>",
        "<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"place\": 1",
    ),
    (
        ToolFormat::Llama3Json,
        "<|python_tag|>",
        "<|python_tag|>{\"name\": \"weather\", \"parameters\": {\"place\": \"Ulm\", \"days\": 2}}",
        "<|python_tag|>print",
    ),
    (
        ToolFormat::Mistral,
        "[TOOL_CALLS]",
        "[TOOL_CALLS][{\"name\": \"weather\", \"arguments\": {\"place\": \"Ulm\", \"days\": 2}}]",
        "[TOOL_CALLS]other[ARGS]",
    ),
    (
        ToolFormat::Qwen3Coder,
        "<tool_call>",
        "<tool_call>\n<function=weather>\n<parameter=place>\nUlm\n</parameter>\n<parameter=days>\n2\n</parameter>\n</function>\n</tool_call>",
        "<tool_call>\n<function=weather>\n<parameter=days>",
    ),
    (
        ToolFormat::DeepseekV3,
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>weather<｜tool▁sep｜>{\"place\": \"Ulm\", \"days\": 2}<｜tool▁call▁end｜><｜tool▁calls▁end｜>",
        "<｜tool▁calls▁begin｜>x",
    ),
    (
        ToolFormat::Granite,
        "<|tool_call|>",
        "<|tool_call|>[{\"name\": \"weather\", \"arguments\": {\"place\": \"Ulm\", \"days\": 2}}]",
        "<|tool_call|>[]",
    ),
];

#[test]
fn text_is_free_until_a_call_begins() {
    for (format, opens, call, wrong) in ANSWERS {
        for marks in [Marks::Control, Marks::Text] {
            let case = Case::new(format, marks, CallsPerTurn::One, None);
            let begun = &opens[..opens.len() - 1];
            for text in [
                "",
                "Yes, é [1] <b>\"{}\"\n",
                "<<",
                "<tool",
                "[TOOL",
                " \n",
                begun,
                &format!("a{begun} {begun}{begun}b"),
            ] {
                assert_eq!(case.allows(text), (true, true), "{format:?} {marks:?}: {text:?}: {}", case.grammar);
            }
            assert_eq!(case.allows(&format!("So: {call}")), (true, true), "{format:?} {marks:?}: {}", case.grammar);
            assert_eq!(case.allows(&format!("<{call}")), (true, true), "{format:?} {marks:?}: {}", case.grammar);
            let cut: String = call.chars().take(call.chars().count() - 1).collect();
            for text in [opens.to_owned(), cut] {
                assert!(!case.allows(&text).1, "{format:?} {marks:?}: {text:?} is not over");
            }
            for text in [wrong.to_owned(), format!("a{wrong}"), format!("{opens}{opens}"), format!("{call} more")] {
                assert!(!case.allows(&text).0, "{format:?} {marks:?}: {text:?}: {}", case.grammar);
            }
        }
    }
}

#[test]
fn an_answer_of_llama_that_begins_with_a_brace_is_a_call() {
    for marks in [Marks::Control, Marks::Text] {
        let case = Case::new(ToolFormat::Llama3Json, marks, CallsPerTurn::One, None);
        let call = "{\"name\": \"weather\", \"parameters\": {\"place\": \"Ulm\", \"days\": 2}}";
        for text in [call.to_owned(), format!("\n{call}"), "a {\"x\": 1}".to_owned()] {
            assert_eq!(case.allows(&text), (true, true), "{text:?}: {}", case.grammar);
        }
        for text in ["{\"x", "\n \n{}", "{\"name\": \"other\""] {
            assert!(!case.allows(text).0, "{text:?}: {}", case.grammar);
        }
    }
}

#[test]
fn thoughts_are_free_of_the_grammar_of_calls() {
    let call = ANSWERS[0].2;
    for marks in [Marks::Control, Marks::Text] {
        let case = Case::new(ToolFormat::Hermes, marks, CallsPerTurn::Many, Some(Begins::Unopened));
        for text in [
            "Yes.",
            "<th",
            "Yes <thinking",
            &format!("<think>hm</think>\n\n{call}"),
            &format!("\n<think></think>{call}\n{call}"),
        ] {
            assert_eq!(case.allows(text), (true, true), "{marks:?} {text:?}: {}", case.grammar);
        }
        assert!(!case.allows("<think>hm").1 && !case.allows("\n<think>hm").1, "{}", case.grammar);
    }
    let case = Case::new(ToolFormat::Hermes, Marks::Text, CallsPerTurn::Many, Some(Begins::Unopened));
    assert!(case.allows("<think>I could <tool_call> now</think>Yes.").1, "{}", case.grammar);
}
