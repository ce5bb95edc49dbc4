//! The one enum of ways in which a request fails, with its exhaustive mappings to every boundary.

use thiserror::Error;

/// Kind of a failure. Classified once, where it happens; every boundary only renders it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Error)]
pub enum FailureKind {
    /// The request itself is wrong.
    #[error("the request is not valid")]
    InvalidRequest,
    /// Prompt and output do not fit the context or any pool.
    #[error("the request is longer than this deployment can hold")]
    TooLong,
    /// No such model or path.
    #[error("not found")]
    NotFound,
    /// Admission refused the request; trying later helps.
    #[error("the service is overloaded")]
    Overloaded,
    /// No worker of the needed role is up.
    #[error("no worker is available")]
    Unavailable,
    /// The request's deadline has passed.
    #[error("the request's deadline has passed")]
    DeadlineExceeded,
    /// The client (or the router on its behalf) gave the request up.
    #[error("the request was cancelled")]
    Cancelled,
    /// The worker that ran the request is gone.
    #[error("the worker was lost")]
    WorkerLost,
    /// The KV cache was lost between prefill and decode.
    #[error("the KV cache was lost on its way")]
    KvLost,
    /// The two sides cannot exchange KV (model, dtype, numerics or wire version differ).
    #[error("the workers are not compatible")]
    Incompatible,
    /// A defect of ours.
    #[error("internal error")]
    Internal,
}

impl FailureKind {
    /// Every kind, for tables and tests.
    pub const ALL: [FailureKind; 11] = [
        FailureKind::InvalidRequest,
        FailureKind::TooLong,
        FailureKind::NotFound,
        FailureKind::Overloaded,
        FailureKind::Unavailable,
        FailureKind::DeadlineExceeded,
        FailureKind::Cancelled,
        FailureKind::WorkerLost,
        FailureKind::KvLost,
        FailureKind::Incompatible,
        FailureKind::Internal,
    ];

    /// HTTP status of an answer that has not begun.
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            FailureKind::InvalidRequest | FailureKind::TooLong => 400,
            FailureKind::NotFound => 404,
            FailureKind::Overloaded => 429,
            FailureKind::Unavailable => 503,
            FailureKind::DeadlineExceeded => 504,
            FailureKind::Cancelled => 499,
            FailureKind::WorkerLost | FailureKind::KvLost => 503,
            FailureKind::Incompatible | FailureKind::Internal => 500,
        }
    }

    /// gRPC status code (numeric, as the protocol defines them).
    #[must_use]
    pub const fn grpc_code(self) -> i32 {
        match self {
            FailureKind::InvalidRequest | FailureKind::TooLong => 3,
            FailureKind::NotFound => 5,
            FailureKind::Overloaded => 8,
            FailureKind::Unavailable | FailureKind::WorkerLost => 14,
            FailureKind::DeadlineExceeded => 4,
            FailureKind::Cancelled => 1,
            FailureKind::KvLost => 15,
            FailureKind::Incompatible => 9,
            FailureKind::Internal => 13,
        }
    }

    /// OpenAI `error.type`.
    #[must_use]
    pub const fn openai_type(self) -> &'static str {
        match self {
            FailureKind::InvalidRequest | FailureKind::TooLong | FailureKind::NotFound | FailureKind::Cancelled => {
                "invalid_request_error"
            }
            FailureKind::Overloaded => "rate_limit_error",
            FailureKind::Unavailable
            | FailureKind::DeadlineExceeded
            | FailureKind::WorkerLost
            | FailureKind::KvLost
            | FailureKind::Incompatible
            | FailureKind::Internal => "server_error",
        }
    }

    /// OpenAI `error.code`.
    #[must_use]
    pub const fn openai_code(self) -> Option<&'static str> {
        match self {
            FailureKind::InvalidRequest => None,
            FailureKind::TooLong => Some("context_length_exceeded"),
            FailureKind::NotFound => Some("not_found"),
            FailureKind::Overloaded => Some("overloaded"),
            FailureKind::Unavailable => Some("unavailable"),
            FailureKind::DeadlineExceeded => Some("deadline_exceeded"),
            FailureKind::Cancelled => Some("cancelled"),
            FailureKind::WorkerLost => Some("worker_lost"),
            FailureKind::KvLost => Some("kv_lost"),
            FailureKind::Incompatible => Some("incompatible_workers"),
            FailureKind::Internal => Some("internal_error"),
        }
    }

    /// Metric label and wire name.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            FailureKind::InvalidRequest => "invalid_request",
            FailureKind::TooLong => "too_long",
            FailureKind::NotFound => "not_found",
            FailureKind::Overloaded => "overloaded",
            FailureKind::Unavailable => "unavailable",
            FailureKind::DeadlineExceeded => "deadline_exceeded",
            FailureKind::Cancelled => "cancelled",
            FailureKind::WorkerLost => "worker_lost",
            FailureKind::KvLost => "kv_lost",
            FailureKind::Incompatible => "incompatible",
            FailureKind::Internal => "internal",
        }
    }

    /// True if another attempt, elsewhere or later, can succeed.
    #[must_use]
    pub const fn may_be_retried(self) -> bool {
        match self {
            FailureKind::Overloaded | FailureKind::Unavailable | FailureKind::WorkerLost | FailureKind::KvLost => true,
            FailureKind::InvalidRequest
            | FailureKind::TooLong
            | FailureKind::NotFound
            | FailureKind::DeadlineExceeded
            | FailureKind::Cancelled
            | FailureKind::Incompatible
            | FailureKind::Internal => false,
        }
    }
}

/// A failure with the sentence that a person needs.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{detail}")]
pub struct Failure {
    /// Kind of the failure.
    pub kind: FailureKind,
    /// Sentence that says what was wrong and where; safe to show to the client.
    pub detail: String,
}

impl Failure {
    /// Creates a failure of `kind` that says `detail`.
    pub fn new(kind: FailureKind, detail: impl Into<String>) -> Failure {
        Failure { kind, detail: detail.into() }
    }
}
