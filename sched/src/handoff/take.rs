//! The taker's side of one hand-off: from an offer in the queue to a KV cache that may be used; knows no blocks.

use crate::message::{PullOutcome, ReleaseAnswer};

/// One prompt that is taken over from a giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    state: TakeState,
    commit: Commitment,
}

/// How far the taker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeState {
    /// The offer waits for blocks; its reader lease is already renewed.
    Queued,
    /// Blocks are reserved; the giver may still compute.
    Reserved,
    /// Bytes are on their way.
    Reading,
    /// All bytes are here; the giver has been asked whether the lease covered them.
    Releasing,
    /// It did: the KV cache may be used.
    Verified,
    /// The KV cache is lost; nothing of it may be used.
    Failed,
    /// The request ended.
    Aborted,
}

/// Whether the giver has finished the prompt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commitment {
    Awaited,
    Made,
}

/// What a taker that gives up leaves behind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// Nothing: it was over before, or already verified.
    Nothing,
    /// A lease that the giver still holds blocks for.
    Lease,
    /// A lease, and a pull whose bytes may still land.
    LeaseAndPull,
}

impl Take {
    /// An offer that was put into the queue.
    #[must_use]
    pub fn queued() -> Take {
        Take { state: TakeState::Queued, commit: Commitment::Awaited }
    }

    /// Where it stands.
    #[must_use]
    pub fn state(&self) -> TakeState {
        self.state
    }

    /// Whether the reader's lease must be renewed.
    #[must_use]
    pub fn needs_lease(&self) -> bool {
        match self.state {
            TakeState::Queued | TakeState::Reserved | TakeState::Reading | TakeState::Releasing => true,
            TakeState::Verified | TakeState::Failed | TakeState::Aborted => false,
        }
    }

    /// Blocks were reserved for the offer.
    pub fn reserved(&mut self) {
        assert_eq!(self.state, TakeState::Queued, "blocks are reserved twice for one offer");
        self.state = TakeState::Reserved;
    }

    /// The giver has finished the prompt. False if that was known or comes too late.
    pub fn committed(&mut self) -> bool {
        let news = self.commit == Commitment::Awaited && self.needs_lease();
        self.commit = Commitment::Made;
        news
    }

    /// Whether blocks are reserved and the prompt is finished, and reading has not begun.
    #[must_use]
    pub fn may_read(&self) -> bool {
        self.state == TakeState::Reserved && self.commit == Commitment::Made
    }

    /// Begins to read if it may.
    pub fn start_reading(&mut self) -> bool {
        let ready = self.may_read();
        if ready {
            self.state = TakeState::Reading;
        }
        ready
    }

    /// The pull has ended. `Ok(true)` asks the giver for its word, `Ok(false)` is too late to matter; the error says
    /// why the KV cache is lost.
    pub fn pull_ended(&mut self, outcome: PullOutcome) -> Result<bool, String> {
        if self.state != TakeState::Reading {
            return Ok(false);
        }
        let why = match outcome {
            PullOutcome::Complete => {
                self.state = TakeState::Releasing;
                return Ok(true);
            }
            PullOutcome::Failed(why) => why,
            PullOutcome::Aborted => "it was aborted by the transport".to_owned(),
        };
        self.state = TakeState::Failed;
        Err(why)
    }

    /// The giver's word. `None` is too late to matter, `Some(true)` makes the KV cache usable, `Some(false)` loses it.
    pub fn release_answered(&mut self, answer: ReleaseAnswer) -> Option<bool> {
        if self.state != TakeState::Releasing {
            return None;
        }
        let valid = match answer {
            ReleaseAnswer::Ok => true,
            ReleaseAnswer::Expired | ReleaseAnswer::Unreachable => false,
        };
        self.state = if valid { TakeState::Verified } else { TakeState::Failed };
        Some(valid)
    }

    /// A heartbeat was told that the lease is gone. True if that loses the KV cache: a release that is on its way may
    /// itself have ended the lease, so there only its answer counts.
    pub fn lease_gone(&self) -> bool {
        match self.state {
            TakeState::Queued | TakeState::Reserved | TakeState::Reading => true,
            TakeState::Releasing | TakeState::Verified | TakeState::Failed | TakeState::Aborted => false,
        }
    }

    /// The KV cache is lost.
    pub fn fail(&mut self) -> Abandoned {
        self.abandon(TakeState::Failed)
    }

    /// The request has ended.
    pub fn abort(&mut self) -> Abandoned {
        self.abandon(TakeState::Aborted)
    }

    fn abandon(&mut self, end: TakeState) -> Abandoned {
        let left = match self.state {
            TakeState::Queued | TakeState::Reserved | TakeState::Releasing => Abandoned::Lease,
            TakeState::Reading => Abandoned::LeaseAndPull,
            TakeState::Verified | TakeState::Failed | TakeState::Aborted => return Abandoned::Nothing,
        };
        self.state = end;
        left
    }
}

#[cfg(test)]
mod tests;
