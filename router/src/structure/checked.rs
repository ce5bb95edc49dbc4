//! Grammars compiled once by the router, so that a client hears at once what is wrong with its own; knows no request.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use sched::contained::contained;
use vocabulary::{GrammarError, Grammars, Pieces};

use crate::text::thread_time;

/// Grammars that are known to be fine.
const KNOWN_MAX: usize = 256;

/// Processor time for compiling a grammar. Its choice may have to wait for as long at its worker, and the step with it.
const COMPILING_MAX: Duration = Duration::from_millis(250);

/// Checker of grammars over one vocabulary. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct Checked {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    grammars: OnceLock<Result<Grammars, GrammarError>>,
    /// The most recently used last.
    known: Mutex<VecDeque<Arc<str>>>,
}

impl Checked {
    /// Compiles `grammar` as workers will, unless that is known to succeed.
    pub(crate) fn check(&self, grammar: &Arc<str>, pieces: &Pieces) -> Result<(), GrammarError> {
        self.check_within(grammar, pieces, COMPILING_MAX)
    }

    fn check_within(&self, grammar: &Arc<str>, pieces: &Pieces, compiling_max: Duration) -> Result<(), GrammarError> {
        if self.is_known(grammar) {
            return Ok(());
        }
        let read = || Grammars::new(pieces).map_err(|error| GrammarError(error.to_string()));
        let grammars = self.shared.grammars.get_or_init(read).as_ref().map_err(Clone::clone)?;
        let begun = thread_time();
        let compiled =
            contained(|| grammars.compile(grammar)).map_err(|_| GrammarError("it cannot be read".to_owned()));
        compiled??;
        if thread_time().saturating_sub(begun) > compiling_max {
            return Err(GrammarError(format!("it takes more than {compiling_max:?} to compile")));
        }
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.push_back(Arc::clone(grammar));
        if known.len() > KNOWN_MAX {
            known.pop_front();
        }
        Ok(())
    }

    fn is_known(&self, grammar: &Arc<str>) -> bool {
        let mut known = self.shared.known.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(grammar) = known.iter().rposition(|known| known == grammar).and_then(|index| known.remove(index))
        else {
            return false;
        };
        known.push_back(grammar);
        true
    }
}

impl std::fmt::Debug for Checked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Checked").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::samples;

    #[test]
    fn a_grammar_that_compiles_too_slowly_is_refused_until_it_is_known() {
        let (checked, tokenizer) = (Checked::default(), samples::byte_level());
        let grammar: Arc<str> = "start: /[a-z]{1,40}/".into();
        let refused = checked.check_within(&grammar, tokenizer.pieces(), Duration::ZERO).unwrap_err();
        assert!(refused.to_string().contains("to compile"), "{refused}");
        checked.check(&grammar, tokenizer.pieces()).unwrap();
        checked.check_within(&grammar, tokenizer.pieces(), Duration::ZERO).unwrap();
    }

    #[test]
    fn the_longest_unused_is_forgotten() {
        let (checked, tokenizer) = (Checked::default(), samples::byte_level());
        for index in 0..=KNOWN_MAX {
            let grammar = format!("start: \"{index}\"").into();
            checked.check(&grammar, tokenizer.pieces()).unwrap();
            checked.check(&"start: \"0\"".into(), tokenizer.pieces()).unwrap();
        }
        assert!(checked.is_known(&"start: \"0\"".into()) && !checked.is_known(&"start: \"1\"".into()));
        assert_eq!(checked.shared.known.lock().unwrap().len(), KNOWN_MAX);
    }
}
