//! `service_tier`: accepted as OpenAI accepts it; knows no queue.

use super::ApiError;
use super::fields::{self, Fields};

/// The tier in which this server answers: it has only one.
const ANSWERED: &str = "default";

/// Takes the tier that a client asks for; returns the one that the answer names, if the client asks for any.
pub(super) fn take_service_tier(fields: &mut Fields) -> Result<Option<&'static str>, ApiError> {
    const NAME: &str = "service_tier";
    let Some(value) = fields.take(NAME) else { return Ok(None) };
    match value.as_str() {
        Some("auto" | "default" | "flex" | "priority") => Ok(Some(ANSWERED)),
        Some(_) | None => Err(fields::wrong(NAME, "one of auto, default, flex, priority", &value)),
    }
}
