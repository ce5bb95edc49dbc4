//! The reader's side of one hand-off: from an offer that has come in to a KV cache that may be used; knows no blocks.

use crate::message::ReleaseAnswer;

/// One prompt that is taken over from a giver.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Take {
    state: TakeState,
    commit: Commitment,
}

/// State of a hand-off at its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TakeState {
    /// The offer waits for its giver to come up; nothing is said to the giver.
    Unmet,
    /// The offer waits for blocks; its reader lease is already renewed.
    Queued,
    /// Blocks are reserved; the giver may still compute.
    Reserved,
    /// Some bytes are here or on their way.
    Reading {
        /// Pulls that have not ended.
        open: u32,
    },
    /// All bytes are here; the giver has been asked whether the lease covered them.
    Releasing,
    /// The lease covered all bytes: the KV cache may be used.
    Verified,
    /// The KV cache is lost; nothing of it may be used.
    Failed,
    /// The request ended.
    Aborted,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Commitment {
    Awaited,
    Made,
}

/// Outcome of a pull.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PullOutcome {
    /// All bytes are here.
    Complete,
    /// Some bytes are missing; holds the transport's reason.
    Failed(String),
    /// The pull was aborted as asked.
    Aborted,
}

/// Remains of a hand-off that its reader gives up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Abandoned {
    /// None: the giver was never spoken to, or the hand-off was over before.
    Nothing,
    /// A lease that the giver still holds blocks for.
    Lease,
    /// A lease, and pulls whose bytes may still land.
    LeaseAndPulls,
}

impl Take {
    /// Begins with an offer that has come in.
    #[must_use]
    pub fn offered() -> Take {
        Take { state: TakeState::Unmet, commit: Commitment::Awaited }
    }

    /// Records that the giver is met.
    pub fn met(&mut self) {
        assert_eq!(self.state, TakeState::Unmet, "the giver of one offer is met twice");
        self.state = TakeState::Queued;
    }

    /// State of the hand-off.
    #[must_use]
    pub fn state(&self) -> TakeState {
        self.state
    }

    /// True once the hand-off has ended, well or badly.
    #[must_use]
    pub fn is_over(&self) -> bool {
        match self.state {
            TakeState::Unmet
            | TakeState::Queued
            | TakeState::Reserved
            | TakeState::Reading { .. }
            | TakeState::Releasing => false,
            TakeState::Verified | TakeState::Failed | TakeState::Aborted => true,
        }
    }

    /// True while the reader's lease must be renewed.
    #[must_use]
    pub fn needs_lease(&self) -> bool {
        self.state != TakeState::Unmet && !self.is_over()
    }

    /// Records that blocks were reserved for the offer.
    pub fn reserved(&mut self) {
        assert_eq!(self.state, TakeState::Queued, "blocks are reserved twice for one offer");
        self.state = TakeState::Reserved;
    }

    /// Records that the giver has finished the prompt. False if that was known or comes too late.
    pub fn committed(&mut self) -> bool {
        let news = self.commit == Commitment::Awaited && !self.is_over();
        self.commit = Commitment::Made;
        news
    }

    /// Whether the giver has finished the prompt.
    #[must_use]
    pub fn is_committed(&self) -> bool {
        self.commit == Commitment::Made
    }

    /// True if blocks are reserved that bytes may land in.
    #[must_use]
    pub fn may_read(&self) -> bool {
        match self.state {
            TakeState::Reserved | TakeState::Reading { .. } => true,
            TakeState::Unmet
            | TakeState::Queued
            | TakeState::Releasing
            | TakeState::Verified
            | TakeState::Failed
            | TakeState::Aborted => false,
        }
    }

    /// Records that one more pull has begun.
    pub fn pull_begun(&mut self) {
        let open = match self.state {
            TakeState::Reserved => 0,
            TakeState::Reading { open } => open,
            TakeState::Unmet
            | TakeState::Queued
            | TakeState::Releasing
            | TakeState::Verified
            | TakeState::Failed
            | TakeState::Aborted => unreachable!("a pull begins in state {:?}", self.state),
        };
        self.state = TakeState::Reading { open: open + 1 };
    }

    /// Call when nothing is left to ask for. True if the prompt is finished and no pull is open: the release is next.
    pub fn read_all(&mut self) -> bool {
        let done = self.is_committed() && matches!(self.state, TakeState::Reserved | TakeState::Reading { open: 0 });
        if done {
            self.state = TakeState::Releasing;
        }
        done
    }

    /// Takes in the end of a pull, maybe too late to matter. The error says why the KV cache is lost.
    pub fn pull_ended(&mut self, outcome: PullOutcome) -> Result<(), String> {
        let TakeState::Reading { open: open @ 1.. } = self.state else {
            return Ok(());
        };
        let why = match outcome {
            PullOutcome::Complete => {
                self.state = TakeState::Reading { open: open - 1 };
                return Ok(());
            }
            PullOutcome::Failed(why) => why,
            PullOutcome::Aborted => "it was aborted by the transport".to_owned(),
        };
        self.state = TakeState::Failed;
        Err(why)
    }

    /// Takes in the answer to the release: `None` if it is too late to matter, else whether the KV cache may be used.
    pub fn release_answered(&mut self, answer: ReleaseAnswer) -> Option<bool> {
        if self.state != TakeState::Releasing {
            return None;
        }
        let valid = match answer {
            ReleaseAnswer::Ok => true,
            ReleaseAnswer::Expired => false,
        };
        self.state = if valid { TakeState::Verified } else { TakeState::Failed };
        Some(valid)
    }

    /// Records that the giver cannot be asked. True if that loses the KV cache.
    pub fn release_unheard(&mut self) -> bool {
        let loses = self.state == TakeState::Releasing;
        if loses {
            self.state = TakeState::Failed;
        }
        loses
    }

    /// True if the KV cache is lost now that a heartbeat was told that the lease is gone. A release that is on its way
    /// may itself have ended the lease, so there only its answer counts.
    pub fn lease_gone(&self) -> bool {
        match self.state {
            TakeState::Queued | TakeState::Reserved | TakeState::Reading { .. } => true,
            TakeState::Unmet | TakeState::Releasing | TakeState::Verified | TakeState::Failed | TakeState::Aborted => {
                false
            }
        }
    }

    /// Ends the hand-off because the KV cache is lost.
    pub fn fail(&mut self) -> Abandoned {
        self.abandon(TakeState::Failed)
    }

    /// Ends the hand-off because the request has ended.
    pub fn abort(&mut self) -> Abandoned {
        self.abandon(TakeState::Aborted)
    }

    fn abandon(&mut self, end: TakeState) -> Abandoned {
        let left = match self.state {
            TakeState::Unmet => Abandoned::Nothing,
            TakeState::Queued | TakeState::Reserved | TakeState::Releasing => Abandoned::Lease,
            TakeState::Reading { open: 0 } => Abandoned::Lease,
            TakeState::Reading { .. } => Abandoned::LeaseAndPulls,
            TakeState::Verified | TakeState::Failed | TakeState::Aborted => return Abandoned::Nothing,
        };
        self.state = end;
        left
    }
}

#[cfg(test)]
mod tests;
