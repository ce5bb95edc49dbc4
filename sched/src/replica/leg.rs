//! One leg of work as a whole: its sequences, its hand-off and its timing; knows no blocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::sequence::SequenceKey;
use super::timing::Timing;
use crate::handoff::{Asked, Give, Take, Watermark};
use crate::message::FirstToken;
use crate::{BlockId, InstanceId, LeaseId, Time};

/// A leg that has not ended.
#[derive(Debug)]
pub(super) struct LegRun {
    /// What still runs of it; the leg ends with the last of them.
    pub(super) sequences: BTreeSet<SequenceKey>,
    /// Sequences it ever had.
    pub(super) branches: u32,
    pub(super) deadline: Time,
    pub(super) stage: Stage,
    pub(super) timing: Timing,
}

/// What this worker does for the leg.
#[derive(Debug)]
pub(super) enum Stage {
    /// All of it.
    Whole,
    /// The prompt, for a reader; `None` until its blocks are reserved.
    Give(Option<Giving>),
    /// The rest, after a giver.
    Take(Taking),
}

/// The hand-off to a reader.
#[derive(Debug, Clone, Copy)]
pub(super) struct Giving {
    pub(super) lease: LeaseId,
    pub(super) machine: Give,
}

/// The hand-off from a giver.
#[derive(Debug)]
pub(super) struct Taking {
    pub(super) machine: Take,
    pub(super) giver: InstanceId,
    /// Where the offer says that it is.
    pub(super) giver_address: Arc<str>,
    pub(super) lease: LeaseId,
    /// The giver's block table.
    pub(super) remote: Vec<BlockId>,
    /// How much of the prompt the giver has stored, as far as it has told.
    pub(super) stored: Watermark,
    /// What of it was pulled or is being pulled.
    pub(super) asked: Asked,
    /// First tokens of the choices that go on, known from the commit on.
    pub(super) firsts: Vec<FirstToken>,
    /// When an unanswered release is given up.
    pub(super) release_by: Option<Time>,
}

impl Taking {
    /// An offer that has come in.
    pub(super) fn new(giver: InstanceId, giver_address: Arc<str>, lease: LeaseId, remote: Vec<BlockId>) -> Taking {
        Taking {
            machine: Take::offered(),
            giver,
            giver_address,
            lease,
            remote,
            stored: Watermark::default(),
            asked: Asked::default(),
            firsts: Vec::new(),
            release_by: None,
        }
    }
}
