//! Events that go into a replica scheduler and actions that come out of it.

use std::ops::Range;
use std::sync::Arc;

use crate::handoff::PullOutcome;
use crate::message::{Envelope, ToGiver, ToReader, ToWorker};
use crate::{BlockId, Failure, InstanceId, LaneId, LeaseId, Leg, PullId, Span, StepId, StepPlan, StepResult};

/// One fact for a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A word from a router.
    Router(ToWorker),
    /// As a giver: a word from this reader.
    Reader(InstanceId, ToGiver),
    /// As a reader: a word from this giver, or from the keeper of the link to it on its behalf.
    Giver(InstanceId, ToReader),
    /// As a reader: a release got no answer, and the giver cannot be asked again.
    ReleaseUnheard {
        /// Giver whose answer is missing.
        giver: InstanceId,
        /// Lease to be released.
        lease: LeaseId,
    },
    /// As a reader: the control link to this giver is up, perhaps again. Words may have been lost meanwhile.
    GiverMet(InstanceId),
    /// As a reader: KV can be read from this giver as well. Comes after [`Event::GiverMet`].
    GiverUp(InstanceId),
    /// As a reader: this giver cannot be read from for now. Its new offers wait; hand-offs under way go on if they can.
    GiverDown(InstanceId),
    /// As a reader: this giver cannot be met at this address. The offers that wait for it there fail.
    GiverUnmet {
        /// Giver that was sought.
        giver: InstanceId,
        /// Address at which it was sought.
        address: Arc<str>,
        /// Reason.
        failure: Failure,
    },
    /// As a reader: the giver's process is gone.
    GiverLost(InstanceId),
    /// As a reader: a pull has ended; no byte of it can land any more.
    PullEnded {
        /// Pull that has ended.
        pull: PullId,
        /// Result of the pull.
        outcome: PullOutcome,
    },
    /// Progress of a step that runs with [`Progress::ByLayer`].
    StepProgress {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Layers of the plan that have run for all rows.
        layers_done: u32,
    },
    /// The backend finished a step (or was cancelled in it: see `StepResult::layers_done`).
    StepDone {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Samples, and the number of layers that ran.
        result: StepResult,
    },
    /// The backend could not run a step; every sequence in it fails.
    StepFailed {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Reason.
        failure: Failure,
    },
    /// Time has passed.
    Tick,
}

/// One decision of a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// Order to the backend.
    Compute(Compute),
    /// Order to the transport and its lease table.
    Transfer(Transfer),
    /// Word to another process.
    Say(Envelope),
}

/// Order to a backend.
#[derive(Debug, Clone, PartialEq)]
pub enum Compute {
    /// Run this step.
    Run {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// The plan.
        plan: StepPlan,
        /// How much progress the backend reports.
        progress: Progress,
    },
    /// Cancel a submitted step at its next layer boundary: all its sequences are gone. Ignored if it has just ended.
    Cancel {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
    },
}

/// Events by which a running step wakes the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Its end only.
    Untold,
    /// Every layer, by [`Event::StepProgress`].
    ByLayer,
}

/// Order to a transport.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Transfer {
    /// As a giver: let the holder of this lease read these blocks.
    Grant {
        /// Lease.
        lease: LeaseId,
        /// Blocks.
        blocks: Vec<BlockId>,
    },
    /// As a giver: nobody may read under this lease any more. Comes before any of its blocks is reused.
    Revoke(LeaseId),
    /// As a reader: meet this giver, for which offers wait; answered by [`Event::GiverUp`] or [`Event::GiverUnmet`].
    Meet {
        /// Giver to meet.
        giver: InstanceId,
        /// Address of its peer service, from the offer.
        address: Arc<str>,
    },
    /// As a reader: pull these blocks; answered by [`Event::PullEnded`].
    Pull(Pull),
    /// As a reader: abort this pull; still answered by [`Event::PullEnded`].
    AbortPull(PullId),
}

/// Pull of a part of a prompt's KV: some positions, in some layers. A leg may have several at a time.
///
/// Either table is in blocks of its owner's size; [`crate::layout::Resharding`] says which tile becomes which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Name of the pull.
    pub id: PullId,
    /// Leg that the pull is for.
    pub leg: Leg,
    /// Giver whose blocks are read.
    pub giver: InstanceId,
    /// Lease that gives the right to read.
    pub lease: LeaseId,
    /// The giver's block table, from position 0.
    pub remote: Vec<BlockId>,
    /// Our block table, from position 0.
    pub local: Vec<BlockId>,
    /// Positions to pull, from the start of a tile. Those below come from the prefix cache or other pulls.
    pub positions: Range<u32>,
    /// Layers to pull.
    pub layers: Range<u32>,
    /// Time left to the request, in which the pull must end.
    pub deadline_in: Span,
}
