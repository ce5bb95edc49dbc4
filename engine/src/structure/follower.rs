//! One choice that follows a grammar: its tokens so far and the mask of the next; knows no logits.

use std::sync::{Arc, Mutex, PoisonError};

use sched::{Structure, TokenId};
use vocabulary::{GrammarError, Mask, Matcher};

use super::{Compiled, Shared, Structures};

/// One choice on its way through a grammar.
pub(crate) struct Follower {
    structures: Structures,
    pub(super) choice: Arc<Mutex<Choice>>,
}

/// State of a choice; it goes on in whichever thread comes first.
pub(super) struct Choice {
    pub(super) compiled: Arc<Compiled>,
    structure: Arc<Structure>,
    /// Made when first needed, perhaps after the grammar is compiled.
    matcher: Option<Matcher>,
    /// Tokens that the matcher has not taken yet.
    pending: Vec<TokenId>,
    next: Option<Result<Mask, GrammarError>>,
}

/// Tokens that a choice may go on with.
pub(crate) struct Allowed<'a> {
    mask: &'a Mask,
    ends: &'a [TokenId],
}

impl Follower {
    pub(super) fn new(
        structures: Structures,
        compiled: Arc<Compiled>,
        structure: Arc<Structure>,
        generated: &[TokenId],
    ) -> Follower {
        let choice = Choice { compiled, structure, matcher: None, pending: generated.to_vec(), next: None };
        let follower = Follower { structures, choice: Arc::new(Mutex::new(choice)) };
        follower.structures.mask_soon(&follower.choice);
        follower
    }

    /// Calls `look` with the tokens that the choice may go on with.
    pub(crate) fn allowed<T>(&self, look: impl FnOnce(Allowed<'_>) -> T) -> Result<T, GrammarError> {
        let mut choice = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        let structure = Arc::clone(&choice.structure);
        choice.compute_next(&self.structures.shared);
        match &choice.next {
            Some(Ok(mask)) => Ok(look(Allowed { mask, ends: &structure.ends })),
            Some(Err(error)) => Err(error.clone()),
            None => Err(GrammarError("it has no mask".to_owned())),
        }
    }

    /// Goes on by one token, and has the next mask computed meanwhile.
    pub(crate) fn push(&self, token: TokenId) {
        let mut choice = self.choice.lock().unwrap_or_else(PoisonError::into_inner);
        choice.pending.push(token);
        choice.next = None;
        drop(choice);
        self.structures.mask_soon(&self.choice);
    }
}

impl std::fmt::Debug for Follower {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Follower").finish_non_exhaustive()
    }
}

impl Choice {
    /// Takes the pending tokens and computes the next mask, unless that is done.
    pub(super) fn compute_next(&mut self, shared: &Shared) {
        if self.next.is_none() {
            self.next = Some(self.compute(shared));
        }
    }

    fn compute(&mut self, shared: &Shared) -> Result<Mask, GrammarError> {
        shared.goes_on()?;
        let matcher = match &mut self.matcher {
            Some(matcher) => matcher,
            none @ None => none.insert(self.compiled.start(shared)?),
        };
        for token in std::mem::take(&mut self.pending) {
            // An end token that does not end the choice (ignore_eos, min_tokens) is no part of its text.
            let is_end = self.structure.ends.contains(&token);
            if !is_end || matcher.accepts(token)? {
                matcher.push(token)?;
            }
        }
        matcher.mask()
    }
}

impl Drop for Choice {
    fn drop(&mut self) {
        if let Some(matcher) = self.matcher.take() {
            self.compiled.learn(matcher);
        }
    }
}

impl Allowed<'_> {
    /// Bars the tokens that may not come next from a row of `logits`. Where the text must end, its end tokens keep
    /// their values in `raw`, whatever `min_tokens` has made of them.
    pub(crate) fn bar(&self, raw: &[f32], logits: &mut [f32]) {
        if self.mask.must_end() {
            logits.fill(f32::NEG_INFINITY);
            self.copy_ends(raw, logits);
            return;
        }
        let kept: Vec<f32> =
            self.ends.iter().map(|end| logits.get(end.0 as usize).copied().unwrap_or_default()).collect();
        let tokens = self.mask.tokens() as usize;
        for (word, logits) in self.mask.words().iter().zip(logits[..].chunks_mut(32)) {
            bar_word(*word, logits);
        }
        logits.iter_mut().skip(tokens).for_each(|logit| *logit = f32::NEG_INFINITY);
        if self.mask.may_end() {
            for (end, kept) in self.ends.iter().zip(kept) {
                if let Some(logit) = logits.get_mut(end.0 as usize) {
                    *logit = kept;
                }
            }
        }
    }

    /// Copies a row of `raw` logits to `logits` without the tokens that may not come next: in one pass, for the rows of a
    /// large vocabulary are more than the caches hold.
    pub(crate) fn copy(&self, raw: &[f32], logits: &mut Vec<f32>) {
        logits.resize(raw.len(), f32::NEG_INFINITY);
        if self.mask.must_end() {
            logits.fill(f32::NEG_INFINITY);
            self.copy_ends(raw, logits);
            return;
        }
        let tokens = self.mask.tokens() as usize;
        let mut words = self.mask.words().iter();
        // Of a length that is known to the compiler.
        let ((whole, rest), (whole_out, rest_out)) = (raw.as_chunks::<32>(), logits.as_chunks_mut::<32>());
        for ((raw, logits), word) in whole.iter().zip(whole_out).zip(&mut words) {
            copy_word(*word, raw, logits);
        }
        copy_word(words.next().copied().unwrap_or_default(), rest, rest_out);
        logits.iter_mut().skip(tokens).for_each(|logit| *logit = f32::NEG_INFINITY);
        if self.mask.may_end() {
            self.copy_ends(raw, logits);
        }
    }

    fn copy_ends(&self, raw: &[f32], logits: &mut [f32]) {
        for end in self.ends {
            let index = end.0 as usize;
            if let (Some(logit), Some(raw)) = (logits.get_mut(index), raw.get(index)) {
                *logit = *raw;
            }
        }
    }
}

/// Copies the logits of one word of a mask; whole words are common.
fn copy_word(word: u32, raw: &[f32], logits: &mut [f32]) {
    match word {
        0 => logits.fill(f32::NEG_INFINITY),
        u32::MAX => logits.copy_from_slice(raw),
        _ => {
            for (bit, (logit, raw)) in logits.iter_mut().zip(raw).enumerate() {
                *logit = if word & (1 << bit) == 0 { f32::NEG_INFINITY } else { *raw };
            }
        }
    }
}

/// Bars the tokens of one word of a mask; whole words are common.
fn bar_word(word: u32, logits: &mut [f32]) {
    match word {
        0 => logits.fill(f32::NEG_INFINITY),
        u32::MAX => {}
        _ => {
            let barred = logits.iter_mut().enumerate().filter(|(bit, _)| word & (1 << bit) == 0);
            barred.for_each(|(_, logit)| *logit = f32::NEG_INFINITY);
        }
    }
}
