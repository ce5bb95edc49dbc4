//! End of a choice by stop token or by length; pure arithmetic over its parameters.

use crate::{FinishReason, SamplingParams, TokenId};

/// Reason why a choice ends with `token`, its `generated`-th token (from 1), after a prompt of `prompt` tokens.
pub(super) fn finish(
    params: &SamplingParams,
    prompt: u32,
    generated: u32,
    token: TokenId,
    context_max: u32,
) -> Option<FinishReason> {
    // Before its least length a structured answer gets a stop token only where its grammar leaves nothing else.
    let may_stop = generated > params.min_tokens || params.structure.is_some();
    if may_stop && params.stop_tokens.contains(&token) {
        return Some(FinishReason::Stop);
    }
    at_limit(params, prompt, generated, context_max).then_some(FinishReason::Length)
}

/// True if the `generated`-th token of a choice is its last, whichever token it is.
pub(super) fn at_limit(params: &SamplingParams, prompt: u32, generated: u32, context_max: u32) -> bool {
    generated >= params.max_tokens || prompt.saturating_add(generated) >= context_max
}

/// Most positions whose KV a sequence ever stores: its last token is delivered, but never an input.
pub(super) fn stored_positions_max(params: &SamplingParams, prompt: u32, context_max: u32) -> u32 {
    prompt.saturating_add(params.max_tokens).min(context_max).saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::Structure;

    fn params(min_tokens: u32, max_tokens: u32) -> SamplingParams {
        SamplingParams { min_tokens, max_tokens, stop_tokens: vec![TokenId(2)], ..SamplingParams::default() }
    }

    #[test]
    fn a_stop_token_ends_only_after_the_minimum() {
        let params = params(2, 9);
        let ends = |generated, token| finish(&params, 5, generated, TokenId(token), 99);
        assert_eq!(ends(1, 2), None);
        assert_eq!(ends(2, 2), None);
        assert_eq!(ends(3, 2), Some(FinishReason::Stop));
        assert_eq!(ends(3, 4), None);
        let structure = Some(Arc::new(Structure { grammar: "start: \"a\"".into(), ends: vec![TokenId(2)] }));
        let structured = SamplingParams { structure, ..params.clone() };
        assert_eq!(finish(&structured, 5, 2, TokenId(2), 99), Some(FinishReason::Stop), "its grammar is at its end");
    }

    #[test]
    fn length_is_the_output_s_limit_or_the_context_s() {
        let params = params(0, 4);
        assert_eq!(finish(&params, 5, 4, TokenId(7), 99), Some(FinishReason::Length));
        assert_eq!(finish(&params, 5, 3, TokenId(7), 8), Some(FinishReason::Length));
        assert_eq!(finish(&params, 5, 3, TokenId(7), 9), None);
        assert_eq!(finish(&params, 5, 4, TokenId(2), 99), Some(FinishReason::Stop));
        assert_eq!(stored_positions_max(&params, 5, 99), 8);
        assert_eq!(stored_positions_max(&params, 5, 8), 7);
    }
}
