//! Request to end this process: the first drains it, the second ends it at once. Knows nothing of its work.

use std::time::Duration;

use node::drain::{Cause, Supervision, asked};
use tokio::sync::watch;

/// Time for an end at once.
const AT_ONCE: Duration = Duration::from_secs(2);

/// Request to end, if any; clones share it.
#[derive(Debug, Clone)]
pub struct Ending {
    wish: watch::Receiver<Wish>,
}

/// State of the request to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    GoOn,
    End(Cause),
    /// End without waiting for anything.
    EndNow(Cause),
}

/// Error: the process was asked a second time and ended without waiting for running requests.
#[derive(Debug, thiserror::Error)]
#[error("ended at once: asked to a second time")]
pub struct CutShort {
    cause: Cause,
}

impl CutShort {
    /// Returns the exit code of a process that was ended by the signal.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self.cause {
            Cause::HungUp => 128 + 1,
            Cause::Interrupted => 128 + 2,
            Cause::Terminated | Cause::SupervisorGone => 128 + 15,
        }
    }
}

impl Ending {
    /// Starts to listen for requests to end.
    #[must_use]
    pub fn watch(supervision: Supervision) -> Ending {
        let (tell, wish) = watch::channel(Wish::GoOn);
        tokio::spawn(async move {
            if let Err(error) = listen(supervision, &tell).await {
                tracing::error!(%error, "cannot watch for signals; only the default actions end this process");
            }
            std::future::pending::<()>().await;
        });
        Ending { wish }
    }

    /// Resolves when this process must end; returns the reason.
    pub async fn asked(&self) -> Cause {
        let mut wish = self.wish.clone();
        loop {
            let now = *wish.borrow_and_update();
            if let Wish::End(cause) | Wish::EndNow(cause) = now {
                return cause;
            }
            // Without the sender nobody asks any more.
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Returns true if the process must end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.wish.borrow() != Wish::GoOn
    }

    /// Resolves when the process must end at once.
    pub async fn insisted(&self) -> CutShort {
        let mut wish = self.wish.clone();
        loop {
            let now = *wish.borrow_and_update();
            if let Wish::EndNow(cause) = now {
                return CutShort { cause };
            }
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// Reports requests to end; the second one ends the process in any case.
async fn listen(supervision: Supervision, tell: &watch::Sender<Wish>) -> std::io::Result<()> {
    let cause = asked(supervision).await?;
    match cause {
        Cause::Terminated => tracing::info!("asked to end (SIGTERM); once more ends at once"),
        Cause::Interrupted => tracing::info!("asked to end (Ctrl-C); once more ends at once"),
        Cause::HungUp => tracing::info!("asked to end (the terminal was closed, SIGHUP); a signal more ends at once"),
        Cause::SupervisorGone => tracing::debug!("asked to end by the supervisor"),
    }
    tell.send_replace(Wish::End(cause));
    let cause = asked(Supervision::Alone).await?;
    tracing::info!("asked to a second time: ending at once");
    tell.send_replace(Wish::EndNow(cause));
    tokio::time::sleep(AT_ONCE).await;
    // Some part does not react; the children end when they see that this process is gone.
    kv_transfer::exit_now(CutShort { cause }.code())
}
