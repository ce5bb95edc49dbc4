//! The giver's side of one hand-off: from the reserved prompt to the end of the reader's lease; knows no blocks.

use super::Watermark;
use crate::message::ReleaseAnswer;
use crate::{InstanceId, Span, Time};

/// One prompt that a reader may pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Give {
    state: GiveState,
    stored: Watermark,
    /// First reader that was heard of under the lease; no other can do anything with it.
    reader: Option<InstanceId>,
    news: News,
    lease_ends: Time,
    lease_span: Span,
}

/// State of a hand-off at its giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GiveState {
    /// All blocks of the prompt are reserved, nothing is computed yet.
    Reserved,
    /// A part of the prompt is stored.
    Filling,
    /// The whole prompt is stored; the first tokens are known.
    Complete,
    /// The reader has everything and has been told `Ok`.
    Released,
    /// The reader was not heard of for a whole lease.
    Expired,
    /// The request ended, or the reader gave up.
    Aborted,
}

/// Whether the reader is told how much is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    Unwanted,
    Wanted,
}

/// Outcome of a release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Released {
    /// The hand-off is over and went well.
    HandedOver,
    /// The prompt was never complete: the reader cannot have a valid copy, and the hand-off is over.
    Incomplete,
    /// The hand-off was over before.
    Late,
    /// The lease is another reader's: nothing has changed.
    Foreign,
}

/// Outcome of a heartbeat.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Renewed {
    /// The lease lives for another span.
    Alive,
    /// The lease has ended, and is never revived.
    Late,
    /// The lease is another reader's: nothing has changed.
    Foreign,
}

impl Released {
    /// Answer to the reader.
    #[must_use]
    pub fn answer(self) -> ReleaseAnswer {
        match self {
            Released::HandedOver => ReleaseAnswer::Ok,
            Released::Incomplete | Released::Late | Released::Foreign => ReleaseAnswer::Expired,
        }
    }
}

impl Give {
    /// Begins a hand-off whose blocks were reserved at `now`, and with it the reader's lease.
    #[must_use]
    pub fn new(now: Time, lease_span: Span) -> Give {
        let (stored, lease_ends) = (Watermark::default(), now + lease_span);
        Give { state: GiveState::Reserved, stored, reader: None, news: News::Unwanted, lease_ends, lease_span }
    }

    /// State of the hand-off.
    #[must_use]
    pub fn state(&self) -> GiveState {
        self.state
    }

    /// True while blocks are held for the reader.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        match self.state {
            GiveState::Reserved | GiveState::Filling | GiveState::Complete => true,
            GiveState::Released | GiveState::Expired | GiveState::Aborted => false,
        }
    }

    /// Time at which the reader's lease ends unless it is renewed.
    #[must_use]
    pub fn lease_ends(&self) -> Time {
        self.lease_ends
    }

    /// Part of the prompt that is stored.
    #[must_use]
    pub fn stored(&self) -> Watermark {
        self.stored
    }

    /// Reader that is told how much is stored.
    #[must_use]
    pub fn follower(&self) -> Option<InstanceId> {
        match self.news {
            News::Wanted => self.reader,
            News::Unwanted => None,
        }
    }

    /// Records that the first `tokens` positions are stored in every layer.
    pub fn filled(&mut self, tokens: u32) {
        assert!(tokens >= self.stored.tokens, "the watermark falls from {:?} to {tokens} tokens", self.stored);
        self.fill(Watermark::whole(tokens));
    }

    /// Records that the positions up to `chunk_end` are stored in the first `layers` layers. True if that is news.
    pub fn filling(&mut self, chunk_end: u32, layers: u32) -> bool {
        let stored = Watermark { chunk_end, layers, ..self.stored };
        let news = layers > self.stored.layers && chunk_end > self.stored.tokens;
        if news {
            self.fill(stored);
        }
        news
    }

    fn fill(&mut self, stored: Watermark) {
        match self.state {
            GiveState::Reserved | GiveState::Filling => {}
            GiveState::Complete | GiveState::Released | GiveState::Expired | GiveState::Aborted => {
                unreachable!("a hand-off is filled in state {:?}", self.state)
            }
        }
        (self.state, self.stored) = (GiveState::Filling, stored);
    }

    /// Records that the whole prompt is stored and the first tokens are known.
    pub fn completed(&mut self) {
        assert!(self.state == GiveState::Filling, "a hand-off completes in state {:?}", self.state);
        self.state = GiveState::Complete;
    }

    /// True if the hand-off is with `reader`: the first that knows the lease id, which only the offer tells, has it.
    fn is_with(&mut self, reader: InstanceId) -> bool {
        *self.reader.get_or_insert(reader) == reader
    }

    /// Takes in a heartbeat of a reader.
    pub fn renewed(&mut self, now: Time, reader: InstanceId) -> Renewed {
        if !self.is_alive() || now >= self.lease_ends {
            return Renewed::Late;
        }
        if !self.is_with(reader) {
            return Renewed::Foreign;
        }
        self.lease_ends = now + self.lease_span;
        Renewed::Alive
    }

    /// Takes in a heartbeat of a reader that wants to be told how much is stored from now on.
    pub fn followed(&mut self, now: Time, reader: InstanceId) -> Renewed {
        let renewed = self.renewed(now, reader);
        if renewed == Renewed::Alive {
            self.news = News::Wanted;
        }
        renewed
    }

    /// Moves the end of the lease to `until` or later: words of the reader may still wait to be heard.
    pub fn extend(&mut self, until: Time) {
        if self.is_alive() {
            self.lease_ends = self.lease_ends.max(until);
        }
    }

    /// Takes in a release: a reader says that it has everything.
    pub fn released(&mut self, now: Time, reader: InstanceId) -> Released {
        self.expire(now);
        if !self.is_with(reader) {
            return Released::Foreign;
        }
        match self.state {
            GiveState::Complete => {
                self.state = GiveState::Released;
                Released::HandedOver
            }
            GiveState::Reserved | GiveState::Filling => {
                self.state = GiveState::Aborted;
                Released::Incomplete
            }
            GiveState::Released | GiveState::Expired | GiveState::Aborted => Released::Late,
        }
    }

    /// Lets time pass. True if the lease ends right here.
    pub fn expire(&mut self, now: Time) -> bool {
        let ends = self.is_alive() && now >= self.lease_ends;
        if ends {
            self.state = GiveState::Expired;
        }
        ends
    }

    /// Takes in that a reader gives up. True if that ends the hand-off; else it was over, or it is another reader's.
    pub fn given_up(&mut self, reader: InstanceId) -> bool {
        self.is_with(reader) && self.abort()
    }

    /// Ends the hand-off because the request has ended. True if that changes anything.
    pub fn abort(&mut self) -> bool {
        let ends = self.is_alive();
        if ends {
            self.state = GiveState::Aborted;
        }
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPAN: Span = Span(30);
    const READER: InstanceId = InstanceId(1);
    const STRANGER: InstanceId = InstanceId(2);

    fn complete() -> Give {
        let mut give = Give::new(Time(0), SPAN);
        give.filled(16);
        give.filled(20);
        give.completed();
        give
    }

    #[test]
    fn a_release_after_completion_hands_over_once() {
        let mut give = complete();
        assert_eq!(give.released(Time(1), READER), Released::HandedOver);
        assert_eq!(give.released(Time(2), READER), Released::Late);
        assert!(!give.expire(Time(99)) && !give.abort());
        assert_eq!(give.state(), GiveState::Released);
    }

    #[test]
    fn a_release_of_an_unfinished_prompt_is_not_believed() {
        let mut give = Give::new(Time(0), SPAN);
        give.filled(16);
        assert_eq!(give.released(Time(1), READER).answer(), ReleaseAnswer::Expired);
        assert_eq!(give.state(), GiveState::Aborted);
    }

    #[test]
    fn a_lease_lives_as_long_as_it_is_renewed_and_is_never_revived() {
        let mut give = complete();
        assert_eq!(give.renewed(Time(29), READER), Renewed::Alive);
        assert!(!give.expire(Time(58)));
        assert_eq!(give.renewed(Time(59), READER), Renewed::Late);
        assert_eq!(give.released(Time(59), READER), Released::Late);
        assert_eq!(give.state(), GiveState::Expired);
    }

    #[test]
    fn a_follower_is_the_leases_reader_and_marks_only_rise() {
        let mut give = Give::new(Time(0), SPAN);
        assert_eq!(give.followed(Time(1), READER), Renewed::Alive);
        assert_eq!(give.followed(Time(1), STRANGER), Renewed::Foreign);
        assert_eq!((give.follower(), give.lease_ends()), (Some(READER), Time(31)));
        assert!(give.filling(16, 1) && !give.filling(16, 1) && give.filling(16, 2));
        assert_eq!(give.stored(), Watermark { tokens: 0, chunk_end: 16, layers: 2 });
        give.filled(16);
        assert!(!give.filling(16, 3), "that chunk is complete");
        assert!(give.filling(20, 1));
        assert_eq!(give.stored(), Watermark { tokens: 16, chunk_end: 20, layers: 1 });
    }

    #[test]
    fn an_abort_ends_every_living_state() {
        for mut give in [Give::new(Time(0), SPAN), complete()] {
            assert!(give.abort());
            assert!(!give.abort());
            assert_eq!(give.released(Time(1), READER), Released::Late);
        }
    }

    #[test]
    fn a_lease_is_the_first_readers_and_nobody_else_can_touch_it() {
        let mut give = complete();
        assert_eq!(give.renewed(Time(10), READER), Renewed::Alive);
        assert_eq!(give.renewed(Time(20), STRANGER), Renewed::Foreign);
        assert_eq!(give.lease_ends(), Time(40), "only its reader keeps it alive");
        assert!(!give.given_up(STRANGER));
        assert_eq!(give.released(Time(30), STRANGER), Released::Foreign);
        assert_eq!(give.state(), GiveState::Complete);
        assert_eq!(give.released(Time(30), READER), Released::HandedOver);
        assert_eq!(give.released(Time(30), STRANGER).answer(), ReleaseAnswer::Expired);
    }
}
