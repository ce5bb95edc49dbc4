//! Fields of request bodies that are honoured or have no effect; `refused` has the others. A test compares the tables
//! with docs/api.md.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use tracing::info;

use super::fields::Fields;

/// Unknown names that are remembered and logged; bounded, as the names come from clients.
const NAMES_MAX: usize = 128;
/// Most characters of an unknown name that are logged.
const NAME_CHARS_MAX: usize = 64;

/// Fields that both endpoints honour.
#[cfg(test)]
pub(super) const HONOURED: &[&str] = &[
    "add_special_tokens",
    "allowed_token_ids",
    "bad_words",
    "frequency_penalty",
    "guided_choice",
    "guided_grammar",
    "guided_json",
    "guided_regex",
    "ignore_eos",
    "include_stop_str_in_output",
    "logit_bias",
    "logprobs",
    "max_tokens",
    "min_p",
    "min_tokens",
    "model",
    "n",
    "presence_penalty",
    "prompt_logprobs",
    "repetition_penalty",
    "response_format",
    "return_token_ids",
    "return_tokens_as_token_ids",
    "seed",
    "service_tier",
    "skip_special_tokens",
    "slo_class",
    "stop",
    "stop_token_ids",
    "stream",
    "stream_options",
    "structured_outputs",
    "temperature",
    "top_k",
    "top_p",
    "truncate_prompt_tokens",
];
/// Fields that chat completions honour.
#[cfg(test)]
pub(super) const HONOURED_BY_CHAT: &[&str] = &[
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "include_reasoning",
    "max_completion_tokens",
    "messages",
    "modalities",
    "parallel_tool_calls",
    "reasoning_effort",
    "separate_reasoning",
    "tool_choice",
    "tools",
    "top_logprobs",
];
/// Fields that text completions honour.
#[cfg(test)]
pub(super) const HONOURED_BY_COMPLETION: &[&str] = &["best_of", "echo", "prompt"];
/// Fields that responses honour besides those of both kinds of completion that they do not refuse.
#[cfg(test)]
pub(super) const HONOURED_BY_RESPONSES: &[&str] = &[
    "add_generation_prompt",
    "chat_template_kwargs",
    "continue_final_message",
    "include",
    "include_reasoning",
    "input",
    "instructions",
    "max_output_tokens",
    "metadata",
    "parallel_tool_calls",
    "prompt_cache_key",
    "reasoning",
    "safety_identifier",
    "separate_reasoning",
    "stop",
    "stop_token_ids",
    "store",
    "stream",
    "stream_options",
    "text",
    "tool_choice",
    "tools",
    "top_logprobs",
    "user",
];

/// Fields without effect on the answer, judged by their meaning on other servers.
pub(super) const IGNORED: &[&str] = &[
    "cache_prompt",
    "early_stopping",
    "guided_decoding_backend",
    "keep_alive",
    "length_penalty",
    "max_tool_calls",
    "metadata",
    "priority",
    "prompt_cache_key",
    "prompt_cache_options",
    "prompt_cache_retention",
    "request_id",
    "rid",
    "safety_identifier",
    "spaces_between_special_tokens",
    "stream_reasoning",
    "timings_per_token",
    "user",
];

static UNKNOWN: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// Logs the unknown fields left in the object at `place`, each name once; fields without effect are dropped.
pub(crate) fn note_unknown(place: &str, fields: &Fields) {
    let unknown = fields.names().filter(|name| !IGNORED.contains(name));
    for name in unknown {
        let shown: String = place.chars().chain(name.chars()).take(NAME_CHARS_MAX).collect();
        let mut seen = UNKNOWN.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.len() < NAMES_MAX && seen.insert(shown.clone()) {
            info!(field = shown, "a request has a field that this server does not know there; it has no effect");
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, Value, json};

    use super::super::refused::{CHAT, COMMON, COMPLETION, MESSAGE, RESPONSES};
    use super::super::{ChatRequest, CompletionRequest, DetokenizeRequest, Limits, ResponsesRequest, TokenizeRequest};
    use super::*;

    fn limits() -> Limits {
        Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 }
    }

    /// Returns the first column of the table under each heading of docs/api.md.
    pub(crate) fn documented() -> BTreeMap<String, Vec<String>> {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/api.md");
        let text = std::fs::read_to_string(path).unwrap();
        let (mut tables, mut heading) = (BTreeMap::<String, Vec<String>>::new(), String::new());
        for line in text.lines() {
            if let Some(title) = line.strip_prefix("### ") {
                title.clone_into(&mut heading);
            }
            let Some(cell) = line.strip_prefix("| `").and_then(|row| row.split('|').next()) else { continue };
            let names = cell.split('`').step_by(2).map(str::to_owned).filter(|name| !name.trim().is_empty());
            tables.entry(heading.clone()).or_default().extend(names);
        }
        tables.values_mut().for_each(|names| names.sort());
        tables
    }

    #[test]
    fn docs_list_every_field_and_no_other() {
        let documented = documented();
        let refused = |table: &[super::super::refused::Refused]| {
            table.iter().map(|refused| refused.name.to_owned()).collect::<Vec<String>>()
        };
        let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let tables = [
            ("Honoured by both", named(HONOURED)),
            ("Honoured by chat completions", named(HONOURED_BY_CHAT)),
            ("Honoured by completions", named(HONOURED_BY_COMPLETION)),
            ("Without effect", named(IGNORED)),
            ("Refused by both", refused(COMMON)),
            ("Refused by chat completions", refused(CHAT)),
            ("Refused by completions", refused(COMPLETION)),
            ("Refused inside a message", refused(MESSAGE)),
            ("Honoured by responses", named(HONOURED_BY_RESPONSES)),
            ("Refused by responses", refused(RESPONSES)),
        ];
        for (heading, mut names) in tables {
            names.sort();
            assert_eq!(documented.get(heading), Some(&names), "docs/api.md, table {heading:?}");
        }
    }

    fn nulls(names: &[&str]) -> Map<String, Value> {
        names.iter().map(|&name| (name.to_owned(), Value::Null)).collect()
    }

    /// Returns the names that remain in a body after `parse`.
    fn left(mut body: Map<String, Value>, own: &[&str], parse: fn(&[u8]) -> Vec<String>) -> Vec<String> {
        body.extend(nulls(own).into_iter().filter(|(name, _)| name != "messages" && name != "prompt"));
        parse(Value::Object(body).to_string().as_bytes())
    }

    #[test]
    fn every_honoured_field_is_taken() {
        let mut chat = nulls(HONOURED);
        chat.insert("messages".into(), json!([{"role": "user", "content": "x"}]));
        let rest =
            left(chat, HONOURED_BY_CHAT, |body| ChatRequest::parse_fields(body, &limits()).unwrap().1.owned_names());
        assert_eq!(rest, Vec::<String>::new());
        let mut text = nulls(HONOURED);
        text.insert("prompt".into(), json!("x"));
        let rest = left(text, HONOURED_BY_COMPLETION, |body| {
            CompletionRequest::parse_fields(body, &limits()).unwrap().1.owned_names()
        });
        assert_eq!(rest, Vec::<String>::new());
        let mut responses = nulls(HONOURED);
        responses.extend(nulls(HONOURED_BY_RESPONSES));
        responses.insert("input".into(), json!("x"));
        let rest =
            left(responses, &[], |body| ResponsesRequest::parse_fields(body, &limits()).unwrap().1.owned_names());
        assert_eq!(rest, Vec::<String>::new());
    }

    #[test]
    fn unknown_names_are_remembered_up_to_a_bound() {
        let body: Map<String, Value> = (0..300).map(|number| (format!("unknown-{number}"), json!(1))).collect();
        let nested = json!({
            "messages": [{"role": "user", "content": [{"type": "text", "text": "x", "odd": 1}], "odder": 1}],
            "stream": true, "stream_options": {"oddest": 1},
        });
        ChatRequest::parse(nested.to_string().as_bytes(), &limits()).unwrap();
        TokenizeRequest::parse(br#"{"prompt": "x", "strange": 1}"#).unwrap();
        DetokenizeRequest::parse(br#"{"tokens": [1], "stranger": 1}"#, &limits()).unwrap();
        note_unknown("", &Fields::of(body));
        note_unknown("", &Fields::of(nulls(IGNORED)));
        let seen = UNKNOWN.lock().unwrap();
        assert!(seen.len() <= NAMES_MAX && seen.contains("unknown-0") && !seen.contains("user"));
        let inside = [
            "messages[].odder",
            "messages[].content[].odd",
            "stream_options.oddest",
            "/tokenize: strange",
            "/detokenize: stranger",
        ];
        assert!(inside.iter().all(|name| seen.contains(*name)), "{seen:?}");
    }
}
