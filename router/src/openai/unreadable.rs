//! Says what is wrong with JSON that cannot be read, and in which field; knows no request.

use std::fmt::Write;

use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use super::ApiError;

const HALF: &str =
    "has half of a character: an escape from \\ud800 to \\udfff means one only together with its other half";

/// What the JSON library says of texts that look like JSON but cannot be read, and how a client is told.
const PROBLEMS: [(&str, &str); 5] = [
    ("lone leading surrogate in hex escape", HALF),
    ("unexpected end of hex escape", HALF),
    ("recursion limit exceeded", "has lists and objects inside one another beyond the limit of 127 levels"),
    ("number out of range", "has a number that is too large"),
    ("invalid unicode code point", "has bytes that are not UTF-8"),
];

/// Parts of a field's name that an error shows; the innermost of 127 levels would help nobody.
const SEGMENTS_MAX: usize = 6;

/// Error for a body that the library has refused with `error`.
pub(super) fn unreadable(body: &[u8], error: &serde_json::Error) -> ApiError {
    let Some(problem) = explained(error) else {
        return ApiError::malformed(format!("the request body is not valid JSON: {error}"));
    };
    match field_at_fault(body) {
        Some(field) => ApiError::invalid(&field, format!("{field} {problem}")),
        None => ApiError::malformed(format!("the request body {problem}")),
    }
}

/// Says what is wrong, and where in the text; `None` if it is not JSON at all, which the library says well.
pub(super) fn explained(error: &serde_json::Error) -> Option<String> {
    let said = error.to_string();
    let (_, problem) = PROBLEMS.iter().find(|(library, _)| said.starts_with(library))?;
    Some(format!("{problem} (line {}, column {})", error.line(), error.column()))
}

/// Reads the body again to find the field at fault; `None` if it is outside of all fields.
fn field_at_fault(body: &[u8]) -> Option<String> {
    let mut reader = serde_json::Deserializer::from_slice(body);
    let error = serde_path_to_error::deserialize::<_, Value>(&mut reader).err()?;
    Some(name_of(error.path())).filter(|name| !name.is_empty())
}

/// Name of a field, from the outside as far as it helps.
fn name_of(path: &Path) -> String {
    let mut name = String::new();
    for segment in path.iter().take(SEGMENTS_MAX) {
        // Writing to a string does not fail.
        let _ = match segment {
            Segment::Seq { index } => write!(name, "[{index}]"),
            Segment::Map { key } | Segment::Enum { variant: key } if name.is_empty() => write!(name, "{key}"),
            Segment::Map { key } | Segment::Enum { variant: key } => write!(name, ".{key}"),
            // The name itself cannot be read.
            Segment::Unknown => Ok(()),
        };
    }
    name
}

#[cfg(test)]
mod tests {
    use expect_test::expect;
    use serde_json::json;

    use super::super::{ChatRequest, CompletionRequest, Limits, ResponsesRequest, TokenizeRequest};
    use crate::anthropic::MessagesRequest;
    use crate::openai::ApiError;

    const LIMITS: Limits = Limits { n_max: 4, prompts_max: 3, stop_max: 4, stop_bytes_max: 16, vocab_size: 300 };

    fn refusals(body: &str) -> Vec<ApiError> {
        let body = body.as_bytes();
        vec![
            ChatRequest::parse(body, &LIMITS).map(drop).unwrap_err(),
            CompletionRequest::parse(body, &LIMITS).map(drop).unwrap_err(),
            ResponsesRequest::parse(body, &LIMITS).map(drop).unwrap_err(),
            MessagesRequest::parse(body, &LIMITS).map(drop).unwrap_err(),
            TokenizeRequest::parse(body).map(drop).unwrap_err(),
        ]
    }

    /// Found by trying: clients were told the line and column of a body that they never see, and the library's words.
    #[test]
    fn what_cannot_be_read_is_named_at_every_endpoint() {
        let deep = |levels: usize| format!(r#"{{"tools": {}{}}}"#, "[".repeat(levels), "]".repeat(levels));
        let bodies = [
            r#"{"messages": [{"role": "user", "content": "\ud83d"}]}"#.to_owned(),
            r#"{"input": [{"content": [{"text": "a\ud83d\n"}]}]}"#.to_owned(),
            r#"{"prompt": "\udc00"}"#.to_owned(),
            r#"{"prompt": "\ud83dx"}"#.to_owned(),
            r#"{"prompt\ud83d": ""}"#.to_owned(),
            r#"{"temperature": 1e999}"#.to_owned(),
            deep(127),
        ];
        let mut lines = String::new();
        for body in &bodies {
            let refusals = refusals(body);
            assert!(refusals.iter().all(|error| *error == refusals[0] && error.status == 400), "{body}: {refusals:?}");
            lines.push_str(&format!("{}: {}\n", refusals[0].param.as_deref().unwrap_or("-"), refusals[0].message));
        }
        expect![[r#"
            messages[0].content: messages[0].content has half of a character: an escape from \ud800 to \udfff means one only together with its other half (line 1, column 50)
            input[0].content[0].text: input[0].content[0].text has half of a character: an escape from \ud800 to \udfff means one only together with its other half (line 1, column 43)
            prompt: prompt has half of a character: an escape from \ud800 to \udfff means one only together with its other half (line 1, column 18)
            prompt: prompt has half of a character: an escape from \ud800 to \udfff means one only together with its other half (line 1, column 19)
            -: the request body has half of a character: an escape from \ud800 to \udfff means one only together with its other half (line 1, column 15)
            temperature: temperature has a number that is too large (line 1, column 21)
            tools[0][0][0][0][0]: tools[0][0][0][0][0] has lists and objects inside one another beyond the limit of 127 levels (line 1, column 137)
        "#]].assert_eq(&lines);
        assert!(refusals(&deep(126))[0].message.starts_with("messages is missing"), "the limit itself is allowed");
        let wrong = ChatRequest::parse(b"{\"model\": \"\xff\"}", &LIMITS).unwrap_err();
        assert!(wrong.message.starts_with("model has bytes that are not UTF-8"), "{}", wrong.message);
    }

    #[test]
    fn a_long_name_of_a_field_is_not_repeated_at_length() {
        let body = format!("{{{}: 1e999}}", json!("x".repeat(1 << 20)));
        let error = ChatRequest::parse(body.as_bytes(), &LIMITS).unwrap_err();
        assert!(error.body().len() < 20_000, "{}", error.body().len());
    }
}
