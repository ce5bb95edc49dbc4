//! What goes into a replica scheduler and what comes out of it.

use std::ops::Range;
use std::sync::Arc;

use crate::handoff::PullOutcome;
use crate::message::{Envelope, ToGiver, ToReader, ToWorker};
use crate::{BlockId, Failure, InstanceId, LaneId, LeaseId, Leg, PullId, Span, StepId, StepPlan, StepResult};

/// One fact for a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A router says this.
    Router(ToWorker),
    /// As a giver: this reader says this.
    Reader(InstanceId, ToGiver),
    /// As a reader: this giver says this, or whoever keeps the link to it, in its stead.
    Giver(InstanceId, ToReader),
    /// As a reader: a release was not heard, and the giver cannot be asked again.
    ReleaseUnheard {
        /// Whose answer is missing.
        giver: InstanceId,
        /// The lease.
        lease: LeaseId,
    },
    /// As a reader: this giver can be spoken to, for the first time or again. Words may have been lost meanwhile.
    GiverMet(InstanceId),
    /// As a reader: this giver can be read from as well. Comes after [`Event::GiverMet`].
    GiverUp(InstanceId),
    /// As a reader: it cannot be read from for now. New offers of it wait; what is taken over already goes on as well as it
    /// can.
    GiverDown(InstanceId),
    /// As a reader: this giver cannot be met at this address. The offers that wait for it there fail.
    GiverUnmet {
        /// Who.
        giver: InstanceId,
        /// Where it was sought.
        address: Arc<str>,
        /// Why.
        failure: Failure,
    },
    /// As a reader: the giver's process is gone.
    GiverLost(InstanceId),
    /// As a reader: a pull has ended; no byte of it can land any more.
    PullEnded {
        /// The pull.
        pull: PullId,
        /// How.
        outcome: PullOutcome,
    },
    /// So many layers of a step have run; only of one that asked for it.
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
        /// What it brought.
        result: StepResult,
    },
    /// The backend could not run a step; every sequence in it fails.
    StepFailed {
        /// Lane.
        lane: LaneId,
        /// Step.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// Time has passed.
    Tick,
}

/// One decision of a worker's replica scheduler.
#[derive(Debug, Clone, PartialEq)]
pub enum Action {
    /// For the backend.
    Compute(Compute),
    /// For the transport and its lease table.
    Transfer(Transfer),
    /// For another process.
    Say(Envelope),
}

/// What a backend is to do.
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
        /// Whether to say how far it is.
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

/// Whether a step's progress wakes the scheduler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Only its end does.
    Untold,
    /// Every layer does: see [`Event::StepProgress`].
    ByLayer,
}

/// What a transport is to do.
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
    /// As a reader: meet this giver, which offers wait for; answered by [`Event::GiverUp`] or [`Event::GiverUnmet`].
    Meet {
        /// Who.
        giver: InstanceId,
        /// Where its peer service listens, as the offer says.
        address: Arc<str>,
    },
    /// As a reader: pull these blocks; answered by [`Event::PullEnded`].
    Pull(Pull),
    /// As a reader: abort this pull; still answered by [`Event::PullEnded`].
    AbortPull(PullId),
}

/// A pull of a part of a prompt's KV: some positions, in some layers. A leg may have several at a time.
///
/// Either table is in blocks of its owner's size; [`crate::layout::Resharding`] says which tile becomes which.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pull {
    /// Which.
    pub id: PullId,
    /// The leg it is for.
    pub leg: Leg,
    /// Whose blocks.
    pub giver: InstanceId,
    /// The right to read.
    pub lease: LeaseId,
    /// The giver's block table, from position 0.
    pub remote: Vec<BlockId>,
    /// Our block table, from position 0.
    pub local: Vec<BlockId>,
    /// The positions; they begin at a tile. What lies below is already here (prefix cache).
    pub positions: Range<u32>,
    /// The layers.
    pub layers: Range<u32>,
    /// Time within which it must end: what is left of the request's.
    pub deadline_in: Span,
}
