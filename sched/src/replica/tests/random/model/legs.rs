//! One leg as the world knows it: the tokens that it is owed, and its progress.

use std::collections::{BTreeMap, BTreeSet};

use crate::message::FirstToken;
use crate::replica::tests::backend::sampled;
use crate::replica::tests::oracle;
use crate::{Choice, FinishReason, Request, TokenId};

pub(super) struct LegModel {
    pub(super) request: Request,
    pub(super) choices: BTreeMap<Choice, ChoiceModel>,
    pub(super) committed: bool,
    /// True until a giver has said that what was taken over is valid.
    pub(super) unverified: bool,
    /// Index of the first choice's token that comes from a damaged row.
    pub(super) damaged_at: u32,
    /// Positions of the prompt tokens that were scored; `None` if a giver computes the prompt.
    pub(super) scored: Option<BTreeSet<u32>>,
    pub(super) over: bool,
}

pub(super) struct ChoiceModel {
    pub(super) answer: Vec<TokenId>,
    pub(super) next: usize,
    pub(super) over: bool,
}

impl LegModel {
    pub(super) fn note_ends(&mut self) {
        self.over |= self.choices.values().all(|choice| choice.over);
    }

    pub(super) fn prefill_values(&self) -> Vec<u64> {
        let generated = self.request.choices[0].generated.iter();
        oracle::values(self.request.prompt.iter().chain(generated).copied())
    }

    /// Returns the first tokens of the choices that still live, as a giver would tell them.
    pub(super) fn firsts(&self) -> Vec<FirstToken> {
        let living = self.choices.iter().filter(|(_, model)| !model.over);
        let first = |(choice, model): (&Choice, &ChoiceModel)| FirstToken {
            choice: *choice,
            token: sampled(model.answer[model.next]),
            ended: (model.next + 1 == model.answer.len()).then_some(FinishReason::Stop),
        };
        living.map(first).collect()
    }
}
