//! Random bytes from the operating system's generator.

use sched::{Failure, FailureKind};

/// Returns fresh random bytes.
///
/// # Errors
/// `Internal`: the system gives none.
pub(crate) fn bytes<const N: usize>() -> Result<[u8; N], Failure> {
    let mut bytes = [0; N];
    let filled = getrandom::fill(&mut bytes);
    filled
        .map_err(|error| Failure::new(FailureKind::Internal, format!("the system gives no random bytes: {error}")))?;
    Ok(bytes)
}
