//! Bodies of requests: what the API wants to hear, with the prompt of a row. Sends nothing.

use std::fmt::Write;

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::extra::Extra;
use crate::workload::{Prompts, Row};

/// Endpoint of the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Api {
    /// `/v1/completions` with token ids: prompts of exact length.
    Completions,
    /// `/v1/chat/completions` with a text of about as many tokens.
    Chat,
}

impl Api {
    /// Path on the server.
    #[must_use]
    pub const fn path(self) -> &'static str {
        match self {
            Api::Completions => "/v1/completions",
            Api::Chat => "/v1/chat/completions",
        }
    }
}

/// Fields that all requests of a run have.
#[derive(Debug, Clone)]
pub struct BodySettings {
    /// Endpoint.
    pub api: Api,
    /// Model name.
    pub model: String,
    /// Optional fields that are sent, by name.
    pub sends: Vec<OptionalField>,
    /// Further fields, which win over our optional ones.
    pub extra: Extra,
}

/// Field that a server may refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OptionalField {
    /// `stream_options.include_usage`.
    IncludeUsage,
    /// `ignore_eos`.
    IgnoreEos,
    /// `min_tokens`.
    MinTokens,
    /// `slo_class` with the class of the row.
    SloClass,
}

/// Writer of the bodies of one run.
#[derive(Debug)]
pub struct Bodies {
    api: Api,
    prompts: Prompts,
    /// JSON of the fields that are the same in all requests, without the closing brace.
    shared: String,
    has_min_tokens: bool,
    has_class: bool,
}

impl Bodies {
    /// Prepares the shared fields.
    #[must_use]
    pub fn new(settings: &BodySettings, prompts: Prompts) -> Bodies {
        let sends = |field| settings.sends.contains(&field);
        let mut shared = Map::new();
        shared.insert("model".to_owned(), json!(settings.model));
        shared.insert("stream".to_owned(), json!(true));
        if sends(OptionalField::IncludeUsage) {
            shared.insert("stream_options".to_owned(), json!({"include_usage": true}));
        }
        if sends(OptionalField::IgnoreEos) {
            shared.insert("ignore_eos".to_owned(), json!(true));
        }
        let extra = settings.extra.fields();
        shared.extend(extra.clone());
        let mut shared = Value::Object(shared).to_string();
        shared.pop();
        let has_min_tokens = sends(OptionalField::MinTokens) && !extra.contains_key("min_tokens");
        let has_class = sends(OptionalField::SloClass) && !extra.contains_key("slo_class");
        Bodies { api: settings.api, prompts, shared, has_min_tokens, has_class }
    }

    /// Path that the bodies are for.
    #[must_use]
    pub fn path(&self) -> &'static str {
        self.api.path()
    }

    /// Writes the body for a row, the `index`-th of its course.
    #[must_use]
    pub fn body(&self, index: usize, row: &Row) -> Bytes {
        let mut body = String::with_capacity(self.shared.len() + 100 + row.input_tokens as usize * 6);
        body.push_str(&self.shared);
        // Writing to a string never fails.
        let _ = write!(body, ",\"max_tokens\":{}", row.output_tokens);
        if self.has_min_tokens {
            let _ = write!(body, ",\"min_tokens\":{}", row.output_tokens);
        }
        if let Some(class) = row.class.as_deref().filter(|_| self.has_class) {
            let _ = write!(body, ",\"slo_class\":{}", Value::from(class));
        }
        match self.api {
            Api::Completions => self.push_tokens(index, row, &mut body),
            Api::Chat => {
                let text = self.prompts.text(index as u64, row);
                let _ = write!(body, ",\"messages\":[{{\"role\":\"user\",\"content\":{}}}]}}", Value::from(text));
            }
        }
        body.into()
    }

    fn push_tokens(&self, index: usize, row: &Row, body: &mut String) {
        let mut tokens = Vec::with_capacity(row.input_tokens as usize);
        self.prompts.tokens(index as u64, row, &mut tokens);
        body.push_str(",\"prompt\":[");
        for (place, token) in tokens.iter().enumerate() {
            let comma = if place == 0 { "" } else { "," };
            let _ = write!(body, "{comma}{token}");
        }
        body.push_str("]}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workload::TokenRange;

    fn body(api: Api, sends: &[OptionalField], extra: &Value) -> Value {
        let extra = Extra::parse(&extra.to_string()).unwrap();
        let settings = BodySettings { api, model: "m\"".to_owned(), sends: sends.to_vec(), extra };
        let row = Row { at_us: 0, input_tokens: 3, output_tokens: 7, blocks: [].into(), class: Some("chat".into()) };
        let bodies = Bodies::new(&settings, Prompts::new(1, TokenRange::default(), 1));
        serde_json::from_slice(&bodies.body(0, &row)).unwrap()
    }

    #[test]
    fn bodies_have_the_fields_that_are_asked_for() {
        use OptionalField::{IgnoreEos, IncludeUsage, MinTokens, SloClass};
        let all = body(Api::Completions, &[IncludeUsage, IgnoreEos, MinTokens, SloClass], &json!({"temperature": 0}));
        assert_eq!(all["prompt"].as_array().unwrap().len(), 3);
        let expected = json!({
            "model": "m\"", "stream": true, "stream_options": {"include_usage": true}, "ignore_eos": true,
            "temperature": 0, "max_tokens": 7, "min_tokens": 7, "slo_class": "chat", "prompt": all["prompt"],
        });
        assert_eq!(all, expected);
        let own = json!({"min_tokens": 1, "slo_class": "mine"});
        let own = body(Api::Chat, &[MinTokens, SloClass], &own);
        assert_eq!((&own["min_tokens"], &own["slo_class"]), (&json!(1), &json!("mine")));
        let least = body(Api::Chat, &[], &json!({}));
        assert_eq!(least["messages"][0]["content"].as_str().unwrap().split(' ').count(), 3);
        assert_eq!(least.as_object().unwrap().len(), 4, "{least}");
    }
}
