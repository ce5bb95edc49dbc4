//! Missing features whose silent absence would change the answer; knows no request type.

use serde_json::Value;

use super::ApiError;
use super::fields::Fields;

/// Field that this server knows but does not support.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Refused {
    pub(crate) name: &'static str,
    asks: Asks,
    /// Advice on what to send instead, or empty.
    instead: &'static str,
}

/// Condition under which a field asks for its feature.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Asks {
    /// If present.
    Always,
    /// If `true`.
    WhenTrue,
    /// If it is a list or object with entries, or a string with text.
    WhenFilled,
    /// If it is none of these words.
    Unless(&'static [&'static str]),
    /// If it is not this number, with which it has no effect.
    UnlessNumber(f64),
}

pub(crate) const fn refused(name: &'static str, asks: Asks) -> Refused {
    Refused { name, asks, instead: "" }
}

pub(crate) const fn instead(name: &'static str, asks: Asks, instead: &'static str) -> Refused {
    Refused { name, asks, instead }
}

/// Advice for an object of sampling fields, which this server takes at the top level.
const TOP_LEVEL: &str = "send its fields beside the others";

/// Advice for structures under the names of other servers.
const STRUCTURED: &str = "send response_format or structured_outputs";

/// Advice for references to what OpenAI's servers store.
pub(super) const STATELESS: &str = "nothing is stored here: send the whole conversation as input";

/// Fields of both endpoints.
pub(crate) const COMMON: &[Refused] = &[
    refused("bootstrap_host", Asks::Always),
    refused("cache_salt", Asks::Always),
    refused("custom_logit_processor", Asks::WhenFilled),
    instead("do_sample", Asks::Always, "send temperature 0 for the likeliest tokens"),
    refused("dry_multiplier", Asks::UnlessNumber(0.0)),
    refused("dynatemp_range", Asks::UnlessNumber(0.0)),
    instead("ebnf", Asks::WhenFilled, STRUCTURED),
    refused("epsilon_cutoff", Asks::UnlessNumber(0.0)),
    refused("eta_cutoff", Asks::UnlessNumber(0.0)),
    instead("format", Asks::WhenFilled, STRUCTURED),
    instead("grammar", Asks::WhenFilled, STRUCTURED),
    instead("input_ids", Asks::Always, "send prompt, which may be token ids"),
    instead("inputs", Asks::Always, "send prompt"),
    instead("json_schema", Asks::WhenFilled, STRUCTURED),
    refused("kv_transfer_params", Asks::Always),
    refused("logits_processors", Asks::WhenFilled),
    refused("lora", Asks::WhenFilled),
    refused("lora_path", Asks::WhenFilled),
    instead("max_length", Asks::Always, "send max_tokens"),
    instead("max_new_tokens", Asks::Always, "send max_tokens"),
    instead("min_new_tokens", Asks::Always, "send min_tokens"),
    refused("mirostat", Asks::UnlessNumber(0.0)),
    refused("mirostat_mode", Asks::UnlessNumber(0.0)),
    instead("n_predict", Asks::Always, "send max_tokens"),
    instead("n_probs", Asks::UnlessNumber(0.0), "send logprobs"),
    refused("no_repeat_ngram_size", Asks::UnlessNumber(0.0)),
    refused("num_beams", Asks::UnlessNumber(1.0)),
    instead("num_predict", Asks::Always, "send max_tokens"),
    instead("options", Asks::WhenFilled, TOP_LEVEL),
    instead("parameters", Asks::WhenFilled, TOP_LEVEL),
    refused("penalty_alpha", Asks::UnlessNumber(0.0)),
    refused("raw", Asks::WhenTrue),
    instead("regex", Asks::WhenFilled, STRUCTURED),
    instead("repeat_penalty", Asks::UnlessNumber(1.0), "send repetition_penalty"),
    instead("return_full_text", Asks::WhenTrue, "send echo to /v1/completions"),
    refused("return_hidden_states", Asks::WhenTrue),
    instead("return_logprob", Asks::WhenTrue, "send logprobs"),
    refused("samplers", Asks::WhenFilled),
    instead("sampling_params", Asks::WhenFilled, TOP_LEVEL),
    refused("smoothing_factor", Asks::UnlessNumber(0.0)),
    instead("stop_sequences", Asks::WhenFilled, "send stop"),
    refused("store", Asks::WhenTrue),
    refused("tfs_z", Asks::UnlessNumber(1.0)),
    instead("thinking", Asks::Always, "send chat_template_kwargs where the model's template has a switch"),
    refused("thinking_budget", Asks::Always),
    refused("top_a", Asks::UnlessNumber(0.0)),
    refused("truncate", Asks::Always),
    refused("typical_p", Asks::UnlessNumber(1.0)),
    refused("use_beam_search", Asks::WhenTrue),
    refused("watermark", Asks::WhenTrue),
    refused("xtc_probability", Asks::UnlessNumber(0.0)),
];

/// Fields of chat completions.
pub(super) const CHAT: &[Refused] = &[
    refused("audio", Asks::Always),
    refused("chat_template", Asks::Always),
    refused("documents", Asks::WhenFilled),
    instead("echo", Asks::WhenTrue, "use /v1/completions"),
    instead("enable_thinking", Asks::Always, "send chat_template_kwargs: {\"enable_thinking\": ...}"),
    instead("function_call", Asks::Unless(&["none"]), "send tool_choice"),
    instead("functions", Asks::WhenFilled, "send tools"),
    refused("prediction", Asks::Always),
    instead("prompt", Asks::WhenFilled, "send messages, or use /v1/completions"),
    instead("reasoning", Asks::WhenFilled, "send reasoning_effort or chat_template_kwargs"),
    instead("system", Asks::WhenFilled, "send a message with the role system"),
    refused("verbosity", Asks::Unless(&["medium"])),
    refused("web_search_options", Asks::Always),
];

/// Fields of responses.
pub(super) const RESPONSES: &[Refused] = &[
    refused("audio", Asks::Always),
    refused("background", Asks::WhenTrue),
    refused("chat_template", Asks::Always),
    refused("context_management", Asks::WhenFilled),
    instead("conversation", Asks::Always, STATELESS),
    refused("documents", Asks::WhenFilled),
    instead("enable_thinking", Asks::Always, "send chat_template_kwargs: {\"enable_thinking\": ...}"),
    instead("function_call", Asks::Unless(&["none"]), "send tool_choice"),
    instead("functions", Asks::WhenFilled, "send tools"),
    instead("logprobs", Asks::WhenTrue, "send include: [\"message.output_text.logprobs\"] and top_logprobs"),
    instead("max_completion_tokens", Asks::Always, "send max_output_tokens"),
    instead("max_tokens", Asks::Always, "send max_output_tokens"),
    instead("messages", Asks::WhenFilled, "send input, or use /v1/chat/completions"),
    refused("moderation", Asks::Always),
    refused("n", Asks::UnlessNumber(1.0)),
    refused("prediction", Asks::Always),
    instead("previous_response_id", Asks::Always, STATELESS),
    instead("prompt", Asks::WhenFilled, "send its text as input and instructions"),
    instead("prompt_logprobs", Asks::Always, "use /v1/chat/completions"),
    instead("reasoning_effort", Asks::Always, "send reasoning: {\"effort\": ...}"),
    instead("response_format", Asks::WhenFilled, "send text: {\"format\": ...}"),
    instead("return_token_ids", Asks::WhenTrue, "use /v1/chat/completions"),
    instead("system", Asks::WhenFilled, "send instructions"),
    instead("truncation", Asks::Unless(&["disabled"]), "shorten the input, or send truncate_prompt_tokens"),
    refused("web_search_options", Asks::Always),
];

/// Fields of text completions.
pub(super) const COMPLETION: &[Refused] = &[
    instead("max_completion_tokens", Asks::Always, "send max_tokens"),
    instead("messages", Asks::WhenFilled, "send prompt, or use /v1/chat/completions"),
    refused("prompt_embeds", Asks::Always),
    refused("suffix", Asks::WhenFilled),
    instead("top_logprobs", Asks::UnlessNumber(0.0), "send the number as logprobs"),
];

/// Fields of a message.
pub(super) const MESSAGE: &[Refused] = &[
    refused("audio", Asks::WhenFilled),
    instead("function_call", Asks::WhenFilled, "send tool_calls"),
    refused("partial", Asks::WhenTrue),
    refused("prefix", Asks::WhenTrue),
];

/// Refuses missing features of chat completions.
pub(super) fn refuse_for_chat(fields: &mut Fields) -> Result<(), ApiError> {
    refuse(fields, "", COMMON)?;
    refuse(fields, "", CHAT)?;
    if let Some(modalities) = fields.list("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(ApiError::unsupported("modalities"));
    }
    Ok(())
}

/// Refuses missing features of text completions.
pub(super) fn refuse_for_completion(fields: &mut Fields) -> Result<(), ApiError> {
    refuse(fields, "", COMMON)?;
    refuse(fields, "", COMPLETION)
}

/// Refuses missing features of responses.
pub(super) fn refuse_for_responses(fields: &mut Fields) -> Result<(), ApiError> {
    // The default of this API. Nothing is stored, and the answer says so.
    fields.flag("store")?;
    refuse(fields, "", COMMON)?;
    refuse(fields, "", RESPONSES)
}

/// Refuses missing features in the message at `place`.
pub(super) fn refuse_in_message(fields: &mut Fields, place: &str) -> Result<(), ApiError> {
    refuse(fields, place, MESSAGE)
}

pub(crate) fn refuse(fields: &mut Fields, place: &str, table: &[Refused]) -> Result<(), ApiError> {
    for Refused { name, asks, instead } in table {
        let Some(value) = fields.take(name) else { continue };
        let asked = match asks {
            Asks::Always => true,
            Asks::WhenTrue => value != Value::Bool(false),
            Asks::WhenFilled => is_filled(&value),
            Asks::Unless(words) => !value.as_str().is_some_and(|word| words.contains(&word)),
            Asks::UnlessNumber(neutral) => value.as_f64() != Some(*neutral),
        };
        if asked {
            let refusal = ApiError::unsupported(&format!("{place}{name}"));
            let hint = if instead.is_empty() { String::new() } else { format!("; {instead}") };
            return Err(ApiError { message: refusal.message.clone() + &hint, ..refusal });
        }
    }
    Ok(())
}

fn is_filled(value: &Value) -> bool {
    match value {
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
        Value::String(text) => !text.is_empty(),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}
