//! One leg: the workers bound to it and the progress of its hand-off; knows no other leg.

use crate::message::Commit;
use crate::{Attempt, BlockId, Choice, Failure, FailureKind, FinishReason, LeaseId, Request, Time, WorkerId};

#[derive(Debug)]
pub(super) struct LegState {
    pub(super) request: Request,
    pub(super) submitted: Time,
    pub(super) course: Course,
}

/// Workers at which a leg runs.
#[derive(Debug)]
pub(super) enum Course {
    /// From prompt to end at one worker.
    Whole(Side),
    /// Prefilled by a giver, taken over by a reader.
    Handoff(Handoff),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Side {
    pub(super) worker: WorkerId,
    pub(super) part: Part,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    /// Works on the leg and must be told of its end.
    Bound,
    /// Has let go; is told nothing more.
    Over,
}

/// The two sides of a hand-off and what has passed between them.
#[derive(Debug)]
pub(super) struct Handoff {
    pub(super) giver: Side,
    /// Chosen with the giver. Chosen anew if it refuses, or can no longer take the offer when that comes.
    pub(super) reader: Option<WorkerId>,
    pub(super) told: Told,
    /// The giver's reservation, for any reader that takes it.
    pub(super) offer: Option<(LeaseId, Vec<BlockId>)>,
    /// The giver's first tokens, for any reader. The client has them already.
    pub(super) commit: Option<Commit>,
    pub(super) passage: Passage,
    /// After a refusal: earliest time to ask the next reader.
    pub(super) again_at: Option<Time>,
}

/// Owner of the KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Passage {
    /// The giver; the KV cache is on its way if a reader was told.
    UnderWay,
    /// The reader, which generates from it.
    Arrived,
}

/// Last thing that the reader was told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    Nothing,
    Offer,
    Commit,
    /// Its part is over: it is told nothing more.
    Over,
}

/// Effect on a leg when the part of a worker ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// None: that part was over, or the leg can go on without it.
    GoesOn,
    Lost,
}

impl LegState {
    pub(super) fn attempt(&self) -> Attempt {
        self.request.leg.attempt
    }

    pub(super) fn choices(&self) -> impl Iterator<Item = Choice> {
        self.request.choices.iter().map(|state| state.choice)
    }

    pub(super) fn bound(&self) -> impl Iterator<Item = WorkerId> + use<> {
        let (first, second) = match &self.course {
            Course::Whole(side) => (*side, None),
            Course::Handoff(handoff) => (handoff.giver, handoff.bound_reader()),
        };
        (first.part == Part::Bound).then_some(first.worker).into_iter().chain(second)
    }

    /// Worker that generates tokens beyond the first.
    pub(super) fn generator(&self) -> Option<WorkerId> {
        match &self.course {
            Course::Whole(side) => (side.part == Part::Bound).then_some(side.worker),
            Course::Handoff(handoff) => handoff.reader.filter(|_| handoff.told == Told::Commit),
        }
    }

    /// Worker that computes the prompt, until it has let go.
    pub(super) fn prefiller(&self) -> Option<WorkerId> {
        let side = match &self.course {
            Course::Whole(side) => side,
            Course::Handoff(handoff) => &handoff.giver,
        };
        (side.part == Part::Bound).then_some(side.worker)
    }

    /// Records a token of the generator, so its giver has let go. Returns giver and reader, the first time.
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

    /// Giver and reader whose hand-off is lost if the leg ends with `failure` at worker `by`.
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

    /// True if `worker` refuses the leg before it has begun to take the KV cache over. Then the giver's blocks and the
    /// untouched lease can serve another reader.
    pub(super) fn is_refused(&self, failure: &Failure, worker: WorkerId) -> bool {
        let Course::Handoff(handoff) = &self.course else { return false };
        let refuses = matches!(failure.kind, FailureKind::Overloaded | FailureKind::Unavailable);
        let untouched = handoff.passage == Passage::UnderWay && handoff.giver.part == Part::Bound;
        refuses && untouched && handoff.bound_reader() == Some(worker)
    }

    /// Begins the hand-off anew with another reader, not before `again_at`.
    pub(super) fn seek_reader(&mut self, again_at: Time) {
        if let Course::Handoff(handoff) = &mut self.course {
            (handoff.reader, handoff.told, handoff.again_at) = (None, Told::Nothing, Some(again_at));
        }
    }

    pub(super) fn again_at(&self) -> Option<Time> {
        match &self.course {
            Course::Whole(_) => None,
            Course::Handoff(handoff) => handoff.again_at,
        }
    }

    pub(super) fn generator_is_over(&mut self) {
        match &mut self.course {
            Course::Whole(side) => side.part = Part::Over,
            Course::Handoff(handoff) => handoff.told = Told::Over,
        }
    }

    /// Marks a choice that the router has stopped: a reader that takes over later must not continue it.
    pub(super) fn mark_stopped(&mut self, choice: Choice) {
        if let Course::Handoff(Handoff { commit: Some(commit), .. }) = &mut self.course {
            for first in commit.firsts.iter_mut().filter(|first| first.choice == choice) {
                first.ended = first.ended.or(Some(FinishReason::Stop));
            }
        }
    }

    /// Drops a worker that is gone or has failed this leg.
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
        // A reader that was told the first tokens may have the blocks already. If it has not, it finds out and says so.
        if self.told == Told::Commit { Effect::GoesOn } else { Effect::Lost }
    }
}
