//! The life of a worker process from open ports to the last thread; knows neither sessions nor models.

use std::fmt::Display;
use std::future::Future;
use std::pin::pin;
use std::thread;
use std::time::Duration;

use sched::{Failure, FailureKind};
use thiserror::Error;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::{JoinError, JoinHandle};
use tokio::time::timeout;

use crate::loading::{Stalled, Watch, loaded};
use node::admin::Admin;
use node::drain::{Drained, Stop, drain};

/// Time that each part has to end after draining.
pub(crate) const TEARDOWN: Duration = Duration::from_secs(5);

/// Reason for which a worker cannot go on.
#[derive(Debug, Error)]
pub enum LifeError {
    /// The replica thread has ended by itself.
    #[error("the replica has stopped: {0}")]
    Replica(Failure),
    /// The start makes no progress.
    #[error(transparent)]
    Stalled(#[from] Stalled),
    /// A listener or a task failed.
    #[error("{purpose} failed: {reason}")]
    Task {
        /// Purpose of the listener or task.
        purpose: &'static str,
        /// Reason of its failure.
        reason: String,
    },
}

impl LifeError {
    pub(crate) fn task(purpose: &'static str, reason: impl Display) -> LifeError {
        LifeError::Task { purpose, reason: reason.to_string() }
    }
}

/// A process whose admin HTTP answers. Dropping it ends every task that waits for [`Life::stop`].
pub(crate) struct Life {
    admin: Admin,
    serving_admin: JoinHandle<std::io::Result<()>>,
    stop: Stop,
}

impl Life {
    #[must_use]
    pub(crate) fn begin(admin: Admin, listener: TcpListener) -> Life {
        let stop = Stop::new();
        let serving_admin = tokio::spawn(admin.clone().run(listener, stop.asked()));
        Life { admin, serving_admin, stop }
    }

    #[must_use]
    pub(crate) fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Waits for `loading` as long as it makes progress, and reports the progress at `/ready` and to `watch`. `None` if
    /// `shutdown` came first; then loading has ended early, or is left behind if that takes longer than [`TEARDOWN`].
    ///
    /// # Errors
    /// The start makes no progress.
    pub(crate) async fn load<T>(
        &self,
        loading: impl Future<Output = T>,
        watch: Watch<'_>,
        shutdown: impl Future<Output = ()>,
    ) -> Result<Option<T>, LifeError> {
        let told = |doing: &str| {
            self.admin.gate.waits_for(doing);
            (watch.told)(doing);
        };
        let mut loading = pin!(loaded(loading, Watch { told: &told, ..watch }));
        tokio::select! {
            loaded = &mut loading => {
                (watch.stop)();
                Ok(Some(loaded?))
            }
            () = shutdown => {
                (watch.stop)();
                let _ = timeout(TEARDOWN, loading).await;
                Ok(None)
            }
        }
    }

    pub(crate) fn waits_for(&self, what: &str) {
        self.admin.gate.waits_for(what);
    }

    pub(crate) fn open(&self) {
        self.admin.gate.open();
    }

    /// Waits for `shutdown` or for the first part that fails.
    ///
    /// # Errors
    /// The part that failed.
    pub(crate) async fn live<E: Display>(
        &mut self,
        shutdown: impl Future<Output = ()>,
        replica_stopped: oneshot::Receiver<Option<Failure>>,
        serving: JoinHandle<Result<(), E>>,
    ) -> Result<(), LifeError> {
        tokio::select! {
            () = shutdown => Ok(()),
            stopped = replica_stopped => Err(LifeError::Replica(failure_of(stopped))),
            served = serving => Err(ended("serving gRPC", served)),
            served = &mut self.serving_admin => Err(ended("serving admin HTTP", served)),
        }
    }

    pub(crate) async fn drain(&self, limit: Duration, idle: impl Future<Output = ()>) {
        match drain(&self.admin.gate, limit, idle).await {
            Drained::Empty => tracing::debug!("drained"),
            Drained::CutOff => {
                let limit_ms = limit.as_millis() as u64;
                tracing::warn!(limit_ms, "what still runs is cut off: draining took too long");
            }
        }
    }

    /// Ends every part, after `farewell` to other processes. The replica was told to end before.
    pub(crate) async fn end(self, farewell: impl Future<Output = ()>, replica: thread::JoinHandle<()>) {
        if timeout(TEARDOWN, farewell).await.is_err() {
            tracing::warn!("a connection did not end in time");
        }
        self.stop.ask();
        let joined = timeout(TEARDOWN, tokio::task::spawn_blocking(move || replica.join())).await;
        match joined {
            Ok(Ok(Ok(()))) => {}
            Ok(_) => tracing::error!("the replica thread has panicked"),
            Err(_) => tracing::error!("the replica thread did not end in time"),
        }
    }
}

fn failure_of(stopped: Result<Option<Failure>, oneshot::error::RecvError>) -> Failure {
    stopped.ok().flatten().unwrap_or_else(|| Failure::new(FailureKind::Internal, "its thread has ended"))
}

fn ended<E: Display>(purpose: &'static str, served: Result<Result<(), E>, JoinError>) -> LifeError {
    match served {
        Ok(Ok(())) => LifeError::task(purpose, "it ended by itself"),
        Ok(Err(error)) => LifeError::task(purpose, error),
        Err(error) => LifeError::task(purpose, error),
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;
    use node::admin::{Gate, Readiness, Version};
    use node::bind::bind;
    use node::telemetry::Metrics;

    async fn life() -> (Life, Gate) {
        let gate = Gate::starting("the model");
        let admin = Admin {
            gate: gate.clone(),
            metrics: Metrics::detached(),
            version: Version::of_role("test"),
            key: None,
            knobs: Vec::new(),
        };
        (Life::begin(admin, bind("127.0.0.1:0", "admin").await.unwrap().listener), gate)
    }

    fn for_ever() -> JoinHandle<Result<(), Infallible>> {
        tokio::spawn(std::future::pending())
    }

    #[tokio::test]
    async fn a_shutdown_is_no_error_and_the_gate_shuts() {
        let (mut life, gate) = life().await;
        life.open();
        assert_eq!(gate.readiness(), Readiness::Ready);
        let (_replica, stopped) = oneshot::channel();
        life.live(async {}, stopped, for_ever()).await.unwrap();
        life.drain(TEARDOWN, async {}).await;
        assert_eq!(gate.readiness(), Readiness::Draining);
        let stop = life.stop().asked();
        life.end(async {}, thread::spawn(|| {})).await;
        stop.await;
    }

    #[tokio::test]
    async fn a_part_that_fails_is_named() {
        let (mut life, _) = life().await;
        let (replica, stopped) = oneshot::channel();
        replica.send(Some(Failure::new(FailureKind::Internal, "out of luck"))).unwrap();
        let said = life.live(std::future::pending(), stopped, for_ever()).await.unwrap_err().to_string();
        assert_eq!(said, "the replica has stopped: out of luck");
        let (_replica, stopped) = oneshot::channel();
        let broken = tokio::spawn(async { Err("no more files") });
        let said = life.live(std::future::pending(), stopped, broken).await.unwrap_err().to_string();
        assert_eq!(said, "serving gRPC failed: no more files");
    }
}
