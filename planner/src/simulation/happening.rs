//! Events of a simulation, and their text in the event log.

use std::fmt;

use sched::message::{FromWorker, ToGiver, ToWorker};
use sched::replica::Event;
use sched::{LeaseId, PullId, WorkerId};

#[derive(Debug)]
pub(super) enum Happening {
    /// The request with this index arrives.
    Arrives(usize),
    /// An event reaches a worker.
    AtWorker { worker: WorkerId, event: Event },
    /// A message reaches the router.
    AtRouter { worker: WorkerId, message: FromWorker },
    /// A reader's word reaches a giver.
    AtGiver { giver: WorkerId, reader: WorkerId, word: ToGiver },
    /// A device's `next_timeout` is due.
    DeviceTimer(WorkerId),
    /// The network's `next_timeout` is due.
    NetworkTimer,
    /// All bytes of a pull have arrived, or its connection has broken.
    PullEnds { reader: WorkerId, pull: PullId, giver: WorkerId, lease: LeaseId },
    /// A worker's `next_timeout` is due.
    WorkerTimer(WorkerId),
    /// The router's `next_timeout` is due.
    RouterTimer,
    /// Workers report their loads.
    LoadsReported,
    /// A worker dies.
    Dies(WorkerId),
    /// The router sees that a worker's session is gone.
    SessionGone(WorkerId),
}

impl fmt::Display for Happening {
    /// Without prompts, which are inputs, and long.
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
