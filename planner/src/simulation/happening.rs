//! Everything that can happen in a simulation, and how it is written to the event log.

use std::fmt;

use sched::message::{FromWorker, ToGiver, ToWorker};
use sched::replica::Event;
use sched::{LeaseId, PullId, WorkerId};

/// One event.
#[derive(Debug)]
pub(super) enum Happening {
    /// The arrival of this index.
    Arrives(usize),
    /// A message reaches a worker.
    AtWorker { worker: WorkerId, event: Event },
    /// A message reaches the router.
    AtRouter { worker: WorkerId, message: FromWorker },
    /// A word of a reader reaches a giver.
    AtGiver { giver: WorkerId, reader: WorkerId, word: ToGiver },
    /// A device's `next_timeout`.
    DeviceTimer(WorkerId),
    /// The network's `next_timeout`.
    NetworkTimer,
    /// The bytes of a pull are there, if its lease still holds.
    PullEnds { reader: WorkerId, pull: PullId, giver: WorkerId, lease: LeaseId },
    /// A worker's `next_timeout`.
    WorkerTimer(WorkerId),
    /// The router's `next_timeout`.
    RouterTimer,
    /// Workers report how full they are.
    LoadsReported,
    /// A worker dies.
    Dies(WorkerId),
    /// The router sees that a worker's session is gone.
    SessionGone(WorkerId),
}

impl fmt::Display for Happening {
    /// Without prompts: they are inputs, and long.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::AtWorker { worker, event: Event::Router(ToWorker::Submit(request, work)) } => {
                write!(f, "{worker} gets {} to {work:?}", request.leg)
            }
            Happening::AtWorker { worker, event: Event::Router(ToWorker::Offer(offer)) } => {
                write!(f, "{worker} is offered {} under {} of {}", offer.request.leg, offer.lease, offer.giver)
            }
            Happening::AtWorker { worker, event } => write!(f, "{worker} gets {event:?}"),
            Happening::AtRouter { worker, message } => write!(f, "{worker} says {message:?}"),
            other => write!(f, "{other:?}"),
        }
    }
}
