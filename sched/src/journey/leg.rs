//! One leg: who is bound to it and how far its hand-off has come; knows no other leg.

use crate::message::Commit;
use crate::{Attempt, BlockId, Choice, Failure, FailureKind, FinishReason, LeaseId, Request, Time, WorkerId};

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
    /// Chosen together with the giver; chosen anew if it can take nothing before it was told anything, or refuses.
    pub(super) reader: Option<WorkerId>,
    pub(super) told: Told,
    /// The giver's reservation, for whichever reader takes it.
    pub(super) offer: Option<(LeaseId, Vec<BlockId>)>,
    /// The giver's first tokens, likewise. The client has them already.
    pub(super) commit: Option<Commit>,
    pub(super) passage: Passage,
    /// After a refusal: when the next reader is asked at the earliest.
    pub(super) again_at: Option<Time>,
}

/// Whose the KV cache is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// The giver's, and on its way if a reader was told.
    UnderWay,
    /// The reader's: it generates from it.
    Arrived,
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

    /// The generator has brought a token: if it took a KV cache over, the giver has let go. Tells which pair that was,
    /// the first time.
    pub(super) fn has_joined(&mut self) -> Option<(WorkerId, WorkerId)> {
        let Course::Handoff(handoff) = &mut self.course else { return None };
        handoff.giver.part = Part::Over;
        if handoff.passage == Passage::Arrived {
            return None;
        }
        handoff.passage = Passage::Arrived;
        (handoff.offer, handoff.commit) = (None, None);
        Some((handoff.giver.worker, handoff.reader?))
    }

    /// The pair whose hand-off is lost if the leg ends with `failure`, said by `by`.
    pub(super) fn lost_pair(&self, failure: &Failure, by: WorkerId) -> Option<(WorkerId, WorkerId)> {
        let Course::Handoff(handoff) = &self.course else { return None };
        let reader = handoff.reader.filter(|_| handoff.told != Told::Nothing)?;
        let blamed = match failure.kind {
            FailureKind::KvLost => true,
            FailureKind::WorkerLost => by == reader,
            FailureKind::InvalidRequest
            | FailureKind::TooLong
            | FailureKind::NotFound
            | FailureKind::Overloaded
            | FailureKind::Unavailable
            | FailureKind::DeadlineExceeded
            | FailureKind::Cancelled
            | FailureKind::Incompatible
            | FailureKind::Internal => false,
        };
        (blamed && handoff.passage == Passage::UnderWay).then_some((handoff.giver.worker, reader))
    }

    /// Whether `worker` says that it does not even begin to take the KV cache over. Then the giver's blocks, and the
    /// lease that nobody has touched, serve another reader as well.
    pub(super) fn is_refused(&self, failure: &Failure, worker: WorkerId) -> bool {
        let Course::Handoff(handoff) = &self.course else { return false };
        let refuses = matches!(failure.kind, FailureKind::Overloaded | FailureKind::Unavailable);
        let untouched = handoff.passage == Passage::UnderWay && handoff.giver.part == Part::Bound;
        refuses && untouched && handoff.bound_reader() == Some(worker)
    }

    /// The hand-off begins anew with another reader, not before `again_at`.
    pub(super) fn seek_reader(&mut self, again_at: Time) {
        if let Course::Handoff(handoff) = &mut self.course {
            (handoff.reader, handoff.told, handoff.again_at) = (None, Told::Nothing, Some(again_at));
        }
    }

    /// When another reader is asked at the earliest.
    pub(super) fn again_at(&self) -> Option<Time> {
        match &self.course {
            Course::Whole(_) => None,
            Course::Handoff(handoff) => handoff.again_at,
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
        if let Course::Handoff(Handoff { commit: Some(commit), .. }) = &mut self.course {
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
            commit: None,
            passage: Passage::UnderWay,
            again_at: None,
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
