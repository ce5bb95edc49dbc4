//! Further fields of every request, as the user writes them; knows what a run itself says, and counts.

use serde_json::{Map, Value};

use crate::{Error, Result};

/// Fields that the run sets in every request, and what sets them instead.
const OURS: [(&str, &str); 7] = [
    ("max_completion_tokens", "--output-tokens or the trace sets the length of answers"),
    ("max_output_tokens", "--output-tokens or the trace sets the length of answers"),
    ("max_tokens", "--output-tokens or the trace sets the length of answers"),
    ("messages", "the workload makes the prompts"),
    ("model", "--model names it"),
    ("prompt", "the workload makes the prompts"),
    ("stream", "every answer is a stream, or no time could be measured in it"),
];

/// Numbers of answers to a prompt, of which a run counts one.
const COUNTED: [&str; 2] = ["n", "best_of"];

/// Further fields that all requests of a run have; none of them changes what is counted.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Extra(Map<String, Value>);

impl Extra {
    /// Parses a JSON object.
    ///
    /// # Errors
    /// When it is none, or has a field that the run sets itself or whose answers it does not count.
    pub fn parse(text: &str) -> Result<Extra> {
        let fields: Map<String, Value> = serde_json::from_str(text)
            .map_err(|error| Error::Settings(format!("expected a JSON object, such as {{\"top_k\": 1}}: {error}")))?;
        match fields.iter().find_map(|(name, value)| trouble(name, value)) {
            Some(trouble) => Err(Error::Settings(trouble)),
            None => Ok(Extra(fields)),
        }
    }

    /// Returns the fields.
    #[must_use]
    pub fn fields(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// Reason why a field would make the numbers of a run wrong; `None` if it does not.
fn trouble(name: &str, value: &Value) -> Option<String> {
    if let Some((_, instead)) = OURS.iter().find(|(ours, _)| *ours == name) {
        return Some(format!("{name} is not for --extra: {instead}"));
    }
    let is_off = value.is_null() || *value == Value::Bool(false);
    match name {
        _ if COUNTED.contains(&name) && !value.is_null() && value.as_f64() != Some(1.0) => {
            Some(format!("{name} must be 1, but is {value}: one answer to each prompt is counted"))
        }
        "use_beam_search" if !is_off => Some(format!("{name}: one answer to each prompt is counted, not its beams")),
        "echo" if !is_off => Some("echo: the prompt in the answer would be counted as tokens of the answer".to_owned()),
        "stream_options" if value.get("include_usage") != Some(&Value::Bool(true)) => {
            Some("stream_options needs include_usage: true; --without usage does without the counts".to_owned())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Found by trying: with three choices the tokens of all were counted as those of one answer, without a word.
    #[test]
    fn fields_that_would_make_the_numbers_wrong_are_refused() {
        for (text, said) in [
            (r#"{"n": 3}"#, "n must be 1, but is 3"),
            (r#"{"n": "3"}"#, "n must be 1"),
            (r#"{"best_of": 2}"#, "best_of must be 1, but is 2"),
            (r#"{"max_tokens": 5}"#, "max_tokens is not for --extra: --output-tokens"),
            (r#"{"max_tokens": null}"#, "max_tokens is not for --extra"),
            (r#"{"max_completion_tokens": 5}"#, "max_completion_tokens is not for --extra"),
            (r#"{"temperature": 0, "stream": false}"#, "stream is not for --extra"),
            (r#"{"model": "m"}"#, "--model"),
            (r#"{"messages": []}"#, "messages is not for"),
            (r#"{"prompt": "a"}"#, "prompt is not for"),
            (r#"{"stream_options": {"include_usage": false}}"#, "--without usage"),
            (r#"{"stream_options": null}"#, "--without usage"),
            (r#"{"echo": true}"#, "echo: the prompt"),
            (r#"{"use_beam_search": true}"#, "beams"),
            ("[]", "expected a JSON object"),
            ("{", "expected a JSON object"),
        ] {
            let refused = Extra::parse(text).map(drop).unwrap_err().to_string();
            assert!(refused.contains(said), "{text}: {refused}");
        }
        for text in [
            "{}",
            r#"{"n": 1, "best_of": null, "echo": false, "temperature": 0, "min_tokens": 3, "ignore_eos": false}"#,
            r#"{"stream_options": {"include_usage": true, "continuous_usage_stats": true}, "return_token_ids": true}"#,
        ] {
            assert!(Extra::parse(text).is_ok(), "{text}");
        }
    }
}
