//! Splits a latency into parts that sum to it; knows one latency at a time.

use crate::message::{FirstTiming, JoinTiming};
use crate::{Span, Time};

/// Times at which a request passed the router's gates. Later marks are not before earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Marks {
    /// Arrival of its first byte.
    pub arrived: Time,
    /// End of parsing, templating and tokenising.
    pub parsed: Time,
    /// Admission.
    pub admitted: Time,
}

/// Parts of a time to first token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct TtftParts {
    /// Parsing, templating, tokenising.
    pub parse: Span,
    /// Wait for admission.
    pub admission: Span,
    /// From admission to the first chunk: no worker, lost attempts, and the queue of the worker that prefilled.
    pub queue: Span,
    /// From the first chunk to the first token.
    pub prefill: Span,
    /// Everything else: both ways between the processes, detokenising, writing.
    pub relay: Span,
}

/// Parts of a hand-off gap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct GapParts {
    /// Everything that is not one of the other parts: the offer was not accepted yet, messages on their way.
    pub wait: Span,
    /// Transfer that prefill did not hide.
    pub transfer: Span,
    /// From the verified KV to the first decode step.
    pub queue: Span,
    /// The first decode step.
    pub step: Span,
}

impl TtftParts {
    /// Splits the time from arrival to `seen`, when the client got the first token. `submitted` is when the leg that
    /// brought it left the router, and `first` holds what its worker measured.
    #[must_use]
    pub fn split(marks: &Marks, submitted: Time, first: FirstTiming, seen: Time) -> TtftParts {
        let mut rest = Rest(seen.since(marks.arrived));
        let parts = TtftParts {
            parse: rest.take(marks.parsed.since(marks.arrived)),
            admission: rest.take(marks.admitted.since(marks.parsed)),
            queue: rest.take(submitted.since(marks.admitted) + first.queue),
            prefill: rest.take(first.prefill),
            relay: rest.0,
        };
        debug_assert_eq!(parts.total(), seen.since(marks.arrived));
        parts
    }

    /// The time to first token.
    #[must_use]
    pub fn total(&self) -> Span {
        self.parse + self.admission + self.queue + self.prefill + self.relay
    }

    /// Parts with their metric labels.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Span); 5] {
        [
            ("parse", self.parse),
            ("admission", self.admission),
            ("queue", self.queue),
            ("prefill", self.prefill),
            ("relay", self.relay),
        ]
    }
}

impl GapParts {
    /// Splits the gap that the client saw before the first token of a taken-over leg.
    #[must_use]
    pub fn split(gap: Span, join: JoinTiming) -> GapParts {
        let mut rest = Rest(gap);
        let (step, queue, transfer) = (rest.take(join.step), rest.take(join.queue), rest.take(join.transfer));
        let parts = GapParts { wait: rest.0, transfer, queue, step };
        debug_assert_eq!(parts.total(), gap);
        parts
    }

    /// The hand-off gap.
    #[must_use]
    pub fn total(&self) -> Span {
        self.wait + self.transfer + self.queue + self.step
    }

    /// Parts with their metric labels.
    #[must_use]
    pub const fn named(&self) -> [(&'static str, Span); 4] {
        [("wait", self.wait), ("transfer", self.transfer), ("queue", self.queue), ("step", self.step)]
    }
}

/// Span that no part has taken yet.
struct Rest(Span);

impl Rest {
    fn take(&mut self, wanted: Span) -> Span {
        let taken = Span(wanted.us().min(self.0.us()));
        self.0 = Span(self.0.us() - taken.us());
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_plain_request_splits_as_measured() {
        let marks = Marks { arrived: Time(100), parsed: Time(110), admitted: Time(113) };
        let first = FirstTiming { queue: Span(20), prefill: Span(50), ..FirstTiming::default() };
        let parts = TtftParts::split(&marks, Time(114), first, Time(190));
        let wanted =
            TtftParts { parse: Span(10), admission: Span(3), queue: Span(21), prefill: Span(50), relay: Span(6) };
        assert_eq!(parts, wanted);
        let join = JoinTiming { wait: Span(5), transfer: Span(7), queue: Span(2), step: Span(10) };
        let gap = GapParts::split(Span(30), join);
        assert_eq!(gap, GapParts { wait: Span(11), transfer: Span(7), queue: Span(2), step: Span(10) });
    }

    proptest! {
        #[test]
        fn parts_sum_to_the_whole_whatever_workers_claim(
            times in prop::array::uniform5(0_u64..1_000), claims in prop::array::uniform6(0_u64..2_000)
        ) {
            let mut times = times;
            times.sort_unstable();
            let marks = Marks { arrived: Time(times[0]), parsed: Time(times[1]), admitted: Time(times[2]) };
            let first = FirstTiming { queue: Span(claims[0]), prefill: Span(claims[1]), ..FirstTiming::default() };
            let parts = TtftParts::split(&marks, Time(times[3]), first, Time(times[4]));
            prop_assert_eq!(parts.total(), Span(times[4] - times[0]));
            prop_assert_eq!(parts.named().iter().map(|(_, span)| span.us()).sum::<u64>(), parts.total().us());
            let join = JoinTiming {
                wait: Span(claims[2]), transfer: Span(claims[3]), queue: Span(claims[4]), step: Span(claims[5]),
            };
            let gap = GapParts::split(Span(times[3]), join);
            prop_assert_eq!(gap.total(), Span(times[3]));
            prop_assert_eq!(gap.named().iter().map(|(_, span)| span.us()).sum::<u64>(), times[3]);
        }
    }
}
