//! Gives memory that large requests have freed back to the system from time to time; knows no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Time between two returns of memory, each of which takes milliseconds; the next large request asks for it again.
const PAUSE: Duration = Duration::from_millis(500);

/// Way to give freed memory back. The process provides it, as the allocator is its own; clones share it.
#[derive(Debug, Clone)]
pub struct Relief {
    give_back: fn(),
    due: Arc<AtomicBool>,
}

impl Relief {
    /// Calls `give_back`, which may take milliseconds.
    #[must_use]
    pub fn with(give_back: fn()) -> Relief {
        Relief { give_back, due: Arc::default() }
    }

    /// Leaves freed memory to the allocator.
    #[must_use]
    pub fn none() -> Relief {
        Relief::with(|| {})
    }

    /// Notes that large work has ended and its memory is free.
    pub(crate) fn due(&self) {
        self.due.store(true, Ordering::Relaxed);
    }

    /// Gives memory back whenever it is due, for ever.
    pub(crate) async fn keep(self) {
        let mut beat = tokio::time::interval(PAUSE);
        loop {
            beat.tick().await;
            if self.due.swap(false, Ordering::Relaxed) {
                // A panic could only be the allocator's, and nothing can be done about it here.
                let _ = tokio::task::spawn_blocking(self.give_back).await;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    static CALLS: AtomicUsize = AtomicUsize::new(0);

    #[tokio::test(start_paused = true)]
    async fn what_is_due_is_given_back_once() {
        let relief = Relief::with(|| {
            CALLS.fetch_add(1, Ordering::Relaxed);
        });
        relief.due();
        relief.due();
        let _ = tokio::time::timeout(20 * PAUSE, relief.keep()).await;
        assert_eq!(CALLS.load(Ordering::Relaxed), 1);
    }
}
