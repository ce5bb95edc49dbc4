//! Checks of what a choice is told against the oracle; and keys picked by a number.

use std::collections::BTreeMap;

use super::LegModel;
use crate::replica::tests::oracle;
use crate::{Choice, FinishReason, SampledToken, Scores};

/// Takes one token of a choice, which must be the oracle's next.
pub(super) fn told_token(
    model: &mut LegModel,
    choice: Choice,
    index: Option<u32>,
    token: &SampledToken,
    ended: Option<FinishReason>,
) {
    check_scored(model);
    let choice = model.choices.get_mut(&choice).expect("a choice of the leg");
    assert!(!choice.over, "a token after the end of its choice");
    assert!(index.is_none_or(|index| index as usize == choice.next), "token {index:?} instead of {}", choice.next);
    assert_eq!(token.token, choice.answer[choice.next], "token {} differs from the oracle's", choice.next);
    choice.next += 1;
    assert_eq!(ended.is_some(), choice.next == choice.answer.len(), "it ends elsewhere than the oracle");
    choice.over = ended.is_some();
}

/// Takes scores, each of which must be the oracle's.
pub(super) fn told_scores(model: &mut LegModel, scores: &Scores) {
    let prompt = &model.request.prompt;
    let values = oracle::values(prompt.iter().copied());
    for (position, score) in (scores.first..).zip(&scores.scores) {
        let expected = oracle::score(&values[..position as usize], prompt[position as usize]);
        assert_eq!(*score, expected, "the score of position {position} differs from the oracle's");
        model.scored.as_mut().expect("a prompt that is computed here").insert(position);
    }
}

/// Checks that a prompt is scored in full before its first token, if that is wanted and the prompt is computed here.
fn check_scored(model: &LegModel) {
    let Some(scored) = &model.scored else { return };
    let fresh = model.request.choices.iter().all(|state| state.generated.is_empty());
    let wanted = fresh && model.request.params.prompt_logprobs.is_some();
    let expected = if wanted { 1..model.request.prompt.len() as u32 } else { 0..0 };
    assert!(scored.iter().copied().eq(expected), "scored {scored:?}");
}

/// One key of a map, chosen by a number.
pub(super) fn picked<K: Copy + Ord, V>(map: &BTreeMap<K, V>, pick: u16) -> Option<K> {
    let at = usize::from(pick).checked_rem(map.len())?;
    map.keys().nth(at).copied()
}
