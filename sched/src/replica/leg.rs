//! One leg of work as a whole: its sequences, its hand-off and its timing; knows no blocks.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::sequence::SequenceKey;
use super::timing::Timing;
use crate::handoff::{Asked, Give, Take, Watermark};
use crate::message::FirstToken;
use crate::{BlockId, InstanceId, LeaseId, Slo, Time};

#[derive(Debug)]
pub(super) struct LegRun {
    /// Sequences that still run; the leg ends with the last of them.
    pub(super) sequences: BTreeSet<SequenceKey>,
    /// Number of sequences that it ever had.
    pub(super) branches: u32,
    pub(super) arrived: Time,
    pub(super) deadline: Time,
    pub(super) slo: Slo,
    pub(super) stage: Stage,
    pub(super) timing: Timing,
}

/// Part of the leg that this worker does.
#[derive(Debug)]
pub(super) enum Stage {
    /// Prompt and output.
    Whole,
    /// The prompt, for a reader; `None` until its blocks are reserved.
    Give(Option<Giving>),
    /// The output, after a giver has computed the prompt.
    Take(Taking),
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Giving {
    pub(super) lease: LeaseId,
    pub(super) machine: Give,
}

#[derive(Debug)]
pub(super) struct Taking {
    pub(super) machine: Take,
    pub(super) giver: InstanceId,
    pub(super) giver_address: Arc<str>,
    pub(super) lease: LeaseId,
    /// The giver's block table.
    pub(super) remote: Vec<BlockId>,
    /// How much of the prompt the giver is known to have stored.
    pub(super) stored: Watermark,
    /// Parts of the prompt that were pulled or are being pulled.
    pub(super) asked: Asked,
    /// First tokens of the choices that go on, known from the commit on.
    pub(super) firsts: Vec<FirstToken>,
    /// Time at which an unanswered release is given up.
    pub(super) release_by: Option<Time>,
}

impl Taking {
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
