//! Calls into libraries that may panic on what a file or a request holds: the panic ends only the call. Knows no library.
//!
//! All crates that make such calls share this flag, so the panic hook of a process knows of each of them.

use std::any::Any;
use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};

thread_local! {
    static CONTAINED: Cell<bool> = const { Cell::new(false) };
}

/// Calls `library`, whose closure must not hold state that is used after a panic. An error is the panic's message.
pub fn contained<T>(library: impl FnOnce() -> T) -> Result<T, String> {
    let around = CONTAINED.replace(true);
    let called = catch_unwind(AssertUnwindSafe(library));
    CONTAINED.set(around);
    called.map_err(|panic| said(panic.as_ref()).to_owned())
}

/// Returns the message of a panic.
#[must_use]
pub fn said(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why")
}

/// Returns true if a caller on this thread handles panics.
#[must_use]
pub fn is_contained() -> bool {
    CONTAINED.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_panic_ends_the_call_only() {
        assert_eq!(contained(|| 7), Ok(7));
        let inner = || contained(|| panic!("no {}", "merge"));
        assert_eq!(contained(inner), Ok(Err::<(), String>("no merge".to_owned())));
        assert_eq!(contained(is_contained), Ok(true));
        assert!(!is_contained());
    }
}
