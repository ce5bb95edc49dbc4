//! `output_config` and `output_format`: the structure of an answer and the effort that goes into it; knows no grammar.

use std::sync::Arc;

use serde_json::{Map, Value};

use crate::openai::fields::{Fields, string, wrong};
use crate::openai::known::note_unknown;
use crate::openai::structure::of_schema;
use crate::openai::tools::missing;
use crate::openai::{ApiError, Wanted};
use crate::structure::Keywords;

const CONFIG: &str = "output_config";
/// The older name of `output_config.format`.
const FORMAT: &str = "output_format";

/// What a client wants of an answer's form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Output {
    structure: Option<Wanted>,
    effort: Option<String>,
}

impl Output {
    pub(super) fn take(fields: &mut Fields) -> Result<Output, ApiError> {
        let mut config = Fields::of(fields.object(CONFIG)?.unwrap_or_default());
        let effort = config.take("effort").map(|effort| string("output_config.effort", effort)).transpose()?;
        let inner = match config.take("format") {
            None => None,
            Some(Value::Object(format)) => Some(format),
            Some(other) => return Err(wrong("output_config.format", "an object", &other)),
        };
        note_unknown("output_config.", &config);
        let structure = match (inner, fields.object(FORMAT)?) {
            (None, None) => None,
            (Some(format), None) => Some(wanted(CONFIG, "output_config.format", format)?),
            (None, Some(format)) => Some(wanted(FORMAT, FORMAT, format)?),
            (Some(_), Some(_)) => return Err(together(FORMAT, "output_config.format")),
        };
        Ok(Output { structure, effort })
    }

    pub(super) fn effort(&self) -> Option<&str> {
        self.effort.as_deref()
    }

    /// Returns the structure of the answer, which has one at most; `other` is one that another field wants.
    pub(super) fn structure_beside(self, other: Option<Wanted>) -> Result<Option<Wanted>, ApiError> {
        match (self.structure, other) {
            (Some(own), Some(other)) => Err(together(own.field, other.field)),
            (own, other) => Ok(own.or(other)),
        }
    }
}

/// Returns the structure of a format at `place`. As in Anthropic's API, all of its schema holds.
fn wanted(field: &'static str, place: &str, format: Map<String, Value>) -> Result<Wanted, ApiError> {
    let mut format = Fields::of(format);
    let kind = format.take("type").unwrap_or(Value::Null);
    if kind != "json_schema" {
        return Err(wrong(&format!("{place}.type"), "\"json_schema\"", &kind));
    }
    let place = format!("{place}.schema");
    let schema = format.take("schema").ok_or_else(|| missing(&place))?;
    let grammar: Arc<str> = of_schema(&place, schema, Keywords::AllEnforced)?;
    Ok(Wanted { field, grammar })
}

fn together(one: &str, other: &str) -> ApiError {
    ApiError::invalid(one, format!("{one} and {other} must not be sent together"))
}
