//! One sleeping thread and whoever wakes it; a wake that comes before the sleep is not lost.

use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::backend::Notify;

/// Wakes the sleeper; cheap to clone.
#[derive(Clone)]
pub(crate) struct Waker {
    token: Sender<()>,
}

/// The side that sleeps.
pub(crate) struct Sleeper {
    tokens: Receiver<()>,
}

impl Waker {
    /// A waker and its sleeper.
    pub(crate) fn pair() -> (Waker, Sleeper) {
        let (token, tokens) = bounded(1);
        (Waker { token }, Sleeper { tokens })
    }

    /// Ends the current or the next sleep.
    pub(crate) fn wake(&self) {
        // A full channel means that a wake is pending already; a closed one that nobody sleeps any more.
        let _ = self.token.try_send(());
    }

    /// The same as a closure.
    pub(crate) fn notify(&self) -> Notify {
        let waker = self.clone();
        Arc::new(move || waker.wake())
    }
}

impl Sleeper {
    /// Sleeps until woken or until `deadline`.
    pub(crate) fn sleep_until(&self, deadline: Instant) {
        match self.tokens.recv_deadline(deadline) {
            Ok(()) | Err(RecvTimeoutError::Timeout) => {}
            // Backends and transports hold wakers as long as the loop runs; without any, only time passes.
            Err(RecvTimeoutError::Disconnected) => {
                std::thread::sleep(deadline.saturating_duration_since(Instant::now()));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_wake_before_the_sleep_is_kept_once() {
        let (waker, sleeper) = Waker::pair();
        waker.wake();
        waker.notify()();
        let far = Instant::now() + Duration::from_secs(3600);
        sleeper.sleep_until(far);
        let near = Instant::now() + Duration::from_millis(1);
        sleeper.sleep_until(near);
        assert!(Instant::now() >= near);
    }
}
