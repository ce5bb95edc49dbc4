//! JSON of one streamed chunk, as far as a load generator needs it: no text is copied.

use std::fmt;

use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// Chunk of a streamed completion or chat completion.
#[derive(Debug, Default, Deserialize)]
pub struct Chunk {
    /// Choices that grew; empty in the last chunk, which has the usage.
    #[serde(default)]
    pub choices: Vec<ChunkChoice>,
    /// Token counts: in the last chunk, or in every one (`continuous_usage_stats`).
    #[serde(default)]
    pub usage: Option<Usage>,
    /// Failure in the middle of a stream.
    #[serde(default)]
    pub error: Option<serde_json::Value>,
}

/// Growth of one choice.
#[derive(Debug, Default, Deserialize)]
pub struct ChunkChoice {
    #[serde(default)]
    text: HasText,
    #[serde(default)]
    delta: Option<Delta>,
    #[serde(default)]
    token_ids: Count,
    /// Reason for the end, in the choice's last chunk.
    #[serde(default)]
    pub finish_reason: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct Delta {
    #[serde(default)]
    content: HasText,
    #[serde(default)]
    reasoning_content: HasText,
    #[serde(default)]
    reasoning: HasText,
    #[serde(default)]
    tool_calls: Count,
}

/// Token counts of the server.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize)]
pub struct Usage {
    /// Prompt tokens.
    #[serde(default)]
    pub prompt_tokens: u64,
    /// Generated tokens.
    #[serde(default)]
    pub completion_tokens: u64,
}

impl Chunk {
    /// Parses the data of an event.
    pub fn parse(data: &[u8]) -> Result<Chunk, serde_json::Error> {
        serde_json::from_slice(data)
    }

    /// Tokens that the chunk brings: what its `token_ids` say, else one per choice with text.
    #[must_use]
    pub fn tokens(&self) -> u32 {
        self.choices.iter().map(ChunkChoice::tokens).sum()
    }

    /// Message of the `error` object, if there is one.
    #[must_use]
    pub fn error_message(&self) -> Option<String> {
        let error = self.error.as_ref()?;
        let message = error.get("message").and_then(serde_json::Value::as_str).or(error.as_str());
        Some(message.unwrap_or("(no message)").to_owned())
    }
}

impl ChunkChoice {
    fn tokens(&self) -> u32 {
        let in_delta =
            |delta: &Delta| delta.content.0 || delta.reasoning_content.0 || delta.reasoning.0 || delta.tool_calls.0 > 0;
        let has_text = self.text.0 || self.delta.as_ref().is_some_and(in_delta);
        self.token_ids.0.max(u32::from(has_text))
    }
}

/// True if a text is there and not empty.
#[derive(Debug, Default, Clone, Copy)]
struct HasText(bool);

impl<'de> Deserialize<'de> for HasText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<HasText, D::Error> {
        struct TextVisitor;
        impl Visitor<'_> for TextVisitor {
            type Value = HasText;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text or null")
            }

            fn visit_str<E>(self, text: &str) -> Result<HasText, E> {
                Ok(HasText(!text.is_empty()))
            }

            fn visit_unit<E>(self) -> Result<HasText, E> {
                Ok(HasText(false))
            }
        }
        deserializer.deserialize_any(TextVisitor)
    }
}

/// Length of a list; null counts as empty.
#[derive(Debug, Default, Clone, Copy)]
struct Count(u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Count, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = Count;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list or null")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Count, A::Error> {
                let mut count = 0;
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Count(count))
            }

            fn visit_unit<E>(self) -> Result<Count, E> {
                Ok(Count(0))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_found_in_the_chunks_of_every_endpoint() {
        for (data, tokens) in [
            (r#"{"choices":[{"index":0,"text":"a","logprobs":null,"finish_reason":null}]}"#, 1),
            (r#"{"choices":[{"delta":{"role":"assistant","content":""}}],"usage":null}"#, 0),
            (r#"{"choices":[{"delta":{"content":" x\n"}}]}"#, 1),
            (r#"{"choices":[{"delta":{"content":null,"reasoning_content":"x"}}]}"#, 1),
            (r#"{"choices":[{"delta":{},"finish_reason":"stop"}]}"#, 0),
            (r#"{"choices":[{"text":"","token_ids":[1,2,3]}]}"#, 3),
            (r#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4,"total_tokens":7}}"#, 0),
            ("{}", 0),
        ] {
            assert_eq!(Chunk::parse(data.as_bytes()).unwrap().tokens(), tokens, "{data}");
        }
    }

    #[test]
    fn errors_and_usage_are_read() {
        let chunk = Chunk::parse(br#"{"error":{"message":"lost"}}"#).unwrap();
        assert_eq!(chunk.error_message().as_deref(), Some("lost"));
        let chunk = Chunk::parse(br#"{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":4}}"#).unwrap();
        assert_eq!(chunk.usage, Some(Usage { prompt_tokens: 3, completion_tokens: 4 }));
        assert!(Chunk::parse(b"[1]").is_err() && Chunk::parse(b"nonsense").is_err());
    }
}
