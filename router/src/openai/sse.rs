//! Server-sent events: framing only; knows no event's meaning.

use serde::Serialize;

use super::ApiError;

/// Last event of a stream that ended well.
pub const DONE: &[u8] = b"data: [DONE]\n\n";

/// Appends one event with a JSON payload.
pub fn event(payload: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    append_json(payload, out);
    out.extend_from_slice(b"\n\n");
}

/// Appends one event with a name and a JSON payload.
pub fn named_event(name: &str, payload: &impl Serialize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.push(b'\n');
    event(payload, out);
}

/// Appends the event that ends a stream after an error.
pub fn error(error: &ApiError, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(&error.body());
    out.extend_from_slice(b"\n\n");
}

pub(crate) fn json(payload: &impl Serialize) -> Vec<u8> {
    let mut out = Vec::with_capacity(256);
    append_json(payload, &mut out);
    out
}

#[expect(clippy::expect_used, reason = "our own types have string keys and a vector does not fail to be written to")]
fn append_json(payload: &impl Serialize, out: &mut Vec<u8>) {
    serde_json::to_writer(out, payload).expect("our own types can be written as JSON");
}
