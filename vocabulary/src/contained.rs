//! Calls into the tokenizer library, which panics at some files; knows no file.

use std::panic::{AssertUnwindSafe, catch_unwind};

/// Calls `library`, whose closure must not hold state that is used after a panic. An error is the panic's message.
pub(crate) fn contained<T>(library: impl FnOnce() -> T) -> Result<T, String> {
    catch_unwind(AssertUnwindSafe(library)).map_err(|panic| {
        let owned = panic.downcast_ref::<String>().map(String::as_str);
        owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("it did not say why").to_owned()
    })
}
