//! Words of readers (decode) and givers (prefill) about leases.
//!
//! Words may be lost: a reader repeats its own until it is answered, and a repeated release gets the same answer.

use crate::LeaseId;
use crate::handoff::Watermark;

/// Words of a reader to a giver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGiver {
    /// Renews these leases, as far as they are the reader's own. Answered by [`ToReader::Gone`] if one is not.
    Renew(Vec<LeaseId>),
    /// Renews this lease, and asks to be told how much of the prompt is stored: now, and whenever that grows.
    Follow(LeaseId),
    /// The reader has everything and lets go. Answered by [`ToReader::Released`]; may be repeated.
    Release(LeaseId),
    /// The reader gives up before it has read everything.
    Abort(LeaseId),
}

impl ToGiver {
    /// Kind of the word, for logs, which name no leases.
    #[must_use]
    pub const fn label(&self) -> &'static str {
        match self {
            ToGiver::Renew(_) => "renew",
            ToGiver::Follow(_) => "follow",
            ToGiver::Release(_) => "release",
            ToGiver::Abort(_) => "abort",
        }
    }
}

/// Words of a giver to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToReader {
    /// Leases that the reader named and that are not its own, or not any more.
    Gone(Vec<LeaseId>),
    /// Part of the prompt that is stored.
    Filled {
        /// The lease.
        lease: LeaseId,
        /// Mark up to which it is stored.
        stored: Watermark,
    },
    /// Answer to a release.
    Released {
        /// The lease.
        lease: LeaseId,
        /// Whether the lease held until now.
        answer: ReleaseAnswer,
    },
}

/// A giver's answer to a release. The giver remembers it for one lease span, so a repeat gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseAnswer {
    /// The lease was alive until now: what was read is valid.
    Ok,
    /// The lease did not hold, or the prompt was not complete: what was read must not be used.
    Expired,
}
