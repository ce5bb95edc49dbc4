//! Fields of requests for a message that are honoured, refused or without effect. A test compares the tables with
//! docs/api.md.

use crate::openai::ApiError;
use crate::openai::fields::Fields;
use crate::openai::refused::{Asks, COMMON, Refused, instead, refuse, refused};

/// Fields of Anthropic's API that are honoured, and `chat_template_kwargs` of vLLM's.
#[cfg(test)]
pub(super) const HONOURED: &[&str] = &[
    "chat_template_kwargs",
    "max_tokens",
    "messages",
    "model",
    "output_config",
    "output_format",
    "stop_sequences",
    "stream",
    "system",
    "temperature",
    "thinking",
    "tool_choice",
    "tools",
    "top_k",
    "top_p",
];

/// Fields of the other endpoints that are honoured here, too.
#[cfg(test)]
pub(super) const EXTRAS: &[&str] = &[
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
    "min_p",
    "min_tokens",
    "presence_penalty",
    "repetition_penalty",
    "seed",
    "skip_special_tokens",
    "slo_class",
    "stop_token_ids",
    "structured_outputs",
    "truncate_prompt_tokens",
];

/// Fields without effect on the answer here.
pub(super) const IGNORED: &[&str] = &[
    "betas",
    "billing_policy",
    "cache_control",
    "container",
    "context_management",
    "diagnostics",
    "fallback_credit_token",
    "fallbacks",
    "inference_geo",
    "metadata",
    "service_tier",
    "speed",
    "stream_options",
    "user_profile_id",
    "workspace_id",
];

/// Fields that are refused beside those that all endpoints refuse.
pub(super) const REFUSED: &[Refused] = &[
    refused("compaction", Asks::WhenFilled),
    instead("enable_thinking", Asks::Always, "send thinking"),
    instead("functions", Asks::WhenFilled, "send tools"),
    refused("logprobs", Asks::WhenTrue),
    instead("max_completion_tokens", Asks::Always, "send max_tokens"),
    refused("mcp_servers", Asks::WhenFilled),
    refused("n", Asks::UnlessNumber(1.0)),
    instead("parallel_tool_calls", Asks::Always, "send tool_choice.disable_parallel_tool_use"),
    instead("prompt", Asks::WhenFilled, "send messages"),
    refused("prompt_logprobs", Asks::Always),
    instead("reasoning_effort", Asks::Always, "send output_config.effort"),
    instead("response_format", Asks::WhenFilled, "send output_config.format"),
    refused("return_token_ids", Asks::WhenTrue),
    instead("stop", Asks::WhenFilled, "send stop_sequences"),
    refused("thread", Asks::WhenFilled),
];

/// Drops fields without effect.
pub(super) fn drop_ignored(fields: &mut Fields) {
    for name in IGNORED {
        fields.take(name);
    }
}

/// Refuses missing features; `stop_sequences` and `thinking`, which other endpoints refuse, must be taken before.
pub(super) fn refuse_for_messages(fields: &mut Fields) -> Result<(), ApiError> {
    refuse(fields, "", COMMON)?;
    refuse(fields, "", REFUSED)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::{Map, Value, json};

    use super::super::MessagesRequest;
    use super::super::request_tests::limits;
    use super::*;
    use crate::openai::known::tests::documented;
    use crate::openai::openapi;
    use crate::openai::openapi::tests::notes;

    #[test]
    fn docs_list_every_field_and_no_other() {
        let documented = documented();
        let named = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect::<Vec<String>>();
        let refused = REFUSED.iter().map(|refused| refused.name).collect::<Vec<&str>>();
        let tables = [
            ("Honoured by messages", named(HONOURED)),
            ("Further fields of messages", named(EXTRAS)),
            ("Without effect in messages", named(IGNORED)),
            ("Refused by messages", named(&refused)),
        ];
        for (heading, mut names) in tables {
            names.sort();
            assert_eq!(documented.get(heading), Some(&names), "docs/api.md, table {heading:?}");
        }
    }

    #[test]
    fn every_honoured_field_is_taken() {
        let names = HONOURED.iter().chain(EXTRAS).chain(IGNORED);
        let mut body: Map<String, Value> = names.map(|&name| (name.to_owned(), Value::Null)).collect();
        body.insert("messages".to_owned(), json!([{"role": "user", "content": "x"}]));
        body.insert("max_tokens".to_owned(), json!(1));
        let body = Value::Object(body).to_string();
        let (_, rest) = MessagesRequest::parse_fields(body.as_bytes(), &limits()).unwrap();
        assert_eq!(rest.owned_names(), Vec::<String>::new());
    }

    #[test]
    fn the_description_has_every_honoured_field_with_its_note() {
        let document: Value = serde_json::from_slice(&openapi()).unwrap();
        let properties = document["components"]["schemas"]["MessagesRequest"]["properties"].as_object().unwrap();
        let described: BTreeSet<&str> = properties.keys().map(String::as_str).collect();
        let honoured: BTreeSet<&str> = HONOURED.iter().chain(EXTRAS).copied().collect();
        assert_eq!(described, honoured);
        for (name, note) in notes("Honoured by messages").iter().chain(&notes("Further fields of messages")) {
            assert_eq!(properties[name]["description"], note.as_str(), "openapi.json, {name}");
        }
    }
}
