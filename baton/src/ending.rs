//! When this process shall end: asked once it drains, asked again it ends at once. Knows nothing of what it does.

use std::time::Duration;

use node::drain::{Cause, Supervision, asked};
use tokio::sync::watch;

/// How long ending at once may take.
const AT_ONCE: Duration = Duration::from_secs(2);

/// What was asked for so far; clones share it.
#[derive(Debug, Clone)]
pub struct Ending {
    wish: watch::Receiver<Wish>,
}

/// What whoever watches over this process wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wish {
    GoOn,
    End(Cause),
    /// Without waiting for anything or anybody.
    EndNow(Cause),
}

/// It was asked a second time, and ended without waiting for what still ran.
#[derive(Debug, thiserror::Error)]
#[error("ended at once: asked to a second time")]
pub struct CutShort {
    cause: Cause,
}

impl CutShort {
    /// The exit code: that of a process which the signal has ended.
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
    /// Listens from now on.
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

    /// Resolves when this process shall end, and says why.
    pub async fn asked(&self) -> Cause {
        let mut wish = self.wish.clone();
        loop {
            let now = *wish.borrow_and_update();
            if let Wish::End(cause) | Wish::EndNow(cause) = now {
                return cause;
            }
            // Once the sender is gone nobody asks any more.
            if wish.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Whether it shall.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.wish.borrow() != Wish::GoOn
    }

    /// Resolves when it shall end at once.
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

/// Passes on what is asked; the second time there is no way back.
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
    // Something does not even take notice; the children end when they see that we are gone.
    kv_transfer::exit_now(CutShort { cause }.code())
}
