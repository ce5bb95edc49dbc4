//! Renders chat templates to compare them with Python (tests/templates/compare.py): one JSON object per line.
//!
//! In: `template`, `variables`, `now_unix_s`. Out: `text`, or `refused` with the template's own words, or `failed`;
//! with `compile` where the template does not start.

use std::io::{BufRead, Write};
use std::sync::Arc;

use router::jinja::{Error, Origin, Template, Value};
use serde_json::{Map, Value as Json, json};

/// Same bound as the server's.
const STEPS_MAX: u64 = 40_000_000;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut out = std::io::BufWriter::new(std::io::stdout().lock());
    for line in std::io::stdin().lock().lines() {
        let case: Json = serde_json::from_str(&line?)?;
        let source = case["template"].as_str().ok_or("template is missing")?;
        let variables = case["variables"].as_object().ok_or("variables are missing")?;
        let now_unix_s = case["now_unix_s"].as_u64().ok_or("now_unix_s is missing")?;
        let answer = match Template::compile(source) {
            Err(error) => json!({"failed": error.to_string(), "compile": true}),
            Ok(template) => match template.render(|| values(variables), now_unix_s, STEPS_MAX) {
                Ok(rendered) => json!({"text": rendered.text}),
                Err(Error::Raised(message)) => json!({"refused": message}),
                Err(error) => json!({"failed": error.to_string()}),
            },
        };
        writeln!(out, "{answer}")?;
    }
    out.flush()?;
    Ok(())
}

fn values(variables: &Map<String, Json>) -> Vec<(Arc<str>, Value)> {
    variables.iter().map(|(name, value)| (Arc::from(name.as_str()), Value::of_json(value, Origin::Given))).collect()
}
