//! What a policy says about the share; knows no policy.

use super::split::Parts;
use super::{Latencies, Reason, WindowReport};

/// A policy's answer, before it is rounded and told.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Verdict {
    /// Parts for prefill from now on.
    pub(super) parts: Parts,
    /// Why.
    pub(super) reason: Reason,
    /// What it is based on.
    pub(super) outlook: Outlook,
}

/// Latencies that were measured and are predicted.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(super) struct Outlook {
    /// Latencies until now.
    pub(super) measured: Latencies,
    /// The same latencies from now on.
    pub(super) predicted: Latencies,
    /// Predictions that a search took.
    pub(super) model_calls: u32,
}

impl Outlook {
    /// What a window says, without a prediction.
    pub(super) fn of(window: &WindowReport) -> Outlook {
        let measured = Latencies { prefill: window.ttft.value(), decode: window.tpot.value() };
        Outlook { measured, ..Outlook::default() }
    }
}
