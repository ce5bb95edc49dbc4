//! Features that are not there and whose silent absence would change the answer; knows no request type.

use serde_json::Value;

use super::ApiError;
use super::fields::Fields;

/// When a field asks for something.
enum Asks {
    /// Whenever it is there.
    Always,
    /// When it is `true`.
    WhenTrue,
    /// When it is a list or object with something in it, or a string with text.
    WhenFilled,
    /// When it is not one of these words.
    Unless(&'static [&'static str]),
}

/// Fields of both endpoints.
const COMMON: &[(&str, Asks)] = &[
    ("allowed_token_ids", Asks::Always),
    ("bad_words", Asks::WhenFilled),
    ("cache_salt", Asks::Always),
    ("guided_choice", Asks::Always),
    ("guided_grammar", Asks::Always),
    ("guided_json", Asks::Always),
    ("guided_regex", Asks::Always),
    ("include_stop_str_in_output", Asks::WhenTrue),
    ("kv_transfer_params", Asks::Always),
    ("logits_processors", Asks::WhenFilled),
    ("prompt_logprobs", Asks::Always),
    ("return_tokens_as_token_ids", Asks::WhenTrue),
    ("structured_outputs", Asks::Always),
    ("truncate_prompt_tokens", Asks::Always),
    ("use_beam_search", Asks::WhenTrue),
];

/// Fields of chat completions.
const CHAT: &[(&str, Asks)] = &[
    ("audio", Asks::Always),
    ("chat_template", Asks::Always),
    ("continue_final_message", Asks::WhenTrue),
    ("documents", Asks::WhenFilled),
    ("echo", Asks::WhenTrue),
    ("function_call", Asks::Unless(&["none"])),
    ("functions", Asks::WhenFilled),
    ("prediction", Asks::Always),
    ("web_search_options", Asks::Always),
];

/// Fields of text completions.
const COMPLETION: &[(&str, Asks)] = &[("prompt_embeds", Asks::Always), ("suffix", Asks::WhenFilled)];

/// Refuses what a chat client asks for in vain.
pub(super) fn refuse_for_chat(fields: &mut Fields) -> Result<(), ApiError> {
    refuse(fields, COMMON)?;
    refuse(fields, CHAT)?;
    refuse_tools(fields)?;
    if let Some(modalities) = fields.list("modalities")?
        && modalities.iter().any(|modality| modality != "text")
    {
        return Err(ApiError::unsupported("modalities"));
    }
    refuse_response_format(fields)
}

/// Refuses what a completion client asks for in vain.
pub(super) fn refuse_for_completion(fields: &mut Fields) -> Result<(), ApiError> {
    refuse(fields, COMMON)?;
    refuse(fields, COMPLETION)?;
    refuse_response_format(fields)
}

fn refuse(fields: &mut Fields, table: &[(&str, Asks)]) -> Result<(), ApiError> {
    for (name, asks) in table {
        let Some(value) = fields.take(name) else { continue };
        let asked = match asks {
            Asks::Always => true,
            Asks::WhenTrue => value != Value::Bool(false),
            Asks::WhenFilled => is_filled(&value),
            Asks::Unless(words) => !value.as_str().is_some_and(|word| words.contains(&word)),
        };
        if asked {
            return Err(ApiError::unsupported(name));
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

/// Tools that must not be used, and a choice among no tools, are harmless.
fn refuse_tools(fields: &mut Fields) -> Result<(), ApiError> {
    let tools = fields.list("tools")?.unwrap_or_default();
    let choice = fields.take("tool_choice");
    let forbidden = choice.as_ref().is_some_and(|choice| choice == "none");
    if !tools.is_empty() && !forbidden {
        return Err(ApiError::unsupported("tools"));
    }
    match choice {
        Some(choice) if choice != "none" && choice != "auto" => Err(ApiError::unsupported("tool_choice")),
        Some(_) | None => Ok(()),
    }
}

fn refuse_response_format(fields: &mut Fields) -> Result<(), ApiError> {
    match fields.object("response_format")? {
        Some(format) if format.get("type").is_none_or(|kind| kind != "text") => {
            Err(ApiError::unsupported("response_format"))
        }
        Some(_) | None => Ok(()),
    }
}
