//! One leg: who is bound to it and how far its hand-off has come; knows no other leg.

use crate::message::Commit;
use crate::{Attempt, BlockId, Choice, FinishReason, LeaseId, Request, Time, WorkerId};

/// A leg at its workers.
#[derive(Debug)]
pub(super) struct LegState {
    /// What was submitted.
    pub(super) request: Request,
    /// When.
    pub(super) submitted: Time,
    /// Where it runs.
    pub(super) course: Course,
}

/// Where a leg runs.
#[derive(Debug)]
pub(super) enum Course {
    /// From prompt to end at one worker.
    Whole(Side),
    /// Prefilled by a giver, taken over by a reader.
    Handoff(Handoff),
}

/// A worker's part of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) worker: WorkerId,
    pub(super) part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// It works on it and must hear of the end.
    Bound,
    /// It has let go by itself; it hears nothing more.
    Over,
}

/// The two sides of a hand-off and what has passed between them.
#[derive(Debug)]
pub(super) struct Handoff {
    pub(super) giver: Side,
    /// Chosen together with the giver; chosen anew if it is lost before it was told anything.
    pub(super) reader: Option<WorkerId>,
    pub(super) told: Told,
    /// The giver's reservation, until the reader has been told of it.
    pub(super) offer: Option<(LeaseId, Vec<BlockId>)>,
    pub(super) commitment: Commitment,
}

/// What the reader knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Offer,
    Commit,
    /// It has said that its part is over.
    Over,
}

/// The giver's first tokens.
#[derive(Debug)]
pub(super) enum Commitment {
    /// Not there yet.
    Awaited,
    /// Delivered to the client, but there is no reader to go on from them.
    Held(Commit),
    /// The reader has them.
    Passed,
}

/// What a worker's end means for a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing: its part was over, or the leg can go on without it.
    GoesOn,
    /// The leg cannot go on.
    Lost,
}

impl LegState {
    pub(super) fn attempt(&self) -> Attempt {
        self.request.leg.attempt
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = Choice> {
        self.request.choices.iter().map(|state| state.choice)
    }

    /// The workers that work on it.
    pub(super) fn bound(&self) -> impl Iterator<Item = WorkerId> + use<> {
        let (first, second) = match &self.course {
            Course::Whole(side) => (*side, None),
            Course::Handoff(handoff) => (handoff.giver, handoff.bound_reader()),
        };
        (first.part == Part::Bound).then_some(first.worker).into_iter().chain(second)
    }

    /// Who generates tokens beyond the first.
    pub(super) fn generator(&self) -> Option<WorkerId> {
        match &self.course {
            Course::Whole(side) => (side.part == Part::Bound).then_some(side.worker),
            Course::Handoff(handoff) => handoff.reader.filter(|_| handoff.told == Told::Commit),
        }
    }

    /// The generator has brought a token: it has joined, so the giver has let go.
    pub(super) fn has_joined(&mut self) {
        if let Course::Handoff(handoff) = &mut self.course {
            handoff.giver.part = Part::Over;
        }
    }

    /// The generator has ended the last choice.
    pub(super) fn generator_is_over(&mut self) {
        match &mut self.course {
            Course::Whole(side) => side.part = Part::Over,
            Course::Handoff(handoff) => handoff.told = Told::Over,
        }
    }

    /// A choice was stopped by the router: a reader that takes over later must not continue it.
    pub(super) fn mark_stopped(&mut self, choice: Choice) {
        if let Course::Handoff(Handoff { commitment: Commitment::Held(commit), .. }) = &mut self.course {
            for first in commit.firsts.iter_mut().filter(|first| first.choice == choice) {
                first.ended = first.ended.or(Some(FinishReason::Stop));
            }
        }
    }

    /// A worker is gone or has failed this leg.
    pub(super) fn drop_worker(&mut self, worker: WorkerId) -> Effect {
        match &mut self.course {
            Course::Whole(side) if side.is(worker) => {
                side.part = Part::Over;
                Effect::Lost
            }
            Course::Whole(_) => Effect::GoesOn,
            Course::Handoff(handoff) => handoff.drop_worker(worker),
        }
    }
}

impl Side {
    /// Whether this worker works on it.
    pub(super) fn is(&self, worker: WorkerId) -> bool {
        self.worker == worker && self.part == Part::Bound
    }
}

impl Handoff {
    pub(super) fn new(giver: WorkerId, reader: WorkerId) -> Handoff {
        Handoff {
            giver: Side { worker: giver, part: Part::Bound },
            reader: Some(reader),
            told: Told::Nothing,
            offer: None,
            commitment: Commitment::Awaited,
        }
    }

    fn bound_reader(&self) -> Option<WorkerId> {
        self.reader.filter(|_| matches!(self.told, Told::Offer | Told::Commit))
    }

    fn drop_worker(&mut self, worker: WorkerId) -> Effect {
        if self.bound_reader() == Some(worker) {
            self.told = Told::Over;
            return Effect::Lost;
        }
        if self.reader == Some(worker) && self.told == Told::Nothing {
            self.reader = None;
        }
        if !self.giver.is(worker) {
            return Effect::GoesOn;
        }
        self.giver.part = Part::Over;
        // A reader that has the first tokens may have the blocks already. It finds out, and says so if it has not.
        if self.told == Told::Commit { Effect::GoesOn } else { Effect::Lost }
    }
}
