//! Admin HTTP surface of a process: health, readiness, metrics, version. Knows nothing of what the process does.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use serde::Serialize;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tower::Service;

use crate::door::{ConnectionLimits, Guard, Phase, ReadingPace, connections_within_files, serve};
use crate::telemetry::Metrics;

/// Time between two foldings of histograms, whose samples would otherwise pile up between scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// Few are needed, for scrapes and probes.
const CONNECTIONS_MAX: usize = 64;
const LIMITS: ConnectionLimits = ConnectionLimits {
    connections_max: CONNECTIONS_MAX,
    head_time_max: Duration::from_secs(75),
    reading: ReadingPace { behind_max: Duration::from_secs(10), bytes_per_s_min: 16 << 10 },
};

/// Whether a process takes work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Readiness {
    /// Not ready yet; waits for this.
    Starting(String),
    /// Takes work.
    Ready,
    /// Takes no new work any more.
    Draining,
}

/// Readiness of a process; clones share it.
#[derive(Debug, Clone)]
pub struct Gate {
    state: Arc<watch::Sender<Readiness>>,
}

impl Gate {
    /// Makes a gate that stays shut until `what` is there.
    #[must_use]
    pub fn starting(what: impl Into<String>) -> Gate {
        Gate { state: Arc::new(watch::Sender::new(Readiness::Starting(what.into()))) }
    }

    /// Shuts the gate until `what` is there.
    pub fn waits_for(&self, what: impl Into<String>) {
        self.change(Readiness::Starting(what.into()));
    }

    /// Opens the gate, unless the process drains already.
    pub fn open(&self) {
        self.change(Readiness::Ready);
    }

    /// Shuts the gate for good.
    pub fn drain(&self) {
        self.state.send_replace(Readiness::Draining);
    }

    /// Returns the readiness now.
    #[must_use]
    pub fn readiness(&self) -> Readiness {
        self.state.borrow().clone()
    }

    /// Resolves when the gate is open.
    pub async fn opened(&self) {
        // Waiting cannot fail, as `self` holds the sender.
        let _ = self.state.subscribe().wait_for(|readiness| *readiness == Readiness::Ready).await;
    }

    fn change(&self, readiness: Readiness) {
        self.state.send_if_modified(|now| {
            let changes = *now != Readiness::Draining && *now != readiness;
            if changes {
                *now = readiness;
            }
            changes
        });
    }
}

/// Answer of `/version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Version {
    /// Version of Baton.
    pub version: &'static str,
    /// Role of the process.
    pub role: String,
    /// Other facts that distinguish this process: model, backend, instance.
    #[serde(flatten)]
    pub facts: std::collections::BTreeMap<String, String>,
}

impl Version {
    /// Makes the version of a process with this role.
    #[must_use]
    pub fn of_role(role: impl Into<String>) -> Version {
        Version { version: env!("CARGO_PKG_VERSION"), role: role.into(), facts: std::collections::BTreeMap::new() }
    }

    /// Adds a fact.
    #[must_use]
    pub fn with(mut self, fact: &str, value: impl Into<String>) -> Version {
        self.facts.insert(fact.to_owned(), value.into());
        self
    }
}

/// State that the admin surface shows.
#[derive(Debug, Clone)]
pub struct Admin {
    /// Readiness.
    pub gate: Gate,
    /// Metrics.
    pub metrics: Metrics,
    /// Version.
    pub version: Version,
}

impl Admin {
    /// Returns the routes, to be served alone or merged into others.
    pub fn routes(self) -> Router {
        Router::new()
            .route("/health", get(|| async { "ok\n" }))
            .route("/ready", get(ready))
            .route("/metrics", get(metrics))
            .route("/version", get(version))
            .with_state(Arc::new(self))
    }

    /// Serves the routes until `shutdown`; fails when the listener does.
    pub async fn run(
        self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send + 'static,
    ) -> std::io::Result<()> {
        let upkeep = upkeep(self.metrics.clone());
        let guard = Arc::new(Guard::new(listener.local_addr()?, "", &[], &[]));
        let (door, phase) = watch::channel(Phase::Open);
        let routes = self.routes();
        let answer = move |request: axum::extract::Request| {
            let (guard, mut routes) = (Arc::clone(&guard), routes.clone());
            async move {
                match guard.check(&request) {
                    Ok(()) => routes.call(request).await.unwrap_or_else(|never| match never {}),
                    Err(strange) => (strange.status(), format!("{strange}\n")).into_response(),
                }
            }
        };
        let shut = async move {
            shutdown.await;
            door.send_replace(Phase::Shut);
            std::future::pending::<()>().await;
        };
        let limits = ConnectionLimits { connections_max: connections_within_files(CONNECTIONS_MAX), ..LIMITS };
        tokio::select! {
            () = serve(listener, limits, phase, answer) => Ok(()),
            () = upkeep => Ok(()),
            () = shut => Ok(()),
        }
    }
}

/// Folds histograms for ever; must run beside every `/metrics` that is served without [`Admin::run`].
pub async fn upkeep(metrics: Metrics) {
    let mut beat = tokio::time::interval(UPKEEP);
    loop {
        beat.tick().await;
        metrics.upkeep();
    }
}

async fn ready(State(admin): State<Arc<Admin>>) -> Response {
    match admin.gate.readiness() {
        Readiness::Ready => "ready\n".into_response(),
        Readiness::Starting(what) => (StatusCode::SERVICE_UNAVAILABLE, format!("waits for {what}\n")).into_response(),
        Readiness::Draining => (StatusCode::SERVICE_UNAVAILABLE, "drains\n").into_response(),
    }
}

async fn metrics(State(admin): State<Arc<Admin>>) -> Response {
    let kind = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (kind, admin.metrics.render()).into_response()
}

async fn version(State(admin): State<Arc<Admin>>) -> Json<Version> {
    Json(admin.version.clone())
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use axum::http::Request;
    use http_body_util::BodyExt;
    use tower::ServiceExt;

    use super::*;

    fn admin() -> Admin {
        let version = Version::of_role("decode").with("model", "demo");
        Admin { gate: Gate::starting("the model"), metrics: Metrics::detached(), version }
    }

    async fn get(admin: &Admin, path: &str) -> (u16, String) {
        let request = Request::get(path).body(Body::empty()).unwrap();
        let response = admin.clone().routes().oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_follows_the_gate_and_draining_is_final() {
        let admin = admin();
        assert_eq!(get(&admin, "/health").await, (200, "ok\n".into()));
        assert_eq!(get(&admin, "/ready").await, (503, "waits for the model\n".into()));
        admin.gate.open();
        assert_eq!(get(&admin, "/ready").await, (200, "ready\n".into()));
        admin.gate.drain();
        admin.gate.open();
        assert_eq!(get(&admin, "/ready").await, (503, "drains\n".into()));
        assert_eq!(get(&admin, "/health").await, (200, "ok\n".into()));
    }

    #[tokio::test]
    async fn version_and_metrics_answer() {
        let admin = admin();
        let (status, body) = get(&admin, "/version").await;
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!((status, body), (200, format!(r#"{{"version":"{version}","role":"decode","model":"demo"}}"#)));
        assert_eq!(get(&admin, "/metrics").await.0, 200);
        assert_eq!(get(&admin, "/nothing").await.0, 404);
    }
}
