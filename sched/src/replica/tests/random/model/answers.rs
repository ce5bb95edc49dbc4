//! Checks of what a choice is told against the oracle; and keys picked by a number.

use std::collections::BTreeMap;

use super::LegModel;
use crate::{Choice, FinishReason, SampledToken};

/// Takes one token of a choice, which must be the oracle's next.
pub(super) fn told_token(
    model: &mut LegModel,
    choice: Choice,
    index: Option<u32>,
    token: &SampledToken,
    ended: Option<FinishReason>,
) {
    let choice = model.choices.get_mut(&choice).expect("a choice of the leg");
    assert!(!choice.over, "a token after the end of its choice");
    assert!(index.is_none_or(|index| index as usize == choice.next), "token {index:?} instead of {}", choice.next);
    assert_eq!(token.token, choice.answer[choice.next], "token {} differs from the oracle's", choice.next);
    choice.next += 1;
    assert_eq!(ended.is_some(), choice.next == choice.answer.len(), "it ends elsewhere than the oracle");
    choice.over = ended.is_some();
}

/// One key of a map, chosen by a number.
pub(super) fn picked<K: Copy + Ord, V>(map: &BTreeMap<K, V>, pick: u16) -> Option<K> {
    let at = usize::from(pick).checked_rem(map.len())?;
    map.keys().nth(at).copied()
}
