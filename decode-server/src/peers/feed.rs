//! Giving the replica what has waited for a giver; knows what a loss half-way means.

use engine::EngineError;
use sched::message::ToWorker;
use sched::replica::Event;
use sched::{Failure, FailureKind};

/// How much of a leg's messages the replica was told.
#[derive(Debug, PartialEq)]
pub(super) enum Fed {
    /// Everything, in order.
    Whole,
    /// Not even the offer. The giver's lease is untouched: another worker can take it.
    Nothing(Failure),
    /// The offer, but not all behind it. The replica may have bound the giver's lease to itself: nobody else can take it.
    Begun(Failure),
}

/// Tells the replica an offer and what was said about its leg since, until its inbox is full.
pub(super) fn feed(messages: Vec<ToWorker>, mut send: impl FnMut(Event) -> Result<(), EngineError>) -> Fed {
    for (told, message) in messages.into_iter().enumerate() {
        match send(Event::Router(message)) {
            Ok(()) => {}
            Err(error) if told == 0 => return Fed::Nothing(Failure::new(FailureKind::Overloaded, error.to_string())),
            Err(error) => {
                let detail = format!("what was said behind an offer did not reach the worker: {error}");
                return Fed::Begun(Failure::new(FailureKind::KvLost, detail));
            }
        }
    }
    Fed::Whole
}

#[cfg(test)]
mod tests {
    use sched::message::Commit;
    use sched::{Attempt, Leg, RequestId};

    use super::*;

    /// Feeds three messages to an inbox with this much room.
    fn fed(room: usize) -> Fed {
        let leg = Leg { request: RequestId(1), attempt: Attempt(0) };
        let message = || ToWorker::Commit(Commit { leg, firsts: vec![] });
        let mut told = 0;
        feed(vec![message(), message(), message()], |_| {
            told += 1;
            if told <= room { Ok(()) } else { Err(EngineError::InboxFull { events_max: room }) }
        })
    }

    /// Found by reading: a commit that was not taken passed for a refusal of its offer, and the next reader got a lease that
    /// the first had bound.
    #[test]
    fn only_an_offer_that_was_not_taken_is_a_refusal() {
        assert_eq!(fed(3), Fed::Whole);
        assert!(matches!(fed(0), Fed::Nothing(failure) if failure.kind == FailureKind::Overloaded));
        for room in [1, 2] {
            assert!(matches!(fed(room), Fed::Begun(failure) if failure.kind == FailureKind::KvLost), "room for {room}");
        }
    }
}
