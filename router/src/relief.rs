//! Gives memory that large requests have freed back to the system, now and then; knows no request.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Giving back takes milliseconds, and the next large request would only ask again.
const PAUSE: Duration = Duration::from_millis(500);

/// How freed memory is given back. What does it belongs to the process, whose allocator it is; clones share it.
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

    /// Large work has ended and its memory is free.
    pub(crate) fn due(&self) {
        self.due.store(true, Ordering::Relaxed);
    }

    /// Gives back what is due, for ever.
    pub(crate) async fn keep(self) {
        let mut beat = tokio::time::interval(PAUSE);
        loop {
            beat.tick().await;
            if self.due.swap(false, Ordering::Relaxed) {
                // A panic in it would be the allocator's; there is nothing to do about that here.
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
