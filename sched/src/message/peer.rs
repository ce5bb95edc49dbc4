//! What readers (decode) and givers (prefill) tell each other about leases.
//!
//! Words may be lost, and a reader repeats its own until it is answered; a giver answers a repeated release as it did
//! the first.

use crate::LeaseId;
use crate::handoff::Watermark;

/// Reader to giver.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToGiver {
    /// The reader still needs these leases: they are renewed, as far as they are its own. Answered by [`ToReader::Gone`]
    /// if one is not.
    Renew(Vec<LeaseId>),
    /// Renews this lease, and asks to be told how much of the prompt is stored: now, and whenever it is more.
    Follow(LeaseId),
    /// The reader has everything and lets go. Answered by [`ToReader::Released`]; may be repeated.
    Release(LeaseId),
    /// The reader gives up before it has read everything.
    Abort(LeaseId),
}

impl ToGiver {
    /// Its kind, for logs: leases are nobody else's business.
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

/// Giver to reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToReader {
    /// These leases of a heartbeat are not the reader's, or not any more.
    Gone(Vec<LeaseId>),
    /// So much of the prompt is stored.
    Filled {
        /// The lease.
        lease: LeaseId,
        /// How much.
        stored: Watermark,
    },
    /// What came of a release.
    Released {
        /// The lease.
        lease: LeaseId,
        /// Whether it held until now.
        answer: ReleaseAnswer,
    },
}

/// A giver's answer to a release. The giver remembers it for one lease span, so a repeat gets the same answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReleaseAnswer {
    /// The lease was alive until now: what was read is valid.
    Ok,
    /// It was not: what was read must not be used.
    Expired,
}
