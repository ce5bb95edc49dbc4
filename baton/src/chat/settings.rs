//! Sampling parameters of a conversation's requests; knows names and types, while the server knows the ranges.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};

/// Parameters by their name in a request.
#[derive(Debug, Clone)]
pub(super) struct Settings {
    max_tokens_default: u32,
    values: BTreeMap<&'static str, Value>,
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Number,
    Integer,
    Texts,
}

/// Known parameters; the second name is that of other programs.
const KNOWN: [(&str, &str, Kind); 10] = [
    ("temperature", "", Kind::Number),
    ("top_p", "", Kind::Number),
    ("top_k", "", Kind::Integer),
    ("min_p", "", Kind::Number),
    ("seed", "", Kind::Integer),
    ("max_tokens", "num_predict", Kind::Integer),
    ("repetition_penalty", "repeat_penalty", Kind::Number),
    ("presence_penalty", "", Kind::Number),
    ("frequency_penalty", "", Kind::Number),
    ("stop", "", Kind::Texts),
];

impl Settings {
    pub(super) fn new(max_tokens: u32) -> Settings {
        Settings { max_tokens_default: max_tokens, values: BTreeMap::from([("max_tokens", json!(max_tokens))]) }
    }

    /// Changes a parameter; returns its new value as a message, or why it is wrong. Stop strings add up.
    pub(super) fn set(&mut self, name: &str, text: &str) -> Result<String, String> {
        let known = KNOWN.iter().find(|(ours, theirs, _)| name == *ours || (!theirs.is_empty() && name == *theirs));
        let Some((name, _, kind)) = known else {
            let names = KNOWN.map(|(name, _, _)| name).join(", ");
            return Err(format!("there is no parameter {name:?}; there are {names}"));
        };
        if text.is_empty() {
            return Err(format!("{name} needs a value: /set parameter {name} VALUE"));
        }
        if text == "default" {
            self.values.remove(name);
            if *name == "max_tokens" {
                self.values.insert("max_tokens", json!(self.max_tokens_default));
            }
            return Ok(format!("{name} is what the server makes it"));
        }
        let value = match kind {
            Kind::Number => text.parse::<f64>().ok().filter(|number| number.is_finite()).map(|number| json!(number)),
            Kind::Integer => text.parse::<i64>().ok().map(|number| json!(number)),
            Kind::Texts => {
                let mut texts = self.values.get(name).and_then(Value::as_array).cloned().unwrap_or_default();
                texts.push(json!(text));
                Some(Value::Array(texts))
            }
        };
        let value = value.ok_or_else(|| format!("{name} must be {}, found {text:?}", kind.expected()))?;
        let said = format!("{name} is {value}");
        self.values.insert(name, value);
        Ok(said)
    }

    pub(super) fn put_into(&self, body: &mut Value) {
        for (name, value) in &self.values {
            body[*name] = value.clone();
        }
    }
}

impl Kind {
    const fn expected(self) -> &'static str {
        match self {
            Kind::Number => "a number",
            Kind::Integer => "an integer",
            Kind::Texts => "a text",
        }
    }
}

impl fmt::Display for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let lines: Vec<String> = self.values.iter().map(|(name, value)| format!("{name:<20} {value}")).collect();
        f.write_str(&lines.join("\n"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_set_taken_back_and_refused_by_name() {
        let mut settings = Settings::new(512);
        assert_eq!(settings.set("temperature", "0.5").as_deref(), Ok("temperature is 0.5"));
        assert_eq!(settings.set("num_predict", "7").as_deref(), Ok("max_tokens is 7"));
        settings.set("stop", "END").unwrap();
        settings.set("stop", "two words").unwrap();
        let mut body = json!({});
        settings.put_into(&mut body);
        assert_eq!(body, json!({"temperature": 0.5, "max_tokens": 7, "stop": ["END", "two words"]}));
        assert_eq!(settings.set("seed", "x").unwrap_err(), "seed must be an integer, found \"x\"");
        assert_eq!(settings.set("temperature", "nan").unwrap_err(), "temperature must be a number, found \"nan\"");
        assert!(settings.set("num_ctx", "1").unwrap_err().starts_with("there is no parameter \"num_ctx\""));
        assert!(settings.set("seed", "").unwrap_err().contains("needs a value"));
        for name in ["temperature", "max_tokens", "stop"] {
            settings.set(name, "default").unwrap();
        }
        let mut body = json!({});
        settings.put_into(&mut body);
        assert_eq!(body, json!({"max_tokens": 512}));
        assert_eq!(settings.to_string(), "max_tokens           512");
    }
}
