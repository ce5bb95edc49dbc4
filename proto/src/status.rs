//! Failures across a gRPC call: the code is for other tools, the details carry the failure itself, unchanged.

use prost::Message;
use sched::{Failure, FailureKind};
use tonic::{Code, Status};

use crate::convert::Wire;
use crate::generated as wire;

pub(crate) fn status_of(failure: &Failure) -> Status {
    let message = failure.to_wire();
    let details = message.encode_to_vec();
    Status::with_details(Code::from_i32(failure.kind.grpc_code()), message.detail, details.into())
}

/// Returns the failure that a status carries; a status of another layer (transport, proxy) is classified by its code.
pub(crate) fn failure_of(status: &Status) -> Failure {
    let carried = wire::Failure::decode(status.details()).ok().and_then(|message| Failure::from_wire(message).ok());
    carried.unwrap_or_else(|| {
        // Other layers do not always give a message.
        let words = match (status.message(), status.code()) {
            ("", Code::Unimplemented) => "the process there does not serve this call: it has another role",
            ("", code) => code.description(),
            (message, _) => message,
        };
        Failure::new(kind_of(status.code()), words)
    })
}

fn kind_of(code: Code) -> FailureKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange | Code::AlreadyExists => FailureKind::InvalidRequest,
        Code::NotFound => FailureKind::NotFound,
        Code::ResourceExhausted => FailureKind::Overloaded,
        Code::Unavailable => FailureKind::WorkerLost,
        Code::DeadlineExceeded => FailureKind::DeadlineExceeded,
        Code::Cancelled | Code::Aborted => FailureKind::Cancelled,
        Code::DataLoss => FailureKind::KvLost,
        Code::FailedPrecondition | Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated => {
            FailureKind::Incompatible
        }
        Code::Ok | Code::Unknown | Code::Internal => FailureKind::Internal,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_failure_survives_a_status() {
        for kind in FailureKind::ALL {
            let failure = Failure::new(kind, format!("what happened: {} äöü", kind.label()));
            let status = status_of(&failure);
            assert_eq!(status.code(), Code::from_i32(kind.grpc_code()));
            assert_eq!(failure_of(&status), failure);
        }
    }

    #[test]
    fn a_foreign_status_is_classified_by_its_code() {
        let failure = failure_of(&Status::unavailable("tcp connect error"));
        assert_eq!(failure, Failure::new(FailureKind::WorkerLost, "tcp connect error"));
        assert_eq!(failure_of(&Status::ok("")).kind, FailureKind::Internal);
        let other_role = failure_of(&Status::unimplemented(""));
        assert!(other_role.kind == FailureKind::Incompatible && other_role.detail.contains("another role"));
    }
}
