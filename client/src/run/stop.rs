//! Wish of the user to end a run early; knows no signals.

use tokio::sync::watch;

/// Receiving end: the run looks at it.
#[derive(Debug, Clone)]
pub struct Stop(watch::Receiver<bool>);

/// Sending end. Dropping it without a wish lets the run go on.
#[derive(Debug)]
pub struct Stopper(watch::Sender<bool>);

impl Stopper {
    /// Makes both ends.
    #[must_use]
    pub fn new() -> (Stopper, Stop) {
        let (tell, wish) = watch::channel(false);
        (Stopper(tell), Stop(wish))
    }

    /// Ends the run.
    pub fn stop(&self) {
        self.0.send_replace(true);
    }
}

impl Stop {
    /// True if the run must end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Resolves when the run must end.
    pub async fn asked(&self) {
        let mut wish = self.0.clone();
        if wish.wait_for(|is_asked| *is_asked).await.is_err() {
            // Without the sender nobody asks any more.
            std::future::pending::<()>().await;
        }
    }
}
