//! Stacks for deep recursion, kept for the next run; knows no template.

use std::sync::{Mutex, PoisonError};

use corosensei::stack::DefaultStack;

use super::error::Error;

/// Size of a stack: enough for the deepest nesting in a build without optimisation. Pages that no run reaches take no
/// memory.
const STACK_BYTES: usize = 32 << 20;
/// Most stacks that are kept. To map and unmap one for each run costs more than a usual run, and stops other threads.
const KEPT_MAX: usize = 4;

static KEPT: Mutex<Vec<DefaultStack>> = Mutex::new(Vec::new());

/// Runs `work`, which must not panic, on a large stack.
///
/// # Errors
/// When the system has no memory for a stack.
pub(super) fn on_large_stack<T>(work: impl FnOnce() -> Result<T, Error>) -> Result<T, Error> {
    let kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner).pop();
    let mut stack = match kept {
        Some(stack) => stack,
        None => DefaultStack::new(STACK_BYTES).map_err(|error| Error::NoStack(error.to_string()))?,
    };
    let done = corosensei::on_stack(&mut stack, work);
    let mut kept = KEPT.lock().unwrap_or_else(PoisonError::into_inner);
    if kept.len() < KEPT_MAX {
        kept.push(stack);
    }
    done
}
