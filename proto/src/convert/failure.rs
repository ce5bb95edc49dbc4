//! Failures as values.

use sched::{Failure, FailureKind};

use super::limits::DETAIL_BYTES_MAX;
use super::{ConvertError, Field, Problem, Wire};
use crate::generated as wire;

impl Wire for FailureKind {
    type Message = i32;

    fn to_wire(&self) -> i32 {
        let kind = match self {
            FailureKind::InvalidRequest => wire::FailureKind::InvalidRequest,
            FailureKind::TooLong => wire::FailureKind::TooLong,
            FailureKind::NotFound => wire::FailureKind::NotFound,
            FailureKind::Overloaded => wire::FailureKind::Overloaded,
            FailureKind::Unavailable => wire::FailureKind::Unavailable,
            FailureKind::DeadlineExceeded => wire::FailureKind::DeadlineExceeded,
            FailureKind::Cancelled => wire::FailureKind::Cancelled,
            FailureKind::WorkerLost => wire::FailureKind::WorkerLost,
            FailureKind::KvLost => wire::FailureKind::KvLost,
            FailureKind::Incompatible => wire::FailureKind::Incompatible,
            FailureKind::Internal => wire::FailureKind::Internal,
        };
        kind.into()
    }

    fn from_wire(message: i32) -> Result<Self, ConvertError> {
        let unknown = Field("Failure", "kind").error(Problem::Unknown(message));
        match wire::FailureKind::try_from(message).map_err(|_| unknown.clone())? {
            wire::FailureKind::Unspecified => Err(unknown),
            wire::FailureKind::InvalidRequest => Ok(FailureKind::InvalidRequest),
            wire::FailureKind::TooLong => Ok(FailureKind::TooLong),
            wire::FailureKind::NotFound => Ok(FailureKind::NotFound),
            wire::FailureKind::Overloaded => Ok(FailureKind::Overloaded),
            wire::FailureKind::Unavailable => Ok(FailureKind::Unavailable),
            wire::FailureKind::DeadlineExceeded => Ok(FailureKind::DeadlineExceeded),
            wire::FailureKind::Cancelled => Ok(FailureKind::Cancelled),
            wire::FailureKind::WorkerLost => Ok(FailureKind::WorkerLost),
            wire::FailureKind::KvLost => Ok(FailureKind::KvLost),
            wire::FailureKind::Incompatible => Ok(FailureKind::Incompatible),
            wire::FailureKind::Internal => Ok(FailureKind::Internal),
        }
    }
}

impl Wire for Failure {
    type Message = wire::Failure;

    fn to_wire(&self) -> wire::Failure {
        wire::Failure { kind: self.kind.to_wire(), detail: shortened(&self.detail).to_owned() }
    }

    fn from_wire(message: wire::Failure) -> Result<Self, ConvertError> {
        let detail = Field("Failure", "detail").text(message.detail, DETAIL_BYTES_MAX)?;
        Ok(Failure { kind: FailureKind::from_wire(message.kind)?, detail })
    }
}

/// Cuts a text to the length that the other side accepts: a long explanation must not end the session.
fn shortened(detail: &str) -> &str {
    let mut end = detail.len().min(DETAIL_BYTES_MAX);
    while !detail.is_char_boundary(end) {
        end -= 1;
    }
    &detail[..end]
}

impl From<ConvertError> for Failure {
    fn from(error: ConvertError) -> Failure {
        Failure::new(FailureKind::InvalidRequest, error.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_detail_is_cut_at_a_character() {
        let detail = "é".repeat(DETAIL_BYTES_MAX);
        let failure = Failure::from_wire(Failure::new(FailureKind::Internal, detail).to_wire()).unwrap();
        assert_eq!(failure.detail, "é".repeat(DETAIL_BYTES_MAX / 2));
    }

    #[test]
    fn an_unknown_kind_is_named() {
        let error = Failure::from_wire(wire::Failure { kind: 77, detail: String::new() }).unwrap_err();
        assert_eq!(error.to_string(), "message Failure, field kind: has the unknown value 77");
    }
}
